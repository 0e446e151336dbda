"""The attention over stored int8 maps as a Triton kernel: logits, softmax and pooling of a row.

One program an image: its P and its I are read once, as int8, and met there by all conditions at
once. Integers up to 127 are exact in bfloat16, and the other operand is the sum of two bfloat16,
which keeps sixteen bits: the tensor cores do the sums and the memory is the limit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

CONDITIONS = 16
"""Conditions of a launch; fewer cost the same (the narrowest operand of the tensor cores)."""

_CHANNELS = 256  # of a block
_WARPS = 4
_STAGES = 3
_CHANNELS_OF_ONE = 256  # the same under one condition
_WARPS_OF_ONE = 1


@triton.jit
def _block(at, row, cells, channels, count, dim, kind):  # type: ignore[no-untyped-def]
    """Some channels of a row [L, d] int8 at `at`, as `kind` [cells, channels]; 0 outside."""
    places = at + row * count * dim + cells[:, None] * dim + channels[None, :]
    inside = (cells < count)[:, None] & (channels < dim)[None, :]
    return tl.load(places, mask=inside, other=0).to(kind)


@triton.jit
def _in_two(values, kind):  # type: ignore[no-untyped-def]
    """float32 as the sum of two numbers of a shorter kind."""
    high = values.to(kind)
    return high, (values - high.to(tl.float32)).to(kind)


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _attend_one(  # type: ignore[no-untyped-def]
    maps,
    map_scales,
    keys,
    key_scales,
    rows,
    query,
    out,
    count,
    dim: tl.constexpr,
    uniform: tl.constexpr,
    squash: tl.constexpr,
    largest: tl.constexpr,
    block_cells: tl.constexpr,
    block_channels: tl.constexpr,
):
    """`_attend` under one condition: too little to compute for the tensor cores to pay."""
    image = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + image).to(tl.int64)
    cells = tl.arange(0, block_cells)
    inside = cells < count
    logits = tl.zeros((block_cells,), tl.float32)
    if not uniform:
        for start in tl.static_range(0, dim, block_channels):
            channels = start + tl.arange(0, block_channels)
            u = tl.load(query + channels, mask=channels < dim, other=0.0)
            key = _block(keys, row, cells, channels, count, dim, tl.float32)
            logits += tl.sum(key * u[None, :], 1)
        logits *= tl.load(key_scales + row * count + cells, mask=inside, other=0.0)
        if squash:
            logits = 2 * tl.sigmoid(2 * logits) - 1  # tanh
    logits = tl.where(inside, logits, -float("inf"))
    powers = tl.exp(logits - tl.max(logits, 0))
    alpha = powers / tl.sum(powers, 0)
    weights = alpha * tl.load(map_scales + row * count + cells, mask=inside, other=0.0)
    for start in tl.static_range(0, dim, block_channels):
        channels = start + tl.arange(0, block_channels)
        block = _block(maps, row, cells, channels, count, dim, tl.float32)
        weighed = block * weights[:, None]
        if largest:
            sums = tl.max(tl.where(inside[:, None], weighed * count, -float("inf")), 0)
        else:
            sums = tl.sum(weighed, 0)
        tl.store(out + image * dim + channels, sums, mask=channels < dim)


@triton.jit(do_not_specialize=["images", "conditions", "count"])  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    maps,
    map_scales,
    keys,
    key_scales,
    rows,
    queries,
    out,
    images,
    conditions,
    count,
    dim: tl.constexpr,
    uniform: tl.constexpr,
    squash: tl.constexpr,
    largest: tl.constexpr,
    block_cells: tl.constexpr,
    block_channels: tl.constexpr,
    block_conditions: tl.constexpr,
    kind: tl.constexpr,
):
    image = tl.program_id(0)
    row = tl.load(rows + image).to(tl.int64)
    cells = tl.arange(0, block_cells)
    numbers = tl.arange(0, block_conditions)
    inside = cells < count
    logits = tl.zeros((block_cells, block_conditions), tl.float32)
    if not uniform:
        for start in range(0, dim, block_channels):
            channels = start + tl.arange(0, block_channels)
            query = tl.load(
                queries + numbers[None, :] * dim + channels[:, None],
                mask=(numbers < conditions)[None, :] & (channels < dim)[:, None],
                other=0.0,
            )
            key = _block(keys, row, cells, channels, count, dim, kind)
            high, low = _in_two(query, kind)
            logits = tl.dot(key, high, logits)
            logits = tl.dot(key, low, logits)
        scale = tl.load(key_scales + row * count + cells, mask=inside, other=0.0)
        logits *= scale[:, None]
        if squash:
            logits = 2 * tl.sigmoid(2 * logits) - 1  # tanh
    logits = tl.where(inside[:, None], logits, -float("inf"))
    powers = tl.exp(logits - tl.max(logits, 0)[None, :])
    alpha = powers / tl.sum(powers, 0)[None, :]
    scale = tl.load(map_scales + row * count + cells, mask=inside, other=0.0)
    weights = alpha * scale[:, None]
    high, low = _in_two(tl.trans(weights), kind)
    for start in range(0, dim, block_channels):
        channels = start + tl.arange(0, block_channels)
        block = _block(maps, row, cells, channels, count, dim, kind)
        # V_s of condition c lies at out[c, image].
        places = out + (numbers.to(tl.int64) * images + image)[:, None] * dim + channels[None, :]
        within = (numbers < conditions)[:, None] & (channels < dim)[None, :]
        if largest:
            sums = tl.zeros((block_conditions, block_channels), tl.float32)
            for number in range(conditions):
                own = tl.sum(tl.where(numbers[None, :] == number, weights, 0.0), 1) * count
                weighed = block.to(tl.float32) * own[:, None]
                best = tl.max(tl.where(inside[:, None], weighed, -float("inf")), 0)
                sums = tl.where((numbers == number)[:, None], best[None, :], sums)
        else:
            sums = tl.dot(low, block, tl.dot(high, block))
        tl.store(places, sums, mask=within)


def attend(
    maps: Tensor,
    map_scales: Tensor,
    keys: Tensor,
    key_scales: Tensor,
    rows: Tensor,
    queries: Tensor | None,
    squash: bool,
    largest: bool,
    conditions: int,
) -> Tensor:
    """V_s of some rows under some conditions.

    Args:
        maps: I, [N, L, d] int8.
        map_scales: its scales [N, L] float32.
        keys: P, likewise; not read without queries.
        key_scales: its scales.
        rows: which of the N, [M] int64.
        queries: u [C, d] float32; None if all cells weigh the same.
        squash: whether logits go through tanh.
        largest: whether V_s is the maximum over the weighted cells times L, else their sum.
        conditions: C, at most `CONDITIONS`.

    Returns:
        [C, M, d] float32.
    """
    _, cells, dim = maps.shape
    out = torch.empty(conditions, len(rows), dim, device=maps.device)
    if not len(rows):
        return out
    grid: Any = (len(rows),)
    tensors = (maps, map_scales, keys, key_scales, rows, out if queries is None else queries, out)
    options: Any = {
        "dim": dim,
        "uniform": queries is None,
        "squash": squash,
        "largest": largest,
        "block_cells": max(16, triton.next_power_of_2(cells)),
    }
    wide = max(16, triton.next_power_of_2(dim))
    with torch.cuda.device_of(maps):  # type: ignore[no-untyped-call]  # as triton needs it
        if conditions == 1:
            _attend_one[grid](
                *tensors,
                cells,
                **options,
                block_channels=min(_CHANNELS_OF_ONE, wide),
                num_warps=_WARPS_OF_ONE,
            )
        else:
            _attend[grid](
                *tensors,
                len(rows),
                conditions,
                cells,
                **options,
                block_channels=min(_CHANNELS, wide),
                block_conditions=CONDITIONS,
                # The interpreter cannot multiply bfloat16.
                kind=tl.bfloat16 if maps.is_cuda else tl.float32,
                num_warps=_WARPS,
                num_stages=_STAGES,
            )
    return out
