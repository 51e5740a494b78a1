"""The command line: declared once in flags.py, read by parse.py for machines and by people.py for people."""
