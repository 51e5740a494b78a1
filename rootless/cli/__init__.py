"""The command line: declared in flags.py and commands.py, read by parser.py; click prints help and completes words."""
