"""M2Fashion and its rivals on the test split, side by side: MAP, likeness, changes, combinations.

retrieve bench map --dataset data/fashion-products --backbone resnet18 --weights FILE

Rows: `benchmarks/tables/map.toml`. Writes `map-DATASET-BACKBONE.json` and `.md` to
`benchmarks/results/`; other rows and trials have longer names.
"""

from benchmarks.tables.make_table import table_command
from benchmarks.tables.row_file import MAP

command = table_command("map", MAP, "M2Fashion and its rivals side by side.")
