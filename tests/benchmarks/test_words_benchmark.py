"""Precision and recall of `retrieve bench words` against counts by hand."""

from pathlib import Path

from benchmarks.words import markdown, measure
from training.datasets import load_dataset

ROWS = """image,split,name,colour,garment
a.jpg,test,Scarlet long dress,red,dress
b.jpg,test,Red shirt in blue,blue,shirt
c.jpg,test,Frock,red,dress
d.jpg,test,Blue thing,,dress
e.jpg,train,Blue shirt,blue,shirt
"""


def test_counts(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(ROWS)
    dataset = load_dataset(str(tmp_path))
    colour, garment = measure(dataset, "name", "test")
    assert colour["labels"] == 3  # row d knows none, and its blue is not counted as wrong
    assert colour["words"] == {"precision": 1.0, "recall": 0.6667}
    assert colour["search"] == {"precision": 1.0, "recall": 0.3333}
    assert garment["words"] == {"precision": 1.0, "recall": 0.75}
    data = {"rows": [colour, garment], "texts": 4, "dataset": "x", "split": "test", "text": "name"}
    data["commit"] = "c"
    assert "| colour | 3 | 1.000 | 0.667 | 1.000 | 0.333 | 0.667 |" in markdown(
        data | {"commit": "c"}
    )
