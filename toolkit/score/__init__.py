"""The command line of scoring: a module for each verb of `python -m toolkit.score`, thin over `toolkit.scoring`.

A verb's module has `add(verb)`, which makes its parser and leaves what it calls in `args.call`.
"""
