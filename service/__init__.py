"""An open index over HTTP, and a page on it: `retrieve serve indexes/shop`."""

import training  # noqa: F401  # settles the threads before numpy loads
