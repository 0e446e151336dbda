"""What a ranking without any knowledge scores: the floor under every MAP."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.errors import UsageError


def expected_average_precision(
    relevant: NDArray[np.int64], candidates: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Exact expectation of AP over all random permutations of the candidates.

    With R relevant among M, the candidate at rank i is relevant with probability R/M, and each of
    the i - 1 before it is then relevant with probability (R-1)/(M-1). Summed over the ranks:

        E[AP] = (1/M) * (H_M + (R-1)/(M-1) * (M - H_M)),   H_M = 1 + 1/2 + ... + 1/M

    This is above R/M (5.48 against 5.12 on DARN's category), and it is what EVALUATION.md's
    chance figures are.

    Args:
        relevant: R of each query, [Q] integers in 0..M.
        candidates: M of each query, [Q] integers >= 0.

    Returns:
        [Q] float64 in [0, 1]; 0 where R = 0, as for AP itself.

    Raises:
        UsageError: if a count is negative or R > M.
    """
    r = np.asarray(relevant, dtype=np.int64)
    m = np.asarray(candidates, dtype=np.int64)
    if r.shape != m.shape or np.any(r < 0) or np.any(r > m):
        raise UsageError(
            "relevant and candidates must be counts of the same shape with "
            f"0 <= relevant <= candidates, not {r.tolist()[:8]} and {m.tolist()[:8]}"
        )
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, m.max(initial=0) + 1))])[m]
    before = (r - 1) / np.maximum(m - 1, 1)
    expected = (harmonic + before * (m - harmonic)) / np.maximum(m, 1)
    return np.where(r > 0, expected, 0.0)
