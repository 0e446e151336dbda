"""Every figure that the README or a table quotes, each from one command."""

import training  # noqa: F401  # settles the threads before numpy and torch load
