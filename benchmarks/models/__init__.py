"""Models side by side, a table a file: `retrieve bench map`, `ablations`, `table1` to `table3`."""
