"""A rival from the command line: trained, evaluated, and refused by build-index."""

from pathlib import Path

import pytest
from small_index import Shop, run


@pytest.mark.parametrize("name", ["csn", "asenet-v2"])
def test_a_rival_is_trained_and_measured_but_not_indexed(
    name: str, shop: Shop, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(shop.root)
    monkeypatch.delenv("COLUMNS", raising=False)  # parallel test runs set it, and tables fit it
    out = tmp_path / name
    small = ("--backbone", "resnet18", "--stage", "layer1", "--image-size", 32, "--freeze", "none")
    options = (*small, "--batch-size", 20, "--workers", 0, "--epochs", 1)
    code, _, err = run(
        capsys, "train", "--dataset", "shop", "--variant", name, "--out", out, *options
    )
    assert code == 0, err
    checkpoint = ("--dataset", "shop", "--checkpoint", out)
    code, text, err = run(capsys, "evaluate", *checkpoint, "--workers", 0, "--combinations", 0)
    assert code == 0, err
    assert "colour" in text
    code, _, err = run(capsys, "build-index", *checkpoint, "--out", tmp_path / "index")
    assert code == 2
    assert "only m2fashion can be indexed" in " ".join(err.split())
