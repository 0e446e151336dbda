"""`retrieve train` and `retrieve evaluate`: JSON, files, figures, refusals."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_index import Shop, run

from retrieval.evaluation.attribute_map import MapReport, evaluate_attributes
from retrieval.query_vector import COMPARED
from training.checkpoint import load_checkpoint
from training.datasets import load_dataset
from training.images.tensors import normalise

FAST = (
    *("--backbone", "small", "--stage", "layer2", "--image-size", 32, "--freeze", "none"),
    *("--batch-size", 20, "--workers", 0),
)
EVALUATE = ("evaluate", "--dataset", "shop", "--checkpoint", "runs/shop", "--workers", 0)


@pytest.fixture(autouse=True)
def _work_there(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.root)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_train_prints_one_json_document_and_leaves_a_checkpoint(capsys, out: Path) -> None:
    start = ("train", "--dataset", "shop", "--out", out, *FAST, "--seed", 3, "--json")
    code, text, err = run(capsys, *start, "--epochs", 2, "--attributes", "colour,trim")
    assert code == 0, err
    found = json.loads(text)
    assert set(found) == {
        "run", "checkpoint", "images", "skipped", "seed", "best_epoch", "validation_map",
        "seconds", "export", "epochs",
    }  # fmt: skip
    assert set(found["export"]) == {"images", "float32", "int8"}
    assert [set(e) for e in found["epochs"]] == [
        {"epoch", "losses", "validation_map", "seconds"}
    ] * 2
    assert (found["images"], found["skipped"], found["seed"]) == (40, 0, 3)
    figures = [e["validation_map"] for e in found["epochs"]]
    assert found["validation_map"] == max(figures) == figures[found["best_epoch"] - 1]
    assert "epoch 1/2" in err
    loaded = load_checkpoint(Path(found["checkpoint"]))
    assert [a.name for a in loaded.schema.attributes] == ["colour", "trim"]
    assert loaded.training["seed"] == 3


def test_a_run_is_not_overwritten_and_resumes(capsys, out: Path) -> None:
    start = ("train", "--dataset", "shop", "--out", out, *FAST)
    assert run(capsys, *start, "--epochs", 1)[0] == 0
    before = (out / "best/model.safetensors").read_bytes()
    code, text, err = run(capsys, *start, "--epochs", 1)
    assert (code, text) == (2, "")
    assert "--resume" in err
    assert (out / "best/model.safetensors").read_bytes() == before
    code, text, err = run(capsys, *start, "--epochs", 1, "--seed", 9, "--resume")
    assert (code, text) == (3, "")
    assert "seed: 0 there, 9 here" in err
    other = ("--epochs", 1, "--variant", "without-readout", "--resume")
    code, text, err = run(capsys, *start, *other)
    assert (code, text) == (3, "")
    assert "readout: values there, none here" in err
    code, text, err = run(capsys, *start, "--epochs", 1, "--resume", "--json")
    assert code == 0, err
    assert len(json.loads(text)["epochs"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--variant", "papper"], 2, "unknown model variant 'papper'"),
        (["--backbone", "resnet19"], 2, "resnet19"),
        (["--stage", "layer9"], 2, "layer9"),
        (["--weights", "none.safetensors"], 3, "none.safetensors"),
        (["--weights", "shop/labels.csv"], 3, "labels.csv"),
        (["--freeze", "all"], 2, "not worth freezing"),
        (["--freeze", "stem"], 2, "not worth freezing"),
        (["--freeze", "half"], 2, "'stem'"),
        (["--config", "none.toml"], 2, "none.toml"),
        (["--config", "shop/labels.csv"], 2, "labels.csv"),
        (["--epochs", "0"], 2, "--epochs"),
        (["--batch-size", "1"], 2, "--batch-size"),
        (["--learning-rate", "0"], 2, "--learning-rate"),
        (["--learning-rate", "1e30"], 3, "lower the learning rate"),
        (["--image-size", "5000"], 2, "size = 5000: Expected `int` <= 4096"),
        (["--seed", "-1"], 2, "--seed"),
        (["--seed", "99999999999999999999"], 2, "--seed"),
        (["--device", "tpu"], 2, "unknown device"),
        (["--attributes", ""], 2, "--attributes '' holds an empty name"),
        (["--attributes", "colour,,trim"], 2, "empty name"),
        (["--attributes", "colours"], 2, "colours"),
        (["--dataset", "shpo"], 2, "unknown dataset 'shpo'"),
        (["--dataset", "darn"], 3, "dataset 'darn' is not here"),
        (["--out", "shop/labels.csv"], 6, "labels.csv"),
        (["--out", "shop/labels.csv/run"], 6, "labels.csv"),
        (["--out", "/proc/none/run"], 6, "/proc/none"),
        (["--resume"], 3, "nothing to resume"),
    ],
)
def test_mistakes_in_training(capsys, out: Path, arguments: list[str], code: int, words) -> None:
    start = ("train", "--dataset", "shop", "--out", out, *FAST, "--epochs", 1)
    if "--weights" in arguments:
        start = tuple(a for a in start if a not in ("--freeze", "none"))
    found, text, err = run(capsys, *start, *arguments)
    assert (found, text) == (code, ""), err
    assert words in err
    assert "Traceback" not in err
    assert not (out / "best").exists()


def test_a_train_split_without_labels_is_refused(capsys, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    (folder / "labels.csv").write_text("image,split,colour\na.png,train,\nb.png,valid,red\n")
    code, text, err = run(capsys, "train", "--dataset", folder, "--out", out, *FAST)
    assert (code, text) == (3, "")
    assert "unlabelled has no labels in its train split" in err
    assert not (out / "last.pt").exists()


def test_a_config_that_does_not_speak_of_freezing(capsys, out: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    unfrozen = [option for option in FAST if option not in ("--freeze", "none")]
    start = ("train", "--dataset", "shop", "--out", out, *unfrozen, "--epochs", 1)
    config.write_text("[recipe]\nfreeze = 'all'\n")
    code, _, err = run(capsys, *start, "--config", config)
    assert (code, "not worth freezing" in err) == (2, True)
    config.write_text("seed = 3\n")
    code, _, err = run(capsys, *start, "--config", config)
    assert code == 0, err
    assert "(trained)" in err


def test_a_wrong_seed_in_a_config(capsys, out: Path, tmp_path: Path) -> None:
    for seed in ("-4", "99999999999999"):
        (tmp_path / "c.toml").write_text(f"seed = {seed}\n")
        start = ("train", "--dataset", "shop", "--out", out, *FAST)
        code, _, err = run(capsys, *start, "--config", tmp_path / "c.toml")
        assert code == 2
        assert f"seed = {seed}: Expected `int`" in err


def test_fault_03_a_terminated_run_ends_with_143_and_leaves_no_worker(
    shop: Shop, out: Path
) -> None:
    arguments = ["train", "--dataset", "shop", "--out", out, *FAST, "--epochs", 100_000]
    command = [sys.executable, "-m", "retrieval.cli", *map(str, arguments), "--workers", "1"]
    repository = str(Path(__file__).resolve().parents[3])
    env = os.environ | {"PYTHONPATH": repository, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, env=env, start_new_session=True
    ) as process:
        try:
            assert process.stderr is not None
            while b"epoch 1/" not in process.stderr.readline():
                assert process.poll() is None
            process.terminate()
            # Ends when nobody holds the pipe any more: a worker left behind would do so for ever.
            _, err = process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 143, err.decode()
    assert b"retrieve: terminated" in err
    assert b"Traceback" not in err
    assert load_checkpoint(out).training["epoch"] >= 1


def direct_report(shop: Shop, split: str, mode: str) -> MapReport:
    """MAP from the model's `forward`, image by image and condition by condition."""
    loaded = load_checkpoint(shop.run)
    dataset = load_dataset(str(shop.catalogue))
    dataset = dataset.subset(dataset.rows_of(split))
    prepared = np.stack([loaded.preprocessing.open(dataset.root / p) for p in dataset.paths])
    images = normalise(torch.from_numpy(prepared), loaded.preprocessing)

    def embed(condition, rows):
        states = torch.from_numpy(condition).float()[None]
        with torch.inference_mode():
            return loaded.model(images[torch.from_numpy(rows)], states).numpy()

    layout = loaded.model.layout
    with torch.inference_mode():
        found = loaded.model.describe(loaded.model.trunk(images))
    stored = layout.pack(found.chances.numpy(), found.nuance.numpy())

    def candidates(condition, rows):
        """Chances and nuance of the one attribute of a type condition, as `--like` weighs them."""
        chances = stored[rows][:, layout.plain] / 255 * (condition == 1)
        own = layout.owners == loaded.schema.attribute_of[condition == 1][0]
        nuance = layout.nuance_of(stored[rows]) * own
        return np.hstack([np.sqrt(1 - COMPARED) * chances, np.sqrt(COMPARED / 2) * nuance])

    def told(condition, rows):
        vectors = candidates(condition, rows)
        shares = layout.chances(stored[rows]) * (condition == 1)
        shares /= shares.sum(1, keepdims=True)
        vectors[:, : shares.shape[1]] = np.sqrt(1 - COMPARED) * shares
        return vectors

    if mode == "value":
        return evaluate_attributes(dataset, split, mode, embed, seed=0)
    return evaluate_attributes(dataset, split, mode, candidates, seed=0, embed_queries=told)


@pytest.mark.parametrize(("split", "mode"), [("test", "type"), ("valid", "value")])
def test_the_figures_are_the_models(shop: Shop, capsys, out: Path, split: str, mode: str) -> None:
    code, text, _ = run(
        capsys, *EVALUATE, "--split", split, "--mode", mode, "--out", out, "--combinations", 0,
        "--json",
    )  # fmt: skip
    assert code == 0
    found, direct = json.loads(text), direct_report(shop, split, mode)
    assert (found["mode"], found["split"], found["combinations"]) == (mode, split, None)
    # Bytes and half precision round: two neighbours in a ranking may change places.
    assert found["all"]["map"] == pytest.approx(direct.all.map, abs=0.7)
    assert found["all"]["chance"] == pytest.approx(direct.all.chance, abs=1e-4)
    assert found["attributes"].keys() == direct.attributes.keys()
    for name, score in direct.attributes.items():
        own = found["attributes"][name]
        assert own["map"] == pytest.approx(score.map, abs=1.5)
        assert own["chance"] == pytest.approx(score.chance, abs=1e-4)
        assert own["queries"] == score.queries


def test_json_has_the_stable_keys(capsys, out: Path) -> None:
    code, text, err = run(capsys, *EVALUATE, "--floor", "--out", out, "--json", "--seed", 5)
    assert code == 0, err
    found = json.loads(text)
    assert found.keys() >= {
        "dataset", "split", "mode", "seed", "all", "attributes", "combinations", "floor",
    }  # fmt: skip
    assert (found["dataset"], found["split"], found["mode"]) == ("shop", "test", "type")
    assert (found["seed"], found["images"], found["unreadable"]) == (5, 18, 0)
    scores = [found["all"], *found["attributes"].values(), found["floor"]["all"]]
    for score in scores + list(found["floor"]["attributes"].values()):
        assert score.keys() >= {"map", "chance", "queries"}
        assert 0 <= score["map"] <= 100
        assert 0 < score["chance"] <= 100
    assert found["all"]["queries"] == sum(s["queries"] for s in found["attributes"].values())
    assert found["combinations"].keys() >= {"same", "but"}
    assert found["combinations"]["same"].keys() >= {"map", "precision_at_10", "queries"}
    assert found["combinations"]["but"].keys() >= {"precision_at_10", "keep_at_10", "queries"}
    assert all(math.isfinite(s["map"]) for s in scores)
    assert found["likeness"] is None
    assert "no image has 1 to 4 others of its item" in err
    point = {"top30", "ndcg", "ndcg_target", "ndcg_others", "changed_p10", "keep10"}
    assert found["manipulation"].keys() >= point | {"queries", "curve"}
    curve = found["manipulation"]["curve"]
    assert [p["keep"] for p in curve] == [n / 10 for n in range(11)]
    assert all(p.keys() == point | {"keep"} for p in curve)
    assert found["without"].keys() >= {"violation10", "keep10", "queries", "but_without"}
    assert found["ties"].keys() == found["attributes"].keys()
    tags = found["tags"]["attributes"]
    assert tags.keys() == found["attributes"].keys()
    assert tags["colour"].keys() >= {"accuracy", "f1", "coverage", "confidence", "values"}
    mean = np.mean([score["accuracy"] for score in tags.values()])
    assert found["tags"]["accuracy"] == pytest.approx(mean, abs=1e-4)

    assert json.loads((out / "shop-test-type.json").read_text()) == found
    markdown = (out / "shop-test-type.md").read_text(encoding="utf-8")
    assert f"| all | {found['all']['map']:.2f} |" in markdown
    assert found["definition"] in markdown
    drawn = json.loads((out / "shop-test-combinations.json").read_text())
    assert len(drawn["combinations"]) == found["combinations"]["combinations"]
    again = run(capsys, *EVALUATE, "--floor", "--out", out, "--json", "--seed", 5)[1]
    assert json.loads(again) == found


def test_the_floor_ignores_the_condition(shop: Shop, capsys, out: Path) -> None:
    arguments = (*EVALUATE, "--floor", "--combinations", 0, "--out", out, "--json")
    found = json.loads(run(capsys, *arguments)[1])["floor"]
    loaded = load_checkpoint(shop.run)
    dataset = load_dataset(str(shop.catalogue))
    dataset = dataset.subset(dataset.rows_of("test"))
    vectors = []
    for path in dataset.paths:
        pixels = torch.from_numpy(loaded.preprocessing.open(dataset.root / path))[None]
        with torch.inference_mode():
            trunk = loaded.model.backbone(normalise(pixels, loaded.preprocessing))
        mean = trunk[0].double().mean((1, 2)).numpy()
        vectors.append(mean / np.linalg.norm(mean))
    pooled = np.stack(vectors)
    direct = evaluate_attributes(dataset, "test", "type", lambda _, rows: pooled[rows])
    assert found["all"]["map"] == pytest.approx(direct.all.map, abs=0.1)
    for name, score in direct.attributes.items():
        assert found["attributes"][name]["map"] == pytest.approx(score.map, abs=0.1)


def test_a_table_for_people_and_the_default_folder(shop: Shop, capsys) -> None:
    code, text, _ = run(capsys, *EVALUATE, "--combinations", 0, "--max-queries", 8)
    assert code == 0
    assert "Attribute-specific MAP, percent (type condition, split test of shop)" in text
    assert "written to runs/shop/evaluation/shop-test-type.json and .md" in text
    assert (shop.run / "evaluation/shop-test-type.md").is_file()
    assert sorted(p.name for p in (shop.run / "best").iterdir()) == [
        "README.md", "config.json", "model.int8.onnx", "model.onnx", "model.safetensors",
        "schema.json",
    ]  # fmt: skip


def test_pictures_that_cannot_be_read_are_left_out_and_counted(capsys, out: Path) -> None:
    code, text, err = run(capsys, *EVALUATE, "--split", "all", "--out", out, "--json")
    assert code == 0
    assert (json.loads(text)["images"], json.loads(text)["unreadable"]) == (68, 2)
    assert "left out broken.jpg" in err


def test_labelled_pictures_that_the_model_never_saw(
    shop: Shop, capsys, out: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(shop.catalogue, other)
    with (other / "labels.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    for number, row in enumerate(rows):
        row["split"] = {"test": "Winter 26"}.get(row["split"], row["split"])
        row["colour"] = row["colour"].replace("blue", "teal")
        row["sole"] = "rubber"
        row["product"] = f"product {number // 2}"
    with (other / "labels.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ["sole", *reversed(rows[0])])
        writer.writeheader()
        writer.writerows(rows)
    start = ("evaluate", "--dataset", other, "--checkpoint", "runs/shop", "--workers", 0)
    start += ("--out", out, "--json", "--item-column", "product", "--split", "Winter 26")
    code, text, err = run(capsys, *start)
    assert code == 0, err
    found = json.loads(text)
    assert "left out, the model does not know: " in err
    assert "colour:teal" in err
    assert "left out, other does not know: colour:blue" in err
    assert found["images"] == 18
    assert found["likeness"].keys() >= {"query", "kept", "floor"}
    for score in ("query", "kept", "floor"):
        keys = {"mrr", "hard_mrr", "r1", "r10", "queries"}
        assert found["likeness"][score].keys() == keys
        assert found["likeness"][score]["queries"] > 0
    assert "| query without names |" in (out / "other-Winter_26-type.md").read_text()

    ours = json.loads(run(capsys, *EVALUATE, "--out", out, "--json")[1])
    # `shape` is the same there: its candidates, its values, and so its figures.
    assert found["attributes"]["shape"] == ours["attributes"]["shape"]
    assert found["attributes"]["colour"]["queries"] < ours["attributes"]["colour"]["queries"]


def test_nothing_in_common_is_refused(shop: Shop, capsys, out: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,sole\na.png,rubber\n")
    arguments = ("evaluate", "--dataset", tmp_path, "--checkpoint", "runs/shop", "--out", out)
    code, text, err = run(capsys, *arguments)
    assert (code, text) == (3, ""), err
    assert "have no value in common: its attributes are sole" in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--split", "tset"], 2, "splits of shop: test, train, valid, or all"),
        (["--split", "../x"], 2, "no image in split"),
        (["--mode", "typ"], 2, "--mode"),
        (["--item-column", "brand"], 2, "no column 'brand' for --item-column; it has image"),
        (["--combinations", "-1"], 2, "--combinations"),
        (["--combination-queries", "0"], 2, "--combination-queries"),
        (["--max-queries", "0"], 2, "--max-queries"),
        (["--seed", "-1"], 2, "--seed"),
        (["--checkpoint", "nowhere"], 3, "nowhere is no checkpoint"),
        (["--checkpoint", "shop/labels.csv"], 3, "is no checkpoint"),
        (["--checkpoint", "x" * 5000], 6, "File name too long"),
        (["--dataset", ""], 2, "unknown dataset ''"),
        (["--dataset", "runs"], 3, "holds no dataset"),
        (["--device", "tpu"], 2, "unknown device"),
        (["--out", "shop/labels.csv"], 6, "labels.csv"),
    ],
)
def test_mistakes_in_evaluation(capsys, out: Path, arguments: list[str], code: int, words) -> None:
    found, text, err = run(capsys, *EVALUATE, "--out", out, *arguments)
    assert (found, text) == (code, ""), err
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("harm", ["config.json", "schema.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\x80\x04pickle", b'{"a": NaN}'])
def test_a_broken_checkpoint_ends_with_3(
    shop: Shop, capsys, out: Path, tmp_path: Path, harm: str, content: bytes
) -> None:
    shutil.copytree(shop.run / "best", tmp_path / "run")
    (tmp_path / "run" / harm).write_bytes(content)
    code, text, err = run(capsys, *EVALUATE, "--checkpoint", tmp_path / "run", "--out", out)
    assert (code, text) == (3, ""), err
    assert str(tmp_path) in err or "schema" in err
