"""What every verb shares: errors become one message and an exit code, `--json` becomes one JSON document on stdout."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from toolkit.errors import FileRefused, ToolkitError


def print_json(value: Any) -> None:
    """One JSON document; what is no number (NaN, infinity), which JSON does not know, is null."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str)
    print(text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


Verb = Callable[[str, str], argparse.ArgumentParser]


def verbs(prog: str, *, description: str, examples: str) -> tuple[argparse.ArgumentParser, Verb]:
    """A parser with verbs, and what makes one of its name and summary; each has `--json` and shows the examples."""
    keep = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=description, epilog=examples, formatter_class=keep)
    made = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, summary: str) -> argparse.ArgumentParser:
        sub = made.add_parser(name, help=summary, description=summary, epilog=examples, formatter_class=keep)
        sub.add_argument("--json", action="store_true", help="print one JSON document")
        return sub

    return parser, verb


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a verb's `main(argv)`; returns the exit code (0 done, 130 after Ctrl-C, else the error's own). What the
    system refuses of a file, such as one that may not be read, is such an error too.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return main(argv) or 0
    except ToolkitError as err:
        return _tell(err, argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as err:
        if err.filename is None or err.strerror is None:
            raise
        return _tell(FileRefused(err.strerror, where=err.filename), argv)


def _tell(err: ToolkitError, argv: Sequence[str]) -> int:
    if "--json" in argv:
        print_json(err.as_dict())
    print(f"error: {err}", file=sys.stderr)
    return err.exit_code
