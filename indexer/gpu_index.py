"""A view in the memory of GPUs: faiss-gpu where it works, else torch, else the CPU, saying which.

Candidates come from fp16 vectors (or bytes in inverted lists, where fp16 does not fit) and are
compared again in float32 with the flat rows, so the hits are the CPU's.

What has been run on a GPU (one H100): torch, and flat fp16 by faiss-gpu 1.15.1 with cuVS. Never run
there: inverted lists and several GPUs, which are tested against a stand-in that has the functions
of faiss-gpu and does their work with CPU faiss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.approximate import build
from indexer.exact_search import ROUNDING, CandidateSource
from indexer.index_choice import DEFAULT_RECALL, IndexChoice, choose_index

HALF_ERROR = 2e-3
"""Bound on how far a cosine of fp16 unit vectors, itself fp16, is off: 2 x 2^-11 for the vectors,
2^-11 for the result, and room for sums in another order."""

_GPU_MOST = 2048  # faiss-gpu selects no more neighbours than that
_GPU_REFINE = 8  # bytes a number are close to exact; the flat rows settle the rest
_SCORES = 1 << 27  # numbers of a product at a time, 256 MB of fp16
_CHUNK = 65_536  # rows copied to the GPU at a time
_SHARE = 0.8  # of the free GPU memory that vectors may take; the rest is for products


@dataclass(frozen=True)
class GpuOpened:
    """What finds candidates on a GPU, and what to tell.

    Args:
        source: None if the CPU has to search.
        remark: which of faiss-gpu, torch and CPU it is, and why.
    """

    source: CandidateSource | None
    remark: str


def open_gpu(
    vectors: NDArray[np.float32],
    device: str,
    faiss: Any,
    recall: float = DEFAULT_RECALL,
    memory: Callable[[int], int] | None = None,
) -> GpuOpened:
    """Copy a view to the GPUs and choose how it is searched there.

    Args:
        vectors: unit vectors [N, d] float32, as a rule mapped.
        device: torch's name of the GPU for the torch path, `cuda` or `cuda:N`.
        faiss: the faiss module, with or without GPU support.
        recall: recall@10 that is wanted where the vectors do not fit as fp16.
        memory: number of GPUs -> bytes that the view may take of them; free memory by default.

    Returns:
        The source for `View.use`, or none where neither way works or fits.
    """
    count, trouble = faiss_gpus(faiss)
    if count:
        try:
            room = memory(count) if memory else _free_memory(range(count))
            choice = choose_index(len(vectors), vectors.shape[1], recall, gpu_memory=room)
            if choice.gpu:
                source = FaissGpuSource(vectors, choice, faiss, count)
                return GpuOpened(source, f"{source.what}: {choice.why}")
            trouble = f"{len(vectors):,} vectors do not fit the memory of {count} GPUs"
        except RuntimeError as error:  # faiss-gpu's word for out of memory, too
            trouble = f"faiss-gpu fails ({_first_line(error)})"
    try:
        room = memory(1) if memory else _free_memory([torch.device(device).index or 0])
        if len(vectors) * vectors.shape[1] * 2 <= room:
            torch_source = TorchSource(vectors, device)
            return GpuOpened(torch_source, f"{torch_source.what}: {trouble}")
        trouble += "; fp16 vectors do not fit one GPU"
    except RuntimeError as error:
        trouble += f"; torch fails on {device} ({_first_line(error)})"
    return GpuOpened(None, f"searching on the CPU: {trouble}")


def faiss_gpus(faiss: Any) -> tuple[int, str]:
    """How many GPUs faiss can search with, after a tiny search on each; 0 and why not."""
    if not hasattr(faiss, "get_num_gpus") or not hasattr(faiss, "StandardGpuResources"):
        return 0, "the installed faiss has no GPU support"
    try:
        count = int(faiss.get_num_gpus())
        if not count:
            return 0, "faiss sees no GPU"
        for number in range(count):
            index = faiss.index_cpu_to_gpu(
                faiss.StandardGpuResources(), number, faiss.IndexFlatIP(2)
            )
            index.add(np.eye(2, dtype=np.float32))
            nearest = index.search(np.array([[0.0, 1.0]], dtype=np.float32), 1)[1]
            if int(nearest[0, 0]) != 1:
                return 0, f"faiss gives wrong answers on GPU {number}"
    except RuntimeError as error:
        return 0, f"faiss fails on the GPU ({_first_line(error)})"
    return count, ""


class FaissGpuSource:
    """faiss-gpu: flat fp16, or inverted lists of bytes; the rows shared out over several GPUs.

    Inverted lists and several GPUs were never run; see the module.

    Args:
        vectors: unit vectors [N, d] float32.
        choice: of `choose_index`, on a GPU.
        faiss: a faiss module with GPU support.
        gpus: how many, at least 1.
    """

    def __init__(
        self, vectors: NDArray[np.float32], choice: IndexChoice, faiss: Any, gpus: int
    ) -> None:
        flat = choice.flat
        where = "one GPU" if gpus == 1 else f"{gpus} GPUs"
        self.what = f"{'flat fp16' if flat else choice.factory} on {where} by faiss-gpu"
        self.error: float | None = HALF_ERROR if flat else None
        self.refine, self.most = (1 if flat else _GPU_REFINE), min(_GPU_MOST, len(vectors))
        self.nbytes = vectors.size * (2 if flat else 1)
        # An index of inverted lists is shared out when it is copied, so it is filled before. A flat
        # one is empty then: its vectors go from the file to the GPUs without another copy here.
        index = faiss.IndexFlatIP(vectors.shape[1]) if flat else build(vectors, choice.factory)
        if not flat:
            faiss.extract_index_ivf(index).nprobe = max(choice.nprobe, 8)
        # The resources have to live as long as the index.
        self._resources = [faiss.StandardGpuResources() for _ in range(gpus)]
        if gpus == 1:
            options = faiss.GpuClonerOptions()
            options.useFloat16 = choice.half
            self._index = faiss.index_cpu_to_gpu(self._resources[0], 0, index, options)
        else:
            options = faiss.GpuMultipleClonerOptions()
            options.useFloat16 = choice.half
            options.shard = True
            self._index = faiss.index_cpu_to_all_gpus(index, co=options, ngpu=gpus)
        if flat:
            # In one call: shards number their rows in sequence, and only once.
            self._index.add(vectors)

    def candidates(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines by fp16 or bytes, and rows, [Q, count], best first."""
        scores, rows = self._index.search(np.ascontiguousarray(queries), count)
        return scores, rows

    def close(self) -> None:
        """Free the GPU memory."""
        self._index, self._resources = None, []


class TorchSource:
    """Flat fp16 by torch: a product and a selection; every row is compared.

    Args:
        vectors: unit vectors [N, d] float32.
        device: torch's name: `cuda`, `cuda:N` or, for tests, `cpu`.
    """

    def __init__(self, vectors: NDArray[np.float32], device: str) -> None:
        self.what = f"flat fp16 on {device} by torch"
        self.error: float | None = HALF_ERROR + ROUNDING
        self.refine, self.most = 1, len(vectors)
        self.nbytes = vectors.size * 2
        self._vectors = torch.empty(vectors.shape, dtype=torch.float16, device=device)
        for start in range(0, len(vectors), _CHUNK):
            part = np.array(vectors[start : start + _CHUNK])  # aligned, and writable for torch
            self._vectors[start : start + len(part)] = torch.from_numpy(part).to(device)

    def candidates(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines by fp16 and rows, [Q, count], best first."""
        at_once = max(1, _SCORES // max(1, len(self._vectors)))
        scores, rows = [], []
        with torch.inference_mode():
            for start in range(0, len(queries), at_once):
                part = torch.from_numpy(np.array(queries[start : start + at_once]))
                part = part.to(self._vectors.device, torch.float16)
                top = (part @ self._vectors.T).float().topk(count, dim=1)
                scores.append(top.values.cpu().numpy())
                rows.append(top.indices.cpu().numpy())
        return np.concatenate(scores), np.concatenate(rows)

    def close(self) -> None:
        """Free the memory."""
        self._vectors = torch.empty(0)


def _free_memory(gpus: Sequence[int]) -> int:
    """Bytes that views may take of some GPUs together."""
    free = [torch.cuda.mem_get_info(number)[0] for number in gpus]
    # Rows are shared out evenly, so the fullest GPU decides.
    return int(_SHARE * min(free, default=0) * len(gpus))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
