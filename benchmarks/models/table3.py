"""The paper's Table 3, attribute-specific MAP, laid out as it lays it out; every system by its own
recipe, with those that came after the paper.

    retrieve bench table3 --dataset data/fashion-products --backbone resnet18 --weights FILE

The rows, and the runs in `--work`, are those of `retrieve bench map`, which also has each system by
our recipe and what else is measured of it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

import msgspec

from benchmarks.common import Data, table
from benchmarks.tables.make_table import Layout, table_command
from benchmarks.tables.measure import Runs
from benchmarks.tables.options import Setting
from benchmarks.tables.result import ALL, conditions
from benchmarks.tables.row_file import MAP, RowFile
from benchmarks.tables.summary import Column, means
from retrieval.evaluation.published import PUBLISHED, published_for

PAPERS = "darn"
"""What the paper's table is of."""


class OwnRecipes(Runs):
    """Runs of `own_recipes`."""

    @classmethod
    def of(cls, rows_file: Path, setting: Setting) -> Self:
        """See `Runs.of`."""
        runs = super().of(rows_file, setting)
        table = own_recipes(runs.table)
        table.chosen(setting.rows)
        return replace(runs, table=table)


def own_recipes(table: RowFile) -> RowFile:
    """Without the rows of rivals that are trained as M2Fashion is."""
    rows = {name: row for name, row in table.rows.items() if "ours" not in row.recipes}
    return msgspec.structs.replace(table, rows=rows)


def markdown(data: Data) -> str:
    """A row a system, a column an attribute and All; published rows in a table of their own."""
    columns = [Column(name, ("attributes", name)) for name in data["chance"] if name != ALL]
    chance = {"title": "chance", "attributes": data["chance"], ALL: data["chance"][ALL]}
    note = (
        "MAP in percent under type conditions, by attribute and over all queries, every system by "
        "its own recipe on the same maps of one frozen backbone, tuned alike on `valid`. "
        "±: standard deviation over training seeds."
    )
    parts = (
        f"# Table 3: {data['dataset']}, {data['backbone']}",
        means(data["rows"], [*columns, Column("All", (ALL,))], note, shared=[chance]),
        _published(data),
        conditions(data),
    )
    return "\n\n".join(parts)


def _published(data: Data) -> str:
    """The figures that papers print of the dataset, or those of the paper's table."""
    name = data["dataset"].casefold()
    name = name if name in PUBLISHED else PAPERS
    own, counted = PUBLISHED[name], data["counts"][ALL]["queries"]
    same = published_for(data["dataset"], data["split"], data["mode"], counted)
    fits = same is not None and data["protocol"] == "published lists"
    remark = (
        f"As printed in the papers of {name}'s official lists, not reproduced here; "
        + ("of the same lists as above" if fits else "of other pictures than above")
        + f", with networks that were trained whole. {own.remark}"
    )
    cells = table(["published", *own.columns], own.cells(), remark.strip())
    return f"## Published: {name}\n\n{cells}"


command = table_command(
    "table3",
    MAP,
    "The paper's Table 3: attribute-specific MAP, every system by its own recipe.",
    Layout(OwnRecipes, markdown=markdown),
)
