"""`retrieve bench main-job`: a second call, and a split in which no combination can be drawn."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_catalogue import write_tiny_catalogue

from benchmarks import main_job
from retrieval.cli import _run

SCORE = {"map": 50.0, "chance": 40.0}
MEASURED: dict[str, Any] = {
    "dataset": "tiny",
    "all": SCORE,
    "attributes": {"colour": SCORE},
    "floor": {"all": SCORE, "attributes": {"colour": SCORE}},
    "combinations": None,
}


def test_it_goes_on_and_writes_without_combinations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def retrieve(*arguments: Any) -> None:
        if arguments[0] == "train":
            last = Path(arguments[arguments.index("--out") + 1]) / "last.pt"
            assert last.exists() == ("--resume" in arguments)  # else `train` refuses
            last.parent.mkdir(parents=True, exist_ok=True)
            last.touch()

    def retrieve_json(*arguments: Any) -> str:
        return json.dumps(MEASURED)

    monkeypatch.setattr(main_job, "retrieve", retrieve)
    monkeypatch.setattr(main_job, "retrieve_json", retrieve_json)
    catalogue = write_tiny_catalogue(tmp_path / "tiny", 12)
    words = ["--dataset", catalogue, "--weights", "w.safetensors", "--work", tmp_path / "work"]
    command = ["bench", "main-job", *map(str, words), "--results", str(tmp_path / "out")]
    assert _run(command, False) == 0
    data = json.loads((tmp_path / "out/main-tiny-resnet18.json").read_text())
    assert data["resumed"] is False
    assert {"data", "commit", "machine"} <= set(data)
    markdown = (tmp_path / "out/main-tiny-resnet18.md").read_text()
    assert "| M2Fashion | 50.00 | 50.00 |" in markdown
    assert "precision@10" not in markdown
    assert "earlier call" not in markdown

    assert _run([*command, "--seeds", "2"], False) == 0
    data = json.loads((tmp_path / "out/main-tiny-resnet18.json").read_text())
    assert data["resumed"] is True
    assert list(data["seeds"]) == ["0", "1"]
    assert "of what an earlier call left" in capsys.readouterr().out
