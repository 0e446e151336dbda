"""What a run goes on from: killed anywhere, with other data or weights, damaged, on a full disk."""

import errno
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_trainer import CONFIG, _run
from tiny_catalogue import write_tiny_catalogue

from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.errors import DataError, ResourceError
from training.models.backbones import build_backbone
from training.models.config import build_model
from training.report import EpochReport, TrainReport
from training.resume import read_last, save_last
from training.trainer import build_optimizer

TWO = replace(CONFIG, recipe=replace(CONFIG.recipe, epochs=2))


class _Killed(BaseException):
    """What a kill is to the code that it hits."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(str(write_tiny_catalogue(tmp_path_factory.mktemp("tiny") / "shapes", 42)))


class _Saved:
    """A model and its optimizer whose weights tell how many epochs they have had."""

    def __init__(self, dataset: Dataset, out: Path) -> None:
        self.dataset, self.report = dataset, TrainReport(out)
        self.model = build_model(dataset.schema, CONFIG.model, 2)
        self.optimizer = build_optimizer(self.model, CONFIG.recipe)

    def epoch(self) -> None:
        done = len(self.report.epochs) + 1
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
            parameter.data.fill_(done)
        self.optimizer.step()
        with torch.no_grad():
            self.model.reduce.weight.fill_(done)
        self.report.epochs.append(EpochReport(done, {}, None, 1.0))

    def save(self) -> None:
        save_last(self.report, self.model, self.optimizer, {})


def _check(out: Path, done: int) -> None:
    """All that is read is of one and the same epoch."""
    found = read_last(out)
    assert len(found.epochs) == done
    assert found.model["reduce.weight"].unique().tolist() == [done]
    assert {int(state["step"]) for state in found.optimizer["state"].values()} == {done}


@pytest.mark.parametrize("step", ["write_bytes", "fsync", "replace"])
def test_killed_anywhere_in_a_save_an_epoch_is_there_as_a_whole(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    saved = _Saved(dataset, tmp_path)
    saved.epoch()
    saved.save()
    saved.epoch()
    place = Path if step == "write_bytes" else os

    def killed(*_: object) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(place, step, killed)
        with pytest.raises(_Killed):
            saved.save()
    _check(tmp_path, 1)
    saved.save()
    _check(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_other_images_or_labels_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    config = replace(TWO, recipe=replace(TWO.recipe, epochs=1))
    _run(dataset, tmp_path / "run", config)
    _run(dataset, tmp_path / "run", config, resume=True)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(dataset.root, elsewhere)
    text = (elsewhere / "labels.csv").read_text()
    for old, new, refused in (
        (",test,red,", ",test,blue,", False),
        (",train,red,", ",train,blue,", True),
        (",valid,", ",train,", True),
    ):
        assert old in text
        (elsewhere / "labels.csv").write_text(text.replace(old, new, 1))
        changed = load_dataset(str(elsewhere))
        if refused:
            with pytest.raises(DataError, match="other training or validation images"):
                _run(changed, tmp_path / "run", config, resume=True)
        else:
            _run(changed, tmp_path / "run", config, resume=True)


def test_other_weights_of_a_frozen_backbone_are_refused_before_the_maps_are_made(
    dataset: Dataset, tmp_path: Path
) -> None:
    paths = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        paths.append(str(tmp_path / f"{seed}.safetensors"))
        save_file(build_backbone("small", "layer3").state_dict(), paths[-1])
    config = replace(
        CONFIG,
        model=replace(CONFIG.model, backbone="small", stage="layer3"),
        recipe=replace(TWO.recipe, epochs=1, freeze="all", copies=0),
        weights=paths[0],
    )
    out = tmp_path / "runs" / "one"
    _run(dataset, out, config)
    kept = sorted((out.parent / "cache").iterdir())
    with pytest.raises(DataError, match="other weights of the frozen backbone"):
        _run(dataset, out, replace(config, weights=paths[1]), resume=True)
    assert sorted((out.parent / "cache").iterdir()) == kept


def test_what_is_damaged_is_named(dataset: Dataset, tmp_path: Path) -> None:
    _run(dataset, tmp_path / "run", replace(TWO, recipe=replace(TWO.recipe, epochs=1)))
    last = tmp_path / "run" / "last.pt"
    content = last.read_bytes()
    kept = torch.load(last, weights_only=True)
    kept["run"]["options"]["epochs"] = 2
    for damaged in (b"", b"{}", content[:-1], content[: len(content) // 2]):
        last.write_bytes(damaged)
        with pytest.raises(DataError, match=r"last\.pt is damaged"):
            _run(dataset, tmp_path / "run", TWO, resume=True)
    optimizer = kept["optimizer"]
    fewer = {**optimizer, "param_groups": optimizer["param_groups"][:1]}
    for changed in (
        {k: v for k, v in kept.items() if k != "best_epoch"},
        kept | {"model": {}},
        kept | {"optimizer": fewer},
    ):
        torch.save(changed, last)
        with pytest.raises(DataError, match=r"last\.pt is damaged"):
            _run(dataset, tmp_path / "run", TWO, resume=True)
    torch.save(kept, last)
    _run(dataset, tmp_path / "run", TWO, resume=True)


def test_a_pickle_is_refused_and_does_not_run(dataset: Dataset, tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class _Malicious:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (open, (str(witness), "w"))

    torch.save({"run": _Malicious()}, tmp_path / "last.pt")
    with pytest.raises(DataError, match=r"last\.pt is damaged"):
        read_last(tmp_path)
    assert not witness.exists()


def test_a_full_disk_is_told_and_leaves_what_was_kept(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = _Saved(dataset, tmp_path)
    saved.epoch()
    saved.save()
    saved.epoch()

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ResourceError, match="the disk is full"):
            saved.save()
    _check(tmp_path, 1)


def test_others_may_read_a_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        _run(dataset, tmp_path / "run", replace(TWO, recipe=replace(TWO.recipe, epochs=1)))
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}
    assert len(files) == 6 + 1
