"""Every figure that the README or a table quotes, each from one command."""
