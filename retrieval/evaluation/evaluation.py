"""All that one run of `retrieve evaluate` measures."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.evaluation.attribute_map import MapReport
from retrieval.evaluation.combination_score import CombinationReport
from retrieval.evaluation.exclusion import ExclusionReport
from retrieval.evaluation.likeness import LikenessReport
from retrieval.evaluation.manipulation import ManipulationReport


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one split; None where something was or could not be measured.

    Args:
        map: attribute-specific MAP.
        combinations: `same` and `but`.
        floor: MAP of the average-pooled features of this checkpoint's backbone: untrained only if
            the backbone was kept frozen.
        likeness: same-item likeness.
        manipulation: the published manipulation protocol.
        without: requests that exclude a value.
        ties: near ties with the tenth hit per 1,000 images, by attribute, see `near_ties`.
    """

    map: MapReport
    combinations: CombinationReport | None = None
    floor: MapReport | None = None
    likeness: LikenessReport | None = None
    manipulation: ManipulationReport | None = None
    without: ExclusionReport | None = None
    ties: dict[str, float] | None = None
