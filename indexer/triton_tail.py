"""The head's second half as one Triton kernel: V_s to Z, channel attention and readout.

As separate operations it is some forty small kernels a chunk, twenty times as slow as reading the
maps. Here a program takes a tile of images through all of it. A product's result goes through a
scratch block of the program's own, which never leaves the GPU's cache, and is read back as the next
product's operand. Operands are fp16, as precise as TF32 and half as large, sums are float32: the
cosine of Z stays above 0.9999. Products of fp16 beyond its range stay at its largest number.
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

_TILE = 64  # images of a program at a time
_BLOCK = 64  # columns of a product at a time
_WARPS = 8
_STAGES = 1
_PROGRAMS = 1  # a multiprocessor
_INTERPRETED = 4  # programs without a GPU
_WIDEST = 256  # channels; with 512 a GPU refused (illegal memory access, cause unknown)
_FEWEST = 64  # values, padded: one kernel for all conditions of up to so many
_PROTOTYPES = 16_384  # numbers of them that fit beside a block of a matrix
_KINDS = {torch.float16: tl.float16, torch.float32: tl.float32}


@triton.jit
def _operand(values, most, kind):  # type: ignore[no-untyped-def]
    """float32 as `kind`, without infinities in fp16."""
    return tl.minimum(tl.maximum(values, -most), most).to(kind)


@triton.jit
def _matrix(at, outputs, inputs, stride):  # type: ignore[no-untyped-def]
    """Some rows of a matrix [outputs, inputs] as an operand [inputs, outputs]."""
    return tl.load(at + outputs[None, :] * stride + inputs[:, None])


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
    scratch_z,
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
    sigmoid: tl.constexpr,
    tile: tl.constexpr,
    wide: tl.constexpr,
    block: tl.constexpr,
    some: tl.constexpr,
    least: tl.constexpr,
    most: tl.constexpr,
    kind: tl.constexpr,
):
    program = tl.program_id(0)
    columns = tl.arange(0, wide)
    numbers = tl.arange(0, some)
    own = tl.arange(0, tile)
    first = scratch + program * 2 * tile * wide
    second = first + tile * wide
    z_at = scratch_z + program * tile * wide
    places = own[:, None] * wide + columns[None, :]
    for start in range(program * tile, images, tl.num_programs(0) * tile):
        rows = (start + own).to(tl.int64)
        within = rows < images
        inside = within[:, None] & (columns < dim)[None, :]
        given = attended + rows[:, None] * dim
        operand = _operand(tl.load(given + columns[None, :], mask=inside, other=0.0), most, kind)
        for left in range(0, wide, block):
            part = left + tl.arange(0, block)
            hidden = tl.dot(operand, _matrix(squeeze, part, columns, wide))
            hidden += tl.load(constant + part)[None, :]
            hidden = tl.sigmoid(hidden) if sigmoid else tl.maximum(hidden, 0.0)
            tl.store(first + own[:, None] * wide + part[None, :], _operand(hidden, most, kind))
        tl.debug_barrier()  # what other threads of the program wrote is read from here on
        operand = tl.load(first + places)
        for left in range(0, wide, block):
            part = left + tl.arange(0, block)
            gate = tl.dot(operand, _matrix(excite, part, columns, wide))
            gate = tl.sigmoid(gate + tl.load(excite_bias + part)[None, :])
            known = within[:, None] & (part < dim)[None, :]
            gate *= tl.load(given + part[None, :], mask=known, other=0.0)
            tl.store(second + own[:, None] * wide + part[None, :], _operand(gate, most, kind))
        tl.debug_barrier()
        operand = tl.load(second + places)
        for left in range(0, wide, block):
            part = left + tl.arange(0, block)
            after = tl.dot(operand, _matrix(output, part, columns, wide))
            after += tl.load(output_bias + part)[None, :]
            tl.store(z_at + own[:, None] * wide + part[None, :], after)
        tl.debug_barrier()
        z = _unit(tl.load(z_at + places), least)
        operand = z.to(kind)
        logits = tl.dot(operand, _matrix(prototypes, numbers, columns, wide))
        logits += tl.load(bias + numbers)[None, :]
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
        alike = _matrix(likeness_of_axes, numbers, numbers, some)
        length = tl.sum(tl.dot(likely, alike, input_precision="tf32x3") * likely, 1)
        doubt = doubt_weight * tl.sqrt(tl.maximum(1 - length, 0.0))
        for left in range(0, half, block):
            part = left + tl.arange(0, block)
            angles = tl.dot(operand, _matrix(frequencies, part, columns, wide))
            at = second + own[:, None] * wide + part[None, :]
            tl.store(at, tl.cos(angles).to(kind), mask=(part < half)[None, :])
            tl.store(at + half, tl.sin(angles).to(kind), mask=(part < half)[None, :])
        tl.debug_barrier()
        features = tl.load(second + places, mask=(columns < 2 * half)[None, :], other=0.0)
        embedded = features.to(tl.float32) * doubt[:, None] + likeness * z
        along = tl.dot(embedded.to(kind), _matrix(removal, numbers, columns, wide))
        rest = (likely - along).to(kind)
        embedded = tl.dot(rest, _matrix(axes, columns, numbers, some), embedded)
        tl.store(out + rows[:, None] * dim + columns[None, :], _unit(embedded, least), mask=inside)
        tl.debug_barrier()  # nothing of the next tile is written before all of this one is read


def fits(head: FoldedHead) -> bool:
    """Whether the kernel computes this head: with channel attention, a readout, and no more
    channels and values than a multiprocessor holds at once."""
    if head.channel is None or head.readout is None:
        return False
    dim, values = head.readout.prototypes.shape
    return _padded(dim) <= _WIDEST and _padded(dim) * _padded(values) <= _PROTOTYPES


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
        # The interpreter shows what is computed, and so computes in float32.
        self.kind = torch.float16 if self.device.type == "cuda" else torch.float32
        square, row = (self.wide, self.wide), (self.wide,)
        rows = triton.cdiv(self.half, _BLOCK) * _BLOCK
        (
            self.squeeze,
            self.excite,
            self.output,
            self.frequencies,
            self.excite_bias,
            self.output_bias,
        ) = packed(
            [
                Part(channel.squeeze.T, square, self.kind),
                Part(channel.excite.T, square, self.kind),
                Part(channel.output.T, square, self.kind),
                Part(turns.T, (rows, self.wide), self.kind),
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
        values, wide = len(readout.bias), weights.wide
        self._some = some = max(_FEWEST, _padded(values))
        self._attributes = len(readout.parts)
        ends = torch.tensor([0, *(part.stop for part, _ in readout.parts)])
        multis = torch.tensor([int(multi) for _, multi in readout.parts])
        parts = [  # in the order of the kernel
            Part(head.channel.constant, (wide,)),
            Part(readout.prototypes.T, (some, wide), weights.kind),
            Part(readout.bias, (some,)),
            Part(readout.likeness_of_axes, (some, some)),
            Part(readout.removal.T, (some, wide), weights.kind),
            Part(readout.axes.T, (wide, some), weights.kind),
            Part(ends, (_padded(len(ends)),), torch.int32),
            Part(multis, (_padded(len(multis)),), torch.int32),
        ]
        self._parts = packed(parts, weights.device)

    def __call__(self, attended: Tensor, out: Tensor) -> Tensor:
        """V_s [M, d] float32 to embeddings of length 1, in `out` [M, d], which is returned."""
        weights, images = self._weights, len(attended)
        if not images:
            return out
        programs = min(_programs(weights.device), triton.cdiv(images, _TILE))
        area = programs * _TILE * weights.wide
        with torch.cuda.device_of(attended):  # type: ignore[no-untyped-call]  # as triton needs it
            _tail[(programs,)](
                attended,
                out,
                torch.empty(2 * area, dtype=weights.kind, device=weights.device),
                torch.empty(area, dtype=torch.float32, device=weights.device),
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
                sigmoid=self._sigmoid,
                tile=_TILE,
                wide=weights.wide,
                block=min(_BLOCK, weights.wide),
                some=self._some,
                least=SMALLEST,
                most=LARGEST,
                kind=_KINDS[weights.kind],
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
