"""The command line: declared in flags.py, run_flags.py, commands.py and image_verbs.py, and read by parser.py.

click prints help, completion.py completes words.
"""
