"""The floor: the frozen backbone's features, average-pooled, whatever the condition."""

from __future__ import annotations

from typing import Any

import torch

from indexer.device import choose_device
from retrieval.evaluation.attribute_map import evaluate_attributes
from retrieval.evaluation.combinations import draw_combinations, evaluate_combinations
from retrieval.evaluation.encoded_split import encode_split
from retrieval.evaluation.report import Evaluation, to_json
from retrieval.evaluation.scoring import FloorScorer, floor_embed
from training.allocator import keep_freed_memory
from training.datasets.dataset import Dataset
from training.models.registry import build_model
from training.run import RunConfig

COMBINATIONS = 50  # as many as `retrieve evaluate` draws
SPLIT = "test"


def measure_floor(dataset: Dataset, config: RunConfig, device: str, workers: int) -> dict[str, Any]:
    """MAP and combinations of the pooled features on the test split.

    Args:
        dataset: with a test split.
        config: backbone, weights and preprocessing; its other layers stay random and unused.
        device: auto, cpu, cuda or cuda:N.
        workers: decoding processes.

    Returns:
        What `retrieve evaluate --json` prints; `parameters` are the backbone's. Combinations are
        ranked by these features alone.

    Raises:
        DataError: no image of the split can be read.
    """
    keep_freed_memory()
    torch.manual_seed(config.seed)  # of a backbone without weights
    model = build_model(dataset.schema, config.model, 0, config.weights)
    model.eval().requires_grad_(False).to(choose_device(device).device)
    encoded = encode_split(model, dataset, SPLIT, config.preprocessing, workers)
    part, bank, failures = encoded.dataset, encoded.bank, encoded.failures
    report = evaluate_attributes(part, SPLIT, "type", floor_embed(bank))
    drawn = draw_combinations(part, SPLIT, COMBINATIONS)
    combined = None
    if drawn:
        combined = evaluate_combinations(part, SPLIT, FloorScorer(bank.pooled), drawn)
    return to_json(Evaluation(report, combined)) | {
        "images": len(part),
        "unreadable": len(failures),
        "parameters": sum(p.numel() for p in model.backbone.parameters()),
    }
