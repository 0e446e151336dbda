"""Dataset adapters: one a file, all giving the same `Dataset`."""
