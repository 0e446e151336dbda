"""`retrieve query` as a person or a program meets it: tables, JSON, messages, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from small_index import ODD_NAMES, Shop, run

from retrieval.engine import Engine
from retrieval.options import split_names
from retrieval.request import Request
from training.errors import UsageError
from training.schema import Attribute, Schema

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURE = "shop/images/000.png"


@pytest.fixture(autouse=True)
def _work_there(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.root)
    monkeypatch.delenv("COLUMNS", raising=False)


def subprocess_run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "retrieval.cli", *arguments]
    return subprocess.run(command, env=env, capture_output=True, timeout=120, check=False)


def test_json_has_stable_keys_and_says_what_the_engine_says(shop: Shop, capsys) -> None:
    arguments = ("--attrs", "disc,gold", "--without", "blue", "--like", "colour", "--top-k", 4)
    code, out, err = run(capsys, "query", PICTURE, *arguments, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert set(found) == {"image", "condition", "gallery", "searched", "left_out", "hits"} | {
        "query_requested",
        "query_predicted",
    }
    assert [set(hit) for hit in found["hits"]] == [
        {"rank", "score", "likeness", "path", "row", "known", "predicted", "requested"}
        | {"item", "payload", "listed"}
    ] * 4
    assert [set(r) for r in found["hits"][0]["requested"]] == [
        {"value", "wanted", "verdict", "probability"}
    ] * 3
    assert set(found["query_predicted"]) == {"colour", "shape", "category", "trim"}
    assert set(found["query_predicted"]["colour"]) == {"value", "probability"}
    engine = Engine.open("indexes/shop", device="cpu")
    direct = engine.query(Request(PICTURE, ["disc", "gold"], ["blue"], ["colour"], top_k=4))
    assert found == direct.to_json()


def test_json_in_a_process_of_its_own(shop: Shop) -> None:
    done = subprocess_run("query", PICTURE, "--attrs", "disc", "--sheet", "a.png", "--json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["hits"]) == 10
    assert done.stderr.decode().strip() == "contact sheet written to a.png"
    with Image.open("a.png") as sheet:
        assert sheet.width > 1000


def test_the_table_holds_paths_and_labels(capsys) -> None:
    code, out, _ = run(capsys, "query", PICTURE, "--attrs", "disc", "--without", "gold")
    assert code == 0
    lines = [line for line in out.splitlines() if ".png" in line]
    assert lines[0].split("│")[1].strip() == "1"
    assert "disc - gold" in out.splitlines()[0]
    assert "(68 of 68 images)" in out.splitlines()[0]
    assert sum("disc present" in line for line in lines) >= 6
    assert "gold" in out
    assert any("price=" in line and "sku=a-" in line for line in lines)


def test_the_dial_and_the_bounds_reach_the_engine(capsys) -> None:
    options = (
        "--attrs", "disc", "--keep", 0.9, "--where", "price<60", "--where", "colour!=red",
        "--where", "trim=gold", "--where", "TRIM=lace", "--top-k", 4, "--offset", 2,
        "--min-score", 0.1, "--one-per-item", "--include-query", "--trust-labels", "--exact",
    )  # fmt: skip
    code, out, _ = run(capsys, "query", PICTURE, *options, "--json")
    assert code == 0
    where = {"price": "<60", "colour": "!=red", "trim": ["gold", "lace"]}
    direct = Engine.open("indexes/shop", device="cpu").query(Request(
        PICTURE, ["disc"], where=where, top_k=4, keep=0.9, offset=2, min_score=0.1,
        one_per_item=True, include_query=True, trust_labels=True, exact=True,
    ))  # fmt: skip
    assert len(direct) == 4
    assert json.loads(out) == direct.to_json()


def test_copies_of_the_query_picture_are_told_of(shop: Shop, capsys) -> None:
    code, out, err = run(capsys, "query", PICTURE, "--top-k", 60)
    assert (code, err) == (0, "")
    assert "left out 3 copies of the query picture" in out
    assert "copy-a.png" not in out
    code, out, _ = run(capsys, "query", PICTURE, "--top-k", 60, "--include-query")
    assert "left out" not in out
    assert "copy-a.png" in out
    code, out, _ = run(capsys, "query", "shop/images/001.png", "--top-k", 60)
    assert "left out 1 copy of the query picture" in out


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_printed_intact(shop: Shop, capsys, name: str) -> None:
    code, out, _ = run(capsys, "query", f"shop/{name}", "--top-k", 3, "--include-query")
    assert code == 0
    shown = name.replace("\n", "\\n").replace("\x1b", "\\x1b")
    assert any(f" shop/{shown} " in line for line in out.splitlines()), out
    assert "\x1b" not in out
    asked = ("--top-k", 3, "--include-query", "--json")
    code, out, _ = run(capsys, "query", f"shop/{name}", *asked)
    assert str(shop.catalogue / name) in [hit["path"] for hit in json.loads(out)["hits"]]


@pytest.mark.parametrize("columns", ["1", "20", "40", "80", "300", "0", "-5", "many"])
def test_any_width_of_terminal_shows_every_path(capsys, monkeypatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    asked = ("--attrs", "disc", "--top-k", 2)
    code, out, _ = run(capsys, "query", PICTURE, *asked)
    assert code == 0
    rows = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    pieces = "".join(row[3].strip() for row in rows)
    hits = json.loads(run(capsys, "query", PICTURE, *asked, "--json")[1])["hits"]
    assert pieces == "".join(str(Path(hit["path"]).relative_to(Path.cwd())) for hit in hits)


def test_a_terminal_without_unicode(shop: Shop) -> None:
    image = f"shop/{ODD_NAMES[1]}"
    done = subprocess_run(
        "query", image, "--top-k", "2", "--include-query", PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 0, done.stderr
    assert rb"shop/bl\xe5 kjole \u65d7\u888d.jpg" in done.stdout


def test_a_closed_pipe_is_no_error(shop: Shop) -> None:
    for arguments in (["query", PICTURE, "--json"], ["query", PICTURE], ["--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "retrieval.cli", *arguments]
        env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, stdout=writer, stderr=-1, env=env, timeout=120, check=False)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_standard_error_stops_no_work(shop: Shop, tmp_path: Path) -> None:
    """Only a build that was finished ends with 0."""
    reader, writer = os.pipe()
    os.close(reader)
    index = tmp_path / "index"
    command = [
        sys.executable, "-m", "retrieval.cli", "build-index", "--dataset", "shop",
        "--split", "test", "--checkpoint", shop.run, "--out", index, "--json",
    ]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, stdout=-1, stderr=writer, env=env, timeout=120, check=False)
    os.close(writer)
    assert done.returncode == 0
    assert json.loads(done.stdout)["images"] > 0
    assert (index / "manifest.json").is_file()


def test_a_broken_pipe_to_another_process_is_not_taken_for_success(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("retrieval.engine.Engine.open", broken)
    code, _, err = run(capsys, "query", PICTURE)
    assert code == 6
    assert "a process of this command has ended" in err


def test_a_full_disk_is_not_called_a_bug(shop: Shop) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = [sys.executable, "-m", "retrieval.cli", "query", PICTURE, "--json"]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=-1, env=env, timeout=120, check=False)
    assert done.returncode == 6
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--attrs", ""], 2, "--attrs '' holds an empty name"),
        (["--attrs", " , "], 2, "empty name"),
        (["--attrs", "disc,,gold"], 2, "empty name"),
        (["--attrs", "disc,"], 2, "empty name"),
        (["--attrs", "-"], 2, "empty"),
        (["--attrs", "disc,Disc"], 2, "named twice"),
        (["--attrs", "disc", "--attrs", "disc"], 2, "named twice"),
        (["--attrs", "disc,shape:disc"], 2, "named twice"),
        (["--attrs", "disc", "--without", "disc"], 2, "both present and absent"),
        (["--attrs", "disc,square"], 2, "only one value of 'shape'"),
        (["--attrs", "disk"], 2, "unknown value 'disk'; nearest: disc"),
        (["--attrs", "floral"], 2, "none is like it; there are: blue, green"),
        (["--attrs", "red"], 2, "say which: colour:red, trim:red"),
        (["--attrs", "color:red"], 2, "unknown attribute 'color'; nearest: colour"),
        (["--attrs", "colour:"], 2, "unknown value of 'colour' ''"),
        (["--attrs", ":"], 2, "unknown attribute ''"),
        (["--attrs", "shape"], 2, "is an attribute, not a value"),
        (["--attrs", "[red]x[/]"], 2, "'[red]x[/]'"),
        (["--without", ""], 2, "--without '' holds an empty name"),
        (["--like", "colours"], 2, "unknown attribute 'colours'; nearest: colour"),
        (["--like", "colour,COLOUR"], 2, "named twice"),
        (["--where", "colour"], 2, "--where 'colour' is not of the form attribute=value"),
        (["--where", "=red"], 2, "not of the form"),
        (["--where", "colour="], 2, "not of the form"),
        (["--where", "colour<red"], 2, "compare it with = or !="),
        (["--where", "sku<5"], 2, "does not hold numbers alone"),
        (["--where", "price<cheap"], 2, "'cheap' is no number"),
        (["--where", "prize<5"], 2, "nearest: price"),
        (["--keep", "2"], 2, "--keep"),
        (["--offset", "-1"], 2, "--offset"),
        (["--min-score", "1.1"], 2, "--min-score"),
        (["--where", "colour=rde"], 2, "unknown value of 'colour' 'rde'; nearest: red"),
        (["--where", "colr=red"], 2, "nearest: colour"),
        (["--top-k", "0"], 2, "--top-k"),
        (["--top-k", "-1"], 2, "--top-k"),
        (["--top-k", "ten"], 2, "--top-k"),
        (["--device", "tpu"], 2, "unknown device 'tpu'"),
        (["--index", "nowhere"], 3, "no index in nowhere"),
        (["--index", "shop"], 3, "/shop; build one"),
        (["--index", "shop/labels.csv"], 3, "shop/labels.csv"),
        (["--index", "x" * 5000], 3, "no index in xxx"),
        (["--sheet", "out.txt"], 2, "ends in .png"),
        (["--sheet", "no/such/out.png"], 2, "no/such"),
        (["--sheet", PICTURE], 2, "overwrite"),
        (["--attr", "disc"], 2, "--attrs"),
        (["--debug"], 2, "--debug"),
        (["more.jpg"], 2, "more.jpg"),
    ],
)
def test_mistakes_are_told(capsys, arguments: list[str], code: int, words: str) -> None:
    found, out, err = run(capsys, "query", PICTURE, *arguments)
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("nope.jpg", "nope.jpg does not exist"),
        ("shop", "shop does not exist or is not a file"),
        ("shop/broken.jpg", "shop/broken.jpg"),
        ("shop/labels.csv", "not an image of a known format"),
        ("y" * 5000, "does not exist"),
        ("\x1b[31m.jpg", r"\x1b[31m.jpg does not exist"),
        ("", "does not exist"),
        ("/dev/null", "is not a file"),
    ],
)
def test_images_that_cannot_be_read(capsys, image: str, words: str) -> None:
    code, out, err = run(capsys, "query", image)
    assert (code, out) == (3, "")
    assert words in err
    assert "\x1b" not in err


def test_names_are_matched_loosely_and_options_repeat(capsys) -> None:
    _, one, _ = run(capsys, "query", PICTURE, "--attrs", "Disc, GOLD", "--json")
    _, two, _ = run(capsys, "query", PICTURE, "--attrs", "disc", "--attrs", "trim: gold", "--json")
    assert json.loads(one) == json.loads(two)
    assert json.loads(one)["condition"] == "disc + gold"


def test_a_filter_that_nothing_fits(capsys) -> None:
    where = ("--where", "colour=red", "--where", "shape=square", "--where", "category=round")
    code, out, err = run(capsys, "query", PICTURE, *where, "--attrs", "disc", "--json")
    assert code == 0
    assert (json.loads(out)["hits"], json.loads(out)["searched"]) == ([], 0)
    assert "nothing was searched" in err
    code, out, _ = run(capsys, "query", PICTURE, *where, "--sheet", "nothing-found.png")
    assert code == 0
    assert "(0 of 68 images)" in out


def test_which_index_is_taken(shop: Shop, capsys, tmp_path: Path, monkeypatch) -> None:
    image = str(shop.root / PICTURE)
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "query", image)
    assert code == 2
    assert "no index in indexes/; build one with" in err
    shutil.copytree(shop.index, "indexes/one")
    Path("indexes/stray").mkdir()
    assert run(capsys, "query", image)[0] == 0
    shutil.copytree(shop.index, "indexes/two")
    code, _, err = run(capsys, "query", image)
    assert code == 2
    assert "2 indexes in indexes/; choose with --index: indexes/one, indexes/two" in err
    assert run(capsys, "query", image, "--index", "indexes/two")[0] == 0


@pytest.mark.parametrize("victim", ["manifest.json", "gallery*", "model/*/model.onnx", "shards/*"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone"])
def test_a_damaged_index_ends_with_4(shop: Shop, capsys, tmp_path: Path, victim, harm) -> None:
    folder = tmp_path / "index"
    shutil.copytree(shop.index, folder)
    (file,) = [p for p in sorted(folder.glob(victim)) if p.is_file()][:1]
    content = bytearray(file.read_bytes())
    if harm == "flip":
        content[len(content) // 3] ^= 4
    file.write_bytes({"flip": content, "cut": content[: len(content) // 2]}.get(harm, b""))
    if harm == "gone":
        file.unlink()
    codes = set()
    for attribute in ("colour", "shape", "category", "trim"):
        code, out, err = run(capsys, "query", PICTURE, "--index", folder, "--like", attribute)
        codes.add(code)
        assert code == 0 or (out == "" and file.name in err)
        if victim == "manifest.json":  # the copy of it stands in, and one is told so, once
            assert err.count("manifest.previous.json") == 1
    assert codes == ({0} if victim == "manifest.json" else {4})


def test_a_gallery_whose_pictures_are_gone_is_still_searched(
    shop: Shop, capsys, tmp_path: Path, monkeypatch
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(shop.root, moved)
    monkeypatch.chdir(moved)
    shutil.copy(PICTURE, "mine.png")
    manifest = Path("indexes/shop/manifest.json")
    code, out, err = run(
        capsys, "query", "mine.png", "--sheet", "s.png", "--top-k", 3, "--include-query"
    )
    assert code == 0, err
    assert manifest.exists()
    assert str(shop.catalogue / "images/000.png") in out  # where they were at the time


def test_a_comma_belongs_to_a_name_that_is_known_or_says_so() -> None:
    schema = Schema(
        (Attribute("colour", ("blue, white", "blue", "white")), Attribute("a,b", ("x",)))
    )

    def names(*given: str) -> list[str]:
        return split_names("--attrs", given, schema.knows)

    assert names("blue, white") == ["blue, white"]
    assert names("x,colour:Blue, White,blue") == ["x", "colour:Blue, White", "blue"]
    assert names("blue,white", "x") == ["blue", "white", "x"]
    assert names("a,b") == ["a,b"]
    assert names("new\\, odd,x") == ["new, odd", "x"]
    assert split_names("--attrs", ["blue, white"]) == ["blue", "white"]
    with pytest.raises(UsageError, match="write a comma of a name as"):
        names("blue, white,,x")


def test_a_text_is_the_names_that_it_says(capsys) -> None:
    names = ("--attrs", "disc,gold", "--without", "blue", "--like", "colour")
    _, expected, _ = run(capsys, "query", PICTURE, *names, "--json")
    text = "discs like this, same colour, gold, not blue, zorbed"
    for given in ((), ("--attrs", "disc", "--without", "colour:blue")):
        code, out, err = run(capsys, "query", PICTURE, *given, "--text", text, "--json")
        assert (code, out) == (0, expected)
        assert err == (
            "--text is understood as: disc, gold; without blue; like colour; not used: zorbed\n"
        )
