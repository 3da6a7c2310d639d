"""The verbs of the command line: what each takes, and what carries it out; `fusion/cli.py` puts them together."""
