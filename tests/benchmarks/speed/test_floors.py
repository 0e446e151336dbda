"""The floors do the work that they stand for: every byte once, the tail's very products."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.speed import floors
from benchmarks.speed.peak_memory import PeakMemory
from benchmarks.speed.timing import Paired, paired
from indexer.store import open_store
from training.checkpoint import load_checkpoint
from training.models.config import VARIANTS, ModelConfig, variant
from training.models.registry import build_model


def test_a_pass_reads_every_byte_of_maps_keys_and_scales(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(source)
    maps, keys = store.quantised(slice(None))
    parts = [maps.values, maps.scales, keys.values, keys.scales]
    assert floors.maps_bytes(store) == sum(part.nbytes for part in parts)
    read: list[np.ndarray] = []
    monkeypatch.setattr(floors, "read_all", lambda arrays: read.extend(arrays) or 0)
    floors.one_pass(store)
    for part in parts:  # each image's bytes are in one of the arrays, of one shard
        rows = np.concatenate([r for r in read if r.shape[1:] == part.shape[1:]])
        assert {row.tobytes() for row in part} <= {row.tobytes() for row in rows}
    assert sum(array.nbytes for array in read) == floors.maps_bytes(store)


@pytest.mark.parametrize("count", [2, 20, 33, 1000])
def test_copies_move_half_of_the_bytes(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floors, "_COPIED", 10)
    moved: list[int] = []
    copy = torch.Tensor.copy_
    run = floors.copies(count, "cpu")
    monkeypatch.setattr(torch.Tensor, "copy_", lambda a, b: moved.append(len(b)) or copy(a, b))
    run()
    assert sum(moved) == count // 2  # each is read once and written once
    assert max(moved) <= 10


@pytest.mark.parametrize("block", [64, 1 << 25])
@pytest.mark.parametrize("count", [0, 1, 8, 63, 64, 1000])
def test_reading_adds_up_whole_words(
    count: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floors, "_BLOCK", block)
    values = np.random.default_rng(count).integers(-128, 128, count).astype(np.int8)
    right = int.from_bytes(b"", "little", signed=True)
    for start in range(0, count // 8 * 8, 8):
        right += int.from_bytes(values[start : start + 8].tobytes(), "little", signed=True)
    assert (floors.read_all([values]) - right) % 2**64 == 0


@pytest.mark.parametrize("name", ["m2fashion", "without-aca", "without-readout", "triplet"])
def test_the_tails_shapes_are_those_that_the_model_multiplies(
    source: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted where torch multiplies: all that maps vectors of d to d or to the frequencies."""
    assert name in VARIANTS
    schema = open_store(source).schema
    model = build_model(schema, variant(name, ModelConfig("small", "layer2", 3, 16)), 0).eval()
    seen = []
    linear = torch.nn.functional.linear

    def counted(values, weight, bias=None):
        seen.append((weight.shape[1] - (16 if weight.shape[1] == 32 else 0), weight.shape[0]))
        return linear(values, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    if name != "triplet":
        model.attend(torch.randn(2, 16, 3, 3), torch.zeros(1, schema.size))
    frequencies = [] if model.values is None else [(16, 8)]
    assert floors.tail_shapes(model) == [s for s in seen if s == (16, 16)] + frequencies
    assert floors.tail_flop(model) == sum(2 * a * b for a, b in floors.tail_shapes(model))
    spoken = [] if model.values is None else [(16, 5), (16, 5), (5, 16)]
    assert floors.tail_shapes(model, 5) == floors.tail_shapes(model) + spoken


def test_the_tails_products_cover_all_images(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_checkpoint(open_store(source).model_folder).model
    monkeypatch.setattr(floors, "CHUNK", 100)
    rows: list[int] = []
    multiply = torch.mm
    run = floors.tail_gemms(model, 250)

    def counted(left, right, out):
        rows.append(len(left))
        return multiply(left, right, out=out)

    monkeypatch.setattr(torch, "mm", counted)
    run()
    assert rows == [100] * 4 + [100] * 4 + [50] * 4


def test_pairs_are_timed_in_turns_and_compared_pair_by_pair() -> None:
    order: list[str] = []
    times = paired(lambda n: order.append(f"a{n}"), lambda n: order.append(f"b{n}"), 3)
    assert order == ["a0", "b0", "a0", "b0", "a1", "b1", "a2", "b2"]
    assert len(times.seconds) == len(times.floors) == 3
    order.clear()
    times = paired(lambda n: order.append(f"a{n}"), lambda n: order.append(f"b{n}"), 2, True)
    assert order == ["a0", "b0", "a0", "a0", "b0", "b0", "a1", "a1", "b1", "b1"]
    assert len(times.seconds) == len(times.floors) == 2
    # A slow moment counts for both: the median of the ratios, not the ratio of the medians.
    slow = Paired((2.0, 20.0, 3.0), (1.0, 10.0, 1.5))
    assert (slow.value, slow.floor, slow.ratio) == (3.0, 1.5, 2.0)
    assert Paired((1.0, 4.0, 9.0), (1.0, 1.0, 3.0)).ratio == 3.0


def test_peak_memory_sees_what_was_freed_again() -> None:
    with PeakMemory() as nothing:
        pass
    with PeakMemory() as memory:
        # Not from the allocator, which may give out memory that an earlier test left resident.
        block = mmap.mmap(-1, 40_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        watched = memory._look
        watched()
        block.close()
    assert nothing.anonymous < 20_000_000
    assert 40_000_000 <= memory.anonymous < 80_000_000
    assert memory.resident >= 40_000_000
