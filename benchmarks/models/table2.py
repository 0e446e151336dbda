"""The paper's Table 2, laid out as it lays it out: what categories and attributes that are learned
together gain, and how the attended map is pooled.

    retrieve bench table2 --dataset data/fashion-products --backbone resnet18 --weights FILE

Measured as `retrieve bench table1` measures, heads that are told nothing; the runs are shared.
"""

from __future__ import annotations

from benchmarks.common import Data, table
from benchmarks.models.table1 import SHOWN, ClassificationRuns, result
from benchmarks.tables.make_table import Layout, table_command
from benchmarks.tables.row_file import TABLE_2 as ROWS
from benchmarks.tables.summary import Column, means
from retrieval.evaluation.published import TABLE_2


def markdown(data: Data) -> str:
    """A row a way to learn, category and All at each k; published rows in a table of their own."""
    kinds = {"Category": "category", "All, micro": "all-micro", "All, mean": "all-mean"}
    columns = [
        Column(f"{name} @{k}", ("under_labels", kind, "recall", data["ks"].index(k)))
        for name, kind in kinds.items()
        for k in SHOWN
    ]
    note = (
        f"Percent, {data['split']} split, {data['images']:,} images, nothing told of a picture's "
        "labels. Category: top-k accuracy. All: recall@k of attribute values, ranked together "
        "(micro), or among each attribute's and averaged (mean). ±: standard deviation over "
        f"training seeds. Commit {data['commit']}, {data['machine']}."
    )
    header = ["published", *(f"{name} @{k}" for name in TABLE_2.columns for k in SHOWN)]
    remark = f"As printed of DeepFashion, not reproduced here. {TABLE_2.remark}"
    parts = (
        f"# Table 2: {data['dataset']}, {data['backbone']}",
        means(data["rows"], columns, note),
        f"## Published: {TABLE_2.title}",
        table(header, TABLE_2.cells(), remark),
    )
    return "\n\n".join(parts)


command = table_command(
    "table2",
    ROWS,
    "The paper's Table 2: category and attribute losses alone and together, GAP and GMP.",
    Layout(ClassificationRuns, result, markdown),
)
