"""What each part of M2Fashion and of its recipe is worth: the model without it.

retrieve bench ablations --dataset data/fashion-products --item-column name --weights FILE

Rows: `benchmarks/tables/ablations.toml`. Shares its runs with `retrieve bench map` where both are
told the same items; `retrieve bench counterfactual --variant ROW` asks the same of the wardrobe.
"""

from benchmarks.tables.make_table import table_command
from benchmarks.tables.row_file import ABLATIONS

command = table_command("ablations", ABLATIONS, "M2Fashion without each of its parts.")
