"""The tail's kernel compiled for GPUs that are not here: whether a multiprocessor holds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from test_head import CONDITIONS, _model

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from indexer import triton_tail

_POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.int32: "*i32"}


def _launch(dim: int, monkeypatch: pytest.MonkeyPatch):
    """Kernel, arguments and options with which a launch would be made."""
    launches = []

    class Recorder:
        def __getitem__(self, grid):
            return lambda *arguments, **options: launches.append((arguments, options))

    kernel = triton_tail._tail
    with monkeypatch.context() as patch:
        patch.setattr(triton_tail, "_tail", Recorder())
        head = _model("m2fashion", dim, 7).fold(torch.from_numpy(CONDITIONS[1]).float())
        assert triton_tail.fits(head)
        attended = torch.zeros(3, dim)
        tail = triton_tail.Tail(head, triton_tail.TailWeights(head, "cpu"))
        tail(attended, torch.empty_like(attended))
    (launch,) = launches
    return kernel, *launch


@pytest.mark.parametrize(
    ("capability", "memory"),
    [
        (90, 232_448),
        pytest.param(80, 166_912, marks=pytest.mark.endurance),
        pytest.param(89, 101_376, marks=pytest.mark.endurance),
    ],
)
def test_a_multiprocessor_holds_the_widest(
    capability: int, memory: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`memory`: bytes of shared memory a block may have, CUDA C++ Programming Guide, table of
    technical specifications by compute capability, less the 1 KB that CUDA takes."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # compiled here and now
    tile = next(images for least, images in triton_tail._TILES if memory >= least)
    monkeypatch.setattr(triton_tail, "_tile", lambda device: tile)
    kernel, arguments, options = _launch(triton_tail._WIDEST, monkeypatch)
    given = dict(zip(kernel.arg_names, arguments, strict=False)) | options
    kinds, constants, aligned = {}, {}, {}
    for number, parameter in enumerate(kernel.params):
        value = given.pop(parameter.name)
        if parameter.is_constexpr:
            kinds[parameter.name] = "constexpr"
            constants[number,] = value
        elif isinstance(value, torch.Tensor):
            kinds[parameter.name] = _POINTERS[value.dtype]
            aligned[number,] = [["tt.divisibility", 16]]
        else:
            kinds[parameter.name] = "i32" if isinstance(value, int) else "fp32"
    source = ASTSource(kernel, kinds, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options=given)
    assert 0 < compiled.metadata.shared <= memory
