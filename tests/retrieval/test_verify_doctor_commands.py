"""`retrieve verify` and `retrieve doctor` by the command line, on copies of the small index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_index import Shop, run

from indexer.store.store import open_store
from retrieval.commands import doctor
from training.errors import CorruptStoreError

QUERY = "shop/images/004.png"


@pytest.fixture
def index(shop: Shop, tmp_path: Path) -> Path:
    shutil.copytree(shop.index, tmp_path / "index")
    return tmp_path / "index"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_sound_index_ends_with_0(index: Path, capsys) -> None:
    code, out, err = run(capsys, "verify", index)
    assert (code, err) == (0, "")
    assert "is sound" in out
    code, out, _ = run(capsys, "verify", index, "--json")
    found = json.loads(out)
    assert found["sound"]
    assert all(file["problem"] is None for file in found["files"])
    assert {file["kind"] for file in found["files"]} == {
        "manifest", "model", "shard", "gallery",
    }  # fmt: skip


def test_damage_ends_with_4_and_a_repair_with_0(shop: Shop, index: Path, capsys) -> None:
    manifest = open_store(index).manifest
    victims = [manifest.shards[1].file.name, manifest.gallery.name]
    expected = run(capsys, "query", shop.root / QUERY, "--index", index, "--json")[1]
    for victim in (*victims, "manifest.json"):
        flip(index / victim)
        code, out, err = run(capsys, "verify", index)
        assert code == 4
        assert victim in out
        assert "--repair" in err
        code, out, err = run(capsys, "verify", index, "--repair")
        assert code == 0, out + err
        assert f"restored  {victim}" in out
        assert run(capsys, "verify", index)[0] == 0
    assert run(capsys, "query", shop.root / QUERY, "--index", index, "--json")[1] == expected


def test_what_cannot_be_restored_is_explained(shop: Shop, index: Path, tmp_path, capsys) -> None:
    (victim,) = [f for f in open_store(index).manifest.model_files if "safetensors" in f.name]
    flip(index / victim.name)
    code, out, _ = run(capsys, "verify", index, "--repair", "--json")
    assert code == 4
    (file,) = [file for file in json.loads(out)["files"] if file["problem"]]
    assert file["file"] == victim.name
    assert "--checkpoint" in file["why"]
    code, out, _ = run(capsys, "verify", index, "--repair", "--checkpoint", shop.run)
    assert code == 0
    code, _, err = run(capsys, "verify", tmp_path / "nothing")
    assert code == 3
    assert "no index" in err
    assert run(capsys, "verify", index, "--root", tmp_path)[0] == 2


def test_the_doctor_tells_versions_and_searches(capsys) -> None:
    code, out, _ = run(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == 0, out
    assert set(found) == {"retrieve", "python", "packages", "faiss", "GPU", "search"}
    assert all(check["exit_code"] == 0 for check in found.values())
    assert "torch 2" in found["packages"]["detail"]
    assert found["search"]["detail"].endswith("indexed and found")


def test_the_doctor_ends_with_the_code_of_what_failed(
    capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing() -> str:
        raise CorruptStoreError("a file is damaged")

    monkeypatch.setattr(doctor, "_search", nothing)
    code, out, _ = run(capsys, "doctor")
    assert code == 4
    assert "FAILED  search    a file is damaged" in out
    assert "ok      faiss" in out


def test_a_check_that_breaks_is_a_finding() -> None:
    def broken() -> str:
        raise AttributeError("module 'faiss' has no attribute 'IndexFlatIP'")

    found, code = doctor.checked(broken)
    assert code == 6
    assert "IndexFlatIP" in found
