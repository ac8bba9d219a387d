"""The command line: `main` finds and runs commands, one module per command family beside it."""
