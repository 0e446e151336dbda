"""The head's second half as one Triton kernel: V_s to Z, channel attention and readout.

As separate operations it is some forty small kernels a chunk, twenty times as slow as reading the
maps. Here a program takes a tile of images through all of it. A product's result goes through a
scratch block of the program's own, which never leaves the GPU's cache, and is read back as the next
product's operand. An operand is the sum of two fp16, and sums are float32: one alone, or TF32,
keeps the cosine of Z above 0.9999 but not the order of near garments. Operands beyond fp16's range
stay at its largest number.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from indexer.packed import LARGEST, Part, packed
from training.models.folded_head import FoldedHead
from training.models.folded_readout import SMALLEST
from training.models.value_readout import DOUBT, LIKENESS

_TILES = ((200_000, 64), (140_000, 32), (0, 16))
"""Images of a program at a time, by the shared memory in bytes that a block may have at least: of
an H100, an A100, and the GPUs of workstations."""
_BLOCK = 64  # columns of a product at a time
_WARPS = 8
_STAGES = 1
_PROGRAMS = 1  # a multiprocessor
_INTERPRETED = 4  # programs without a GPU
_WIDEST = 256  # channels; with 512 a GPU refused (illegal memory access, cause unknown)
_VALUES = 64  # of a condition, at most; with 128 it needs more than a multiprocessor's memory


@triton.jit
def _in_two(values, most):  # type: ignore[no-untyped-def]
    """float32 as the sum of two fp16, none of them infinite."""
    values = tl.minimum(tl.maximum(values, -most), most)
    high = values.to(tl.float16)
    return high, (values - high.to(tl.float32)).to(tl.float16)


@triton.jit
def _product(high, low, matrix, outputs, inputs, stride, count, sums):  # type: ignore[no-untyped-def]
    """`sums` and an operand [M, inputs] in two halves times some rows of a matrix
    [2, count, stride], whose halves are read as [inputs, outputs]. What the low halves make of each
    other is below float32."""
    places = matrix + outputs[None, :] * stride + inputs[:, None]
    near = tl.load(places)
    sums = tl.dot(high, near, sums)
    sums = tl.dot(low, near, sums)
    return tl.dot(high, tl.load(places + count * stride), sums)


@triton.jit
def _unit(rows, least):  # type: ignore[no-untyped-def]
    """Rows of length 1."""
    lengths = tl.sqrt(tl.sum(rows * rows, 1))
    return rows / tl.maximum(lengths, least)[:, None]


@triton.jit(do_not_specialize=["images", "attributes"])  # type: ignore[untyped-decorator]
def _tail(  # type: ignore[no-untyped-def]
    attended,
    out,
    scratch,
    images,
    squeeze,
    excite,
    excite_bias,
    output,
    output_bias,
    frequencies,
    constant,
    prototypes,
    bias,
    likeness_of_axes,
    removal,
    axes,
    starts,
    multis,
    attributes,
    share,
    doubt_weight,
    likeness,
    dim: tl.constexpr,
    half: tl.constexpr,
    turns: tl.constexpr,
    sigmoid: tl.constexpr,
    tile: tl.constexpr,
    wide: tl.constexpr,
    block: tl.constexpr,
    some: tl.constexpr,
    least: tl.constexpr,
    most: tl.constexpr,
):
    program = tl.program_id(0)
    columns = tl.arange(0, wide)
    numbers = tl.arange(0, some)
    own = tl.arange(0, tile)
    first = scratch + program * 2 * tile * wide
    second = first + tile * wide
    places = own[:, None] * wide + columns[None, :]
    zeros = tl.zeros((tile, block), tl.float32)
    for start in range(program * tile, images, tl.num_programs(0) * tile):
        rows = (start + own).to(tl.int64)
        within = rows < images
        inside = within[:, None] & (columns < dim)[None, :]
        given = attended + rows[:, None] * dim
        high, low = _in_two(tl.load(given + columns[None, :], mask=inside, other=0.0), most)
        for left in range(0, wide, block):
            part = left + tl.arange(0, block)
            hidden = _product(high, low, squeeze, part, columns, wide, wide, zeros)
            hidden += tl.load(constant + part)[None, :]
            hidden = tl.sigmoid(hidden) if sigmoid else tl.maximum(hidden, 0.0)
            tl.store(first + own[:, None] * wide + part[None, :], hidden)
        tl.debug_barrier()  # what other threads of the program wrote is read from here on
        high, low = _in_two(tl.load(first + places), most)
        for left in range(0, wide, block):
            part = left + tl.arange(0, block)
            gate = _product(high, low, excite, part, columns, wide, wide, zeros)
            gate = tl.sigmoid(gate + tl.load(excite_bias + part)[None, :])
            known = within[:, None] & (part < dim)[None, :]
            gate *= tl.load(given + part[None, :], mask=known, other=0.0)
            tl.store(second + own[:, None] * wide + part[None, :], gate)
        tl.debug_barrier()
        high, low = _in_two(tl.load(second + places), most)
        for left in range(0, wide, block):
            part = left + tl.arange(0, block)
            after = _product(high, low, output, part, columns, wide, wide, zeros)
            after += tl.load(output_bias + part)[None, :]
            tl.store(first + own[:, None] * wide + part[None, :], after)
        tl.debug_barrier()
        z = _unit(tl.load(first + places), least)
        high, low = _in_two(z, most)
        logits = tl.zeros((tile, some), tl.float32) + tl.load(bias + numbers)[None, :]
        logits = _product(high, low, prototypes, numbers, columns, wide, some, logits)
        likely = tl.zeros((tile, some), tl.float32)
        for attribute in range(attributes):
            begin, end = tl.load(starts + attribute), tl.load(starts + attribute + 1)
            named = ((numbers >= begin) & (numbers < end))[None, :]
            kept = tl.where(named, logits, -float("inf"))
            if tl.load(multis + attribute) != 0:
                chances = tl.sigmoid(kept)
            else:
                chances = tl.exp(kept - tl.max(kept, 1)[:, None])
            likely += chances * (share / tl.sum(chances, 1))[:, None]
        alike = tl.load(likeness_of_axes + numbers[None, :] * some + numbers[:, None])
        length = tl.sum(tl.dot(likely, alike, input_precision="tf32x3") * likely, 1)
        doubt = doubt_weight * tl.sqrt(tl.maximum(1 - length, 0.0))
        for left in range(0, half, block):
            part = left + tl.arange(0, block)
            angles = _product(high, low, frequencies, part, columns, wide, turns, zeros)
            at = second + own[:, None] * wide + part[None, :]
            tl.store(at, tl.cos(angles), mask=(part < half)[None, :])
            tl.store(at + half, tl.sin(angles), mask=(part < half)[None, :])
        tl.debug_barrier()
        features = tl.load(second + places, mask=(columns < 2 * half)[None, :], other=0.0)
        embedded = features * doubt[:, None] + likeness * z
        high, low = _in_two(embedded, most)
        along = _product(high, low, removal, numbers, columns, wide, some, 0.0 * likely)
        high, low = _in_two(likely - along, most)
        embedded = _product(high, low, axes, columns, numbers, some, wide, embedded)
        tl.store(out + rows[:, None] * dim + columns[None, :], _unit(embedded, least), mask=inside)
        tl.debug_barrier()  # nothing of the next tile is written before all of this one is read


def fits(head: FoldedHead) -> bool:
    """Whether the kernel computes this head: with channel attention, a readout, and no more
    channels and values than a multiprocessor holds at once."""
    if head.channel is None or head.readout is None:
        return False
    dim, values = head.readout.prototypes.shape
    return _padded(dim) <= _WIDEST and values <= _VALUES


class TailWeights:
    """What no condition changes of the second half, as the kernel reads it, on a GPU.

    Args:
        head: of the model, under any condition, of which `fits` is true.
        device: where to.
    """

    def __init__(self, head: FoldedHead, device: str) -> None:
        assert head.channel is not None
        assert head.readout is not None
        channel, turns = head.channel, head.readout.frequencies
        self.dim, self.half = turns.shape
        self.wide, self.device = _padded(self.dim), torch.device(device)
        square, row = (self.wide, self.wide), (self.wide,)
        self.turns = triton.cdiv(self.half, _BLOCK) * _BLOCK
        (
            self.squeeze,
            self.excite,
            self.output,
            self.frequencies,
            self.excite_bias,
            self.output_bias,
        ) = packed(
            [
                Part(channel.squeeze.T, square, halves=True),
                Part(channel.excite.T, square, halves=True),
                Part(channel.output.T, square, halves=True),
                Part(turns.T, (self.turns, self.wide), halves=True),
                Part(channel.excite_bias, row),
                Part(channel.output_bias, row),
            ],
            self.device,
        )


class Tail:
    """The second half of a head that was folded in main memory; moves to the GPU in one piece.

    Args:
        head: of which `fits` is true.
        weights: of its model.
    """

    def __init__(self, head: FoldedHead, weights: TailWeights) -> None:
        assert head.channel is not None
        assert head.readout is not None
        readout = head.readout
        self._weights, self._share, self._sigmoid = weights, readout.share, head.channel.sigmoid
        some, wide = _VALUES, weights.wide
        self._attributes = len(readout.parts)
        ends = torch.tensor([0, *(part.stop for part, _ in readout.parts)])
        multis = torch.tensor([int(multi) for _, multi in readout.parts])
        parts = [  # in the order of the kernel
            Part(head.channel.constant, (wide,)),
            Part(readout.prototypes.T, (some, wide), halves=True),
            Part(readout.bias, (some,)),
            Part(readout.likeness_of_axes, (some, some)),
            Part(readout.removal.T, (some, wide), halves=True),
            Part(readout.axes.T, (wide, some), halves=True),
            Part(ends, (_padded(len(ends)),), torch.int32),
            Part(multis, (_padded(len(multis)),), torch.int32),
        ]
        self._parts = packed(parts, weights.device)

    def __call__(self, attended: Tensor, out: Tensor) -> Tensor:
        """V_s [M, d] float32 to embeddings of length 1, in `out` [M, d], which is returned."""
        weights, images = self._weights, len(attended)
        if not images:
            return out
        tile, programs = _tile(weights.device), _programs(weights.device)
        programs = min(programs, triton.cdiv(images, tile))
        area = programs * tile * weights.wide
        with torch.cuda.device_of(attended):  # type: ignore[no-untyped-call]  # as triton needs it
            _tail[(programs,)](
                attended,
                out,
                torch.empty(2 * area, device=weights.device),
                images,
                weights.squeeze,
                weights.excite,
                weights.excite_bias,
                weights.output,
                weights.output_bias,
                weights.frequencies,
                *self._parts,
                self._attributes,
                self._share,
                DOUBT / weights.half**0.5,
                LIKENESS,
                dim=weights.dim,
                half=weights.half,
                turns=weights.turns,
                sigmoid=self._sigmoid,
                tile=tile,
                wide=weights.wide,
                block=min(_BLOCK, weights.wide),
                some=_VALUES,
                least=SMALLEST,
                most=LARGEST,
                num_warps=_WARPS,
                num_stages=_STAGES,
            )
        return out


def _padded(count: int) -> int:
    return max(16, int(triton.next_power_of_2(count)))


@cache
def _programs(device: torch.device) -> int:
    if device.type != "cuda":
        return _INTERPRETED
    return _PROGRAMS * int(torch.cuda.get_device_properties(device).multi_processor_count)


@cache
def _tile(device: torch.device) -> int:
    if device.type != "cuda":
        return _TILES[0][1]
    number = torch.cuda.current_device() if device.index is None else device.index
    room = triton.runtime.driver.active.utils.get_device_properties(number)["max_shared_mem"]
    return next(images for least, images in _TILES if room >= least)
