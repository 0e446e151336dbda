"""What a view is searched with, by its size, the recall, the memory and the user's word."""

from __future__ import annotations

import pytest

from indexer.index_choice import FLAT, IndexChoice, check_factory, choose_index
from training.errors import UsageError

GB = 10**9


@pytest.mark.parametrize(
    ("rows", "dim", "factory"),
    [
        (0, 512, "Flat"),
        (20_000, 512, "Flat"),
        (20_001, 512, "IVF512,SQ8"),
        (253_983, 512, "IVF2048,SQ8"),
        (1_000_000, 512, "IVF4096,SQ8"),
        (10_000_000, 512, "IVF4096,SQ8"),
        (80_000, 128, "Flat"),
        (253_983, 131, "IVF2048,SQ8"),
    ],
)
def test_the_size_decides(rows: int, dim: int, factory: str) -> None:
    _check(choose_index(rows, dim), rows, dim, factory)


@pytest.mark.parametrize(
    ("rows", "dim", "factory"),
    [
        (25_001, 512, "PQ128x4fs"),
        (1_000_000, 512, "PQ128x4fs"),
        (2_000_000, 512, "IVF1024,PQ128x4fs"),
        (10_000_000, 512, "IVF4096,PQ128x4fs"),
        (253_983, 128, "PQ32x4fs"),
        (253_983, 129, "PQ43x4fs"),  # no divisor of 4: codes of 3 numbers
        (253_983, 131, "PQ131x4fs"),  # a prime
    ],
)
def test_codes_are_for_what_does_not_fit_as_bytes(rows: int, dim: int, factory: str) -> None:
    _check(choose_index(rows, dim, memory=rows * dim - 1), rows, dim, factory)
    assert choose_index(rows, dim, memory=rows * dim).factory.endswith(",SQ8")


def _check(choice: IndexChoice, rows: int, dim: int, factory: str) -> None:
    assert (choice.factory, choice.gpu, choice.flat) == (factory, False, factory == FLAT)
    assert (choice.nprobe > 0) == ("IVF" in factory)
    assert f"{rows:,} x {dim}" in choice.why
    if not choice.flat:
        check_factory(choice.factory, dim)  # faiss takes what is chosen


def test_exact_means_flat_whatever_the_size() -> None:
    assert choose_index(5_000_000, 512, recall=1).flat


def test_memory_makes_codes_coarser_and_flat_dearer() -> None:
    assert choose_index(20_000, 512, memory=GB).flat
    assert choose_index(20_000, 512, memory=10**7).factory == "PQ128x4fs"
    rows = 10_000_000  # codes of PQ128: 640 MB
    assert choose_index(rows, 512, memory=640 * 10**6).factory.endswith(",PQ128x4fs")
    assert choose_index(rows, 512, memory=639 * 10**6).factory.endswith(",PQ64x4fs")
    assert choose_index(rows, 512, memory=1).factory.endswith(",PQ16x4fs")


def test_gpus_hold_fp16_or_bytes_or_nothing() -> None:
    rows = 2_000_000  # fp16: 2.05 GB
    fits = choose_index(rows, 512, gpu_memory=3 * GB)
    assert (fits.factory, fits.half, fits.gpu) == (FLAT, True, True)
    tight = choose_index(rows, 512, gpu_memory=2 * GB)
    assert (tight.factory, tight.half, tight.gpu) == ("IVF1024,SQ8", False, True)
    assert not choose_index(rows, 512, gpu_memory=GB).gpu
    assert not choose_index(rows, 512, recall=1, gpu_memory=2 * GB).gpu


def test_a_factory_string_overrides() -> None:
    chosen = choose_index(100, 32, factory="IVF4,Flat")
    assert (chosen.factory, chosen.nprobe, chosen.why) == ("IVF4,Flat", 1, "as asked for")
    assert choose_index(10**9, 32, factory="Flat").flat
    assert choose_index(10**9, 32, factory="HNSW16").nprobe == 0


@pytest.mark.parametrize(
    "factory",
    [
        "", "foo", "PQ7x4fs", "PQ0x4fs", "IVF0,Flat", "IVF-4,Flat", "IVF99999999999999999999,Flat",
        "IVF999999999,Flat", "PQ8x4fs,RFlat", "IDMap,Flat", "Refine(Flat),Flat", "LSH",
        "PQ8x4fs\n", "Flat;rm", "日本", "\udcff", "IVF" + "9" * 5000,
    ],
)  # fmt: skip
def test_wrong_factory_strings_are_named(factory: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_index(100, 32, factory=factory)
    assert repr(factory) in str(caught.value)


@pytest.mark.parametrize("recall", [0, -1, 1.01, float("nan")])
def test_wrong_recalls_are_named(recall: float) -> None:
    with pytest.raises(UsageError, match=str(recall)):
        choose_index(100, 32, recall)
