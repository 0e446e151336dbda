"""Retrieval metrics: pure functions over similarities and relevance."""

from retrieval.metrics.attention_share import attention_share
from retrieval.metrics.average_precision import average_precision
from retrieval.metrics.bootstrap import Interval, bootstrap_interval
from retrieval.metrics.chance import expected_average_precision
from retrieval.metrics.precision import precision_at_k, precision_ceiling
from retrieval.metrics.ranking import top_k

__all__ = [
    "Interval",
    "attention_share",
    "average_precision",
    "bootstrap_interval",
    "expected_average_precision",
    "precision_at_k",
    "precision_ceiling",
    "top_k",
]
