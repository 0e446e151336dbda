"""The attention over stored int8 maps as a numba kernel: logits, softmax and pooling of a row.

Compiled when the module is imported (about two seconds), and read from numba's cache after that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

_SIGNATURE = types.void(
    *[types.Array(types.uint64, 1, "C")] * 4,  # addresses of maps, scales, keys, scales
    types.int64,  # cells
    types.Array(types.float32, 2, "C"),  # queries
    types.boolean,  # uniform
    types.boolean,  # squash
    types.boolean,  # largest
    types.Array(types.float32, 3, "C"),  # out
)
# Sums may be reordered (that is what vectorises them) and fused, and stored maps hold no NaN.
_FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}


def _pointer_to(kind: types.Type) -> Callable[[Any, Any], Any]:
    def build(typing_context: Any, address: Any) -> Any:
        result: Any = types.CPointer(kind)  # type: ignore[no-untyped-call]

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(result))

        return result(types.uint64), generate

    return build


_int8_at: Any = intrinsic(_pointer_to(types.int8))
_float32_at: Any = intrinsic(_pointer_to(types.float32))


def _larger_of(typing_context: Any, one: Any, other: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        shape = ir.FunctionType(kind, [kind, kind])
        function = builder.module.declare_intrinsic("llvm.maxnum", [kind], shape)
        return builder.call(function, arguments)

    return types.float32(types.float32, types.float32), generate


def _prefetch_at(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], shape)
        where = builder.inttoptr(arguments[0], pointer)
        how = [number(0), number(3), number(1)]  # to be read, into all caches, as data
        builder.call(function, [where, *how])
        return context.get_dummy_value()

    return types.void(types.uint64), generate


_prefetch: Any = intrinsic(_prefetch_at)
_LINE = 64  # bytes

_larger: Any = intrinsic(_larger_of)  # vectorises; a comparison of floats does not


def _attend(  # type: ignore[no-untyped-def]
    maps_at,
    map_scales_at,
    keys_at,
    key_scales_at,
    cells,
    queries,
    uniform,
    squash,
    largest,
    out,
):
    """V_s of some rows under some conditions; a row is read from memory once for all of them.

    Args:
        maps_at: addresses of I, [L, d] int8 each, [M] uint64.
        map_scales_at: addresses of its scales, [L] float32 each, [M] uint64.
        keys_at: addresses of P; not read if `uniform`.
        key_scales_at: addresses of its scales.
        cells: L, at least 1.
        queries: u [C, d] float32.
        uniform: whether all cells weigh the same; `queries` does not count then.
        squash: whether logits go through tanh.
        largest: whether V_s is the maximum over the weighted cells times L, else their sum.
        out: V_s [C, M, d] float32, written.
    """
    count, dim = queries.shape
    weights = np.empty((count, cells), np.float32)
    whole = cells - cells % 4  # four cells at a time: a quarter of the loads of query and sums
    for row in range(len(maps_at)):
        # A row is too short for the processor to foresee what is read after it.
        after = min(row + 1, len(maps_at) - 1)
        later = maps_at[after] if uniform else keys_at[after]
        maps = carray(_int8_at(maps_at[row]), (cells, dim))
        map_scales = carray(_float32_at(map_scales_at[row]), cells)
        if not uniform:
            keys = carray(_int8_at(keys_at[row]), (cells, dim))
            key_scales = carray(_float32_at(key_scales_at[row]), cells)
            for cell in range(0, whole, 4):
                for line in range(cell * dim, (cell + 4) * dim, _LINE):
                    _prefetch(maps_at[row] + np.uint64(line))
                one, two, three, four = keys[cell], keys[cell + 1], keys[cell + 2], keys[cell + 3]
                for c in range(count):
                    query = queries[c]
                    w1 = w2 = w3 = w4 = np.float32(0)
                    for i in range(dim):
                        w1 += np.float32(one[i]) * query[i]
                        w2 += np.float32(two[i]) * query[i]
                        w3 += np.float32(three[i]) * query[i]
                        w4 += np.float32(four[i]) * query[i]
                    weights[c, cell] = w1 * key_scales[cell]
                    weights[c, cell + 1] = w2 * key_scales[cell + 1]
                    weights[c, cell + 2] = w3 * key_scales[cell + 2]
                    weights[c, cell + 3] = w4 * key_scales[cell + 3]
            for cell in range(whole, cells):
                one = keys[cell]
                for c in range(count):
                    query = queries[c]
                    w1 = np.float32(0)
                    for i in range(dim):
                        w1 += np.float32(one[i]) * query[i]
                    weights[c, cell] = w1 * key_scales[cell]
        for c in range(count):
            weight = weights[c]
            if uniform:
                weight[:] = np.float32(1) / np.float32(cells)
            else:
                highest = np.float32(-np.inf)
                for cell in range(cells):
                    if squash:
                        weight[cell] = math.tanh(weight[cell])
                    highest = max(highest, weight[cell])
                total = np.float32(0)
                for cell in range(cells):
                    weight[cell] = math.exp(weight[cell] - highest)
                    total += weight[cell]
                for cell in range(cells):
                    weight[cell] /= total  # alpha
            sums = out[c, row]
            if largest:
                sums[:] = np.float32(-np.inf)
                for cell in range(cells):
                    factor = weight[cell] * map_scales[cell] * np.float32(cells)
                    one = maps[cell]
                    for i in range(dim):
                        sums[i] = _larger(sums[i], factor * np.float32(one[i]))
            else:
                sums[:] = np.float32(0)
                for cell in range(0, whole, 4):
                    if c == 0:
                        for line in range(cell * dim, (cell + 4) * dim, _LINE):
                            _prefetch(later + np.uint64(line))
                    one, two, three, four = (
                        maps[cell],
                        maps[cell + 1],
                        maps[cell + 2],
                        maps[cell + 3],
                    )
                    w1 = weight[cell] * map_scales[cell]
                    w2 = weight[cell + 1] * map_scales[cell + 1]
                    w3 = weight[cell + 2] * map_scales[cell + 2]
                    w4 = weight[cell + 3] * map_scales[cell + 3]
                    for i in range(dim):
                        sums[i] += (
                            w1 * np.float32(one[i])
                            + w2 * np.float32(two[i])
                            + w3 * np.float32(three[i])
                            + w4 * np.float32(four[i])
                        )
                for cell in range(whole, cells):
                    factor = weight[cell] * map_scales[cell]
                    one = maps[cell]
                    for i in range(dim):
                        sums[i] += factor * np.float32(one[i])


def _compiled() -> Any:
    for cache in (True, False):
        try:
            return njit(_SIGNATURE, nogil=True, fastmath=_FAST, error_model="numpy", cache=cache)(
                _attend
            )
        except (RuntimeError, OSError):  # nowhere to write a cache: compile in each process
            if not cache:
                raise
    return None


attend = _compiled()
