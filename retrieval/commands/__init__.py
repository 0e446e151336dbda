"""The subcommands of `retrieve`, one a file; imported only when called."""
