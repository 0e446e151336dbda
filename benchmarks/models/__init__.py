"""Models side by side, a table a file: `retrieve bench map`, `ablations`, `table2`, `table3`."""
