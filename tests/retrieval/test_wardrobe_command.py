import json

import pytest

from retrieval.cli import _run


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = _run([str(a) for a in arguments], debug=False)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_json_is_all_that_goes_to_standard_output(capsys, tmp_path):
    folder = tmp_path / "w"
    code, out, _ = run(capsys, "wardrobe", folder, "--count", 20, "--size", 32, "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["images"], report["items"], report["layout"]) == (20, 12, "catalogue")
    assert sum(report["splits"].values()) == 20
    assert len(list((folder / "images").iterdir())) == 20


def test_a_folder_that_is_not_empty_is_refused_unless_told(capsys, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    small = ("--count", 2, "--size", 32)
    code, out, err = run(capsys, "wardrobe", tmp_path, *small)
    assert (code, out) == (2, "")
    assert "--overwrite" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.txt"]
    code, out, _ = run(capsys, "wardrobe", tmp_path, *small, "--overwrite")
    assert code == 0
    assert "2 pictures of 2 items" in out
    assert (tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--count", 0),
        ("--size", 8),
        ("--seed", -1),
        ("--layout", "fashionai"),
        ("--layout", "darn", "--count", 10),
        ("--layout", "darn", "--masks"),
    ],
)
def test_wrong_arguments_end_with_2(capsys, tmp_path, arguments):
    code, out, err = run(capsys, "wardrobe", tmp_path / "w", *arguments)
    assert (code, out) == (2, "")
    assert err
