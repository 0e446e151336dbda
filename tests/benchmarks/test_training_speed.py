"""`retrieve bench training-speed`: the triplets it counts, its ratios, and a tiny run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_catalogue import write_tiny_catalogue
from torch import Tensor

from benchmarks.compared_triplets import TripletCount, count_triplets
from benchmarks.speed_up import MAPS, ONCE, PHOTOGRAPHS, THREE_PASSES, Row, speed_up
from benchmarks.timed_training import Rate, Training
from retrieval.cli import _run
from training import step
from training.datasets import load_dataset
from training.decoding import Reading
from training.losses.pairs import Pairs
from training.losses.triplet import triplet_loss
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion
from training.preprocessing import Preprocessing
from training.recipe import Recipe
from training.sources import Photographs


def count_slowly(pairs: Pairs, positives: int, generator: torch.Generator) -> TripletCount:
    """Every (condition, anchor, positive, negative), one by one."""
    anchors = []
    for c, a in torch.cartesian_prod(*map(torch.arange, pairs.positive.shape[:2])).tolist():
        alike, unlike = pairs.positive[c, a], pairs.negative[c, a]
        if any(alike.tolist()) and any(unlike.tolist()):
            anchors.append((c, a))
    if not anchors:
        return TripletCount(0, 0)
    weights = torch.stack([pairs.positive[c, a].float() for c, a in anchors])
    picked = torch.multinomial(weights, positives, replacement=True, generator=generator)
    triplets = set()
    for (c, a), draws in zip(anchors, picked.tolist(), strict=True):
        for p in draws:
            assert pairs.positive[c, a, p]
            for n in range(pairs.negative.shape[2]):
                if pairs.negative[c, a, n]:
                    triplets.add((c, a, p, n))
    return TripletCount(len(anchors), len(triplets))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_triplets_are_counted_as_by_a_triple_loop(share: float) -> None:
    draws = torch.rand(4, 9, 9, generator=torch.Generator().manual_seed(3))
    pairs = Pairs(draws < share, draws > 1 - share)
    found = count_triplets(pairs, 4, torch.Generator().manual_seed(5))
    assert found == count_slowly(pairs, 4, torch.Generator().manual_seed(5))
    assert (found.compared > found.anchors > 0) == (share > 0)


def test_what_is_counted_is_what_the_loss_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(str(write_tiny_catalogue(tmp_path / "tiny", 40)))
    torch.manual_seed(0)
    config = ModelConfig("small", "layer2", grid=4, dim=16)
    model = M2Fashion(dataset.schema, config, len(dataset.category_names))
    source = Photographs(dataset, Reading(Preprocessing(size=32)))
    recipe = Recipe(epochs=9, batch_size=12, freeze_backbone=False, crop=0.9)
    given: list[TripletCount] = []

    def recorded(
        similarities: Tensor,
        pairs: Pairs,
        margin: float,
        positives: int,
        generator: torch.Generator,
    ) -> Tensor:
        copy = torch.Generator()
        copy.set_state(generator.get_state())
        given.append(count_slowly(pairs, positives, copy))
        return triplet_loss(similarities, pairs, margin, positives, generator)

    monkeypatch.setattr(step, "triplet_loss", recorded)
    training = Training(model, dataset, source, recipe, 0, "cpu")
    steps = [training.step() for _ in range(3)]
    assert [training.count(plan, before) for plan, before in steps] == given
    assert given[0].compared > given[0].anchors > 12  # several conditions an image


def test_speed_up_is_over_the_better_of_the_rivals() -> None:
    rows = [
        Row(MAPS, ONCE, 8, (Rate(10, 60, 900), Rate(10, 40, 600), Rate(10, 50, 800))),
        Row(MAPS, THREE_PASSES, 6, (Rate(15, 5, 5), Rate(12, 4, 4), Rate(9, 3, 3))),
        Row(MAPS, THREE_PASSES, 24, (Rate(24, 8, 8), Rate(30, 10, 10), Rate(36, 12, 12))),
        Row(PHOTOGRAPHS, THREE_PASSES, 6, (Rate(99, 33, 33),) * 3),
    ]
    found = speed_up(rows, MAPS)
    assert (found.anchors, found.compared) == (5, 80)  # medians: 50 and 800 over 10
    assert found.anchors_range == (4, 60 / 8)
    assert (found.needed_anchors, found.needed_compared) == (150, 2400)


def test_a_tiny_run_writes_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = write_tiny_catalogue(tmp_path / "tiny", 40)
    (catalogue / "images/003.png").write_bytes(b"broken")
    out = tmp_path / "out"
    given = ["--dataset", str(catalogue), "--backbone", "small", "--image-size", "32"]
    given += ["--batch-size", "12", "--images", "24", "--seconds", "0", "--rounds", "2"]
    given += ["--workers", "0", "--device", "cpu", "--results", str(out), "--json"]
    assert _run(["bench", "training-speed", *given], False) == 0
    data = json.loads((out / "training-speed-tiny-small.json").read_text())
    assert json.loads(capsys.readouterr().out) == data
    assert data["images"] == 24
    ways = [(ONCE, 12), (THREE_PASSES, 12), (THREE_PASSES, 36)]
    expected = [(setting, *way) for setting in (PHOTOGRAPHS, MAPS) for way in ways]
    assert [(r["setting"], r["way"], r["batch_images"]) for r in data["rows"]] == expected
    for row in data["rows"]:
        assert len(row["rounds"]) == 2
        rate = row["median"]
        if row["way"] == THREE_PASSES:
            assert rate["compared"] == rate["anchors"] == pytest.approx(rate["images"] / 3, abs=0.1)
        else:
            assert rate["compared"] > rate["anchors"] > rate["images"] > 0
    text = (out / "training-speed-tiny-small.md").read_text()
    for ratio in data["speed_ups"]:
        assert f"**{ratio['anchors']:.1f}**" in text
        assert ratio["compared"] > ratio["anchors"] > 0


def test_a_dataset_without_readable_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = write_tiny_catalogue(tmp_path / "tiny", 12)
    given = ["--dataset", str(catalogue), "--backbone", "small", "--image-size", "32"]
    given += ["--workers", "0", "--device", "cpu", "--results", str(tmp_path / "out")]
    for picture in (catalogue / "images").iterdir():
        picture.write_bytes(b"broken")
    assert _run(["bench", "training-speed", *given], False) == 3
    assert "readable images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
