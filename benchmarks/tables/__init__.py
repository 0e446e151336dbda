"""Tables of many trained models side by side: `retrieve bench map`, `ablations`, `combinations`.

rows (TOML) -> plan (row x seed, with a key) -> measure (train, evaluate, keep) -> result -> text,
chart. Runs are kept by what they depend on, so that tables share them.
"""
