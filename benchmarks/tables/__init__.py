"""Tables of many trained models side by side: `retrieve bench map` and `ablations`.

rows (TOML) -> runs (row x seed, each with a key: trained, measured, kept) -> result -> Markdown.
"""
