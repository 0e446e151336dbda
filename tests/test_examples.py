"""The examples run, and what `docs/add-a-*.md` show is a whole model and a whole dataset."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from retrieval import Engine, Request
from training import datasets
from training.datasets import load_dataset
from training.models import config

ROOT = Path(__file__).resolve().parents[1]


def module_of(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def shown(page: str, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The file of a page's first block as module `name`, and the entry of its second block."""
    file, line = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    (folder / "shown.py").write_text(file)
    module_of(folder / "shown.py", name, monkeypatch)
    match = re.fullmatch(r'\s*"(\S+)": "([\w.:]+)",\s*', line)
    assert match is not None
    return match[1], match[2]


def test_both_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = module_of(ROOT / "examples/quickstart.py", "quickstart", monkeypatch)
    quick.main(tmp_path, count=300, epochs=2)
    printed = capsys.readouterr().out
    assert printed.count(".jpg") == 9
    assert "floral" in printed

    index = Engine.open(tmp_path / "index")
    pictures = tmp_path / "photos"
    (pictures / "deep").mkdir(parents=True)
    for number in range(12):
        source = tmp_path / f"garments/images/{number:06d}.jpg"
        (pictures / "deep" / f"{number}.JPG").write_bytes(source.read_bytes())
    search = module_of(ROOT / "examples/search_your_folder.py", "search", monkeypatch)
    query = pictures / "deep/3.JPG"
    search.main(pictures, tmp_path / "run", query, ["floral"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all("floral" in line for line in lines)
    assert not any(str(query) in line for line in lines)  # the picture itself is left out
    assert len(index.query(Request(query, top_k=3))) == 3


def test_a_model_in_one_file_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from small_index import run

    name, entry = shown("docs/add-a-model.md", tmp_path, "training.models.rivals.mean", monkeypatch)
    monkeypatch.setitem(config.ARCHITECTURES, name, entry)
    code, _, err = run(capsys, "wardrobe", tmp_path / "shop", "--count", 80, "--size", 48)
    assert code == 0, err
    shop = ["--dataset", tmp_path / "shop"]
    options = ["--backbone", "small", "--epochs", 1, "--image-size", 48, "--workers", 0]
    out = tmp_path / "mean"
    code, _, err = run(capsys, "train", *shop, "--variant", name, *options, "--out", out)
    assert code == 0, err
    code, printed, err = run(capsys, "evaluate", *shop, "--checkpoint", out, "--workers", 0)
    assert code == 0, err
    assert "MAP" in printed


def test_a_dataset_in_one_file_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from small_index import run

    name, entry = shown("docs/add-a-dataset.md", tmp_path, "training.datasets.folders", monkeypatch)
    monkeypatch.setitem(datasets.ADAPTERS, name, entry)
    for kind, colour in (("dress", "red"), ("shirt", "blue")):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(6):
            path = tmp_path / "photos" / kind / f"{number}.jpg"
            Image.new("RGB", (40, 40), colour).save(path)
    dataset = load_dataset(name, tmp_path / "photos")
    assert len(dataset) == 12
    code, printed, err = run(capsys, "inspect", "--dataset", name, "--root", tmp_path / "photos")
    assert code == 0, err
    assert "dress" in printed
