"""Evaluation: protocols, attribute-specific MAP, combinations, and reports of them."""

from retrieval.evaluation.attribute_map import Embed, MapReport, MapScore, Mode, evaluate_attributes
from retrieval.evaluation.combination_score import (
    ButScore,
    CombinationReport,
    SameScore,
    evaluate_combinations,
)
from retrieval.evaluation.combinations import (
    Combination,
    draw_combinations,
    load_combinations,
    save_combinations,
)
from retrieval.evaluation.evaluation import Evaluation
from retrieval.evaluation.protocol import AttributeTask, queries_and_candidates
from retrieval.evaluation.report import to_json, to_markdown, to_tables

__all__ = [
    "AttributeTask",
    "ButScore",
    "Combination",
    "CombinationReport",
    "Embed",
    "Evaluation",
    "MapReport",
    "MapScore",
    "Mode",
    "SameScore",
    "draw_combinations",
    "evaluate_attributes",
    "evaluate_combinations",
    "load_combinations",
    "queries_and_candidates",
    "save_combinations",
    "to_json",
    "to_markdown",
    "to_tables",
]
