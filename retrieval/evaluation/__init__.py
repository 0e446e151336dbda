"""Evaluation: protocols, attribute-specific MAP, combinations, and reports of them."""

from retrieval.evaluation.attribute_map import MapReport, MapScore, evaluate_attributes
from retrieval.evaluation.combination_score import evaluate_combinations
from retrieval.evaluation.combinations import Combination, draw_combinations
from retrieval.evaluation.protocol import queries_and_candidates
from retrieval.evaluation.report import Evaluation, to_json, to_markdown, to_tables

__all__ = [
    "Combination",
    "Evaluation",
    "MapReport",
    "MapScore",
    "draw_combinations",
    "evaluate_attributes",
    "evaluate_combinations",
    "queries_and_candidates",
    "to_json",
    "to_markdown",
    "to_tables",
]
