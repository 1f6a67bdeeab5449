"""`python -m toolkit.report RUN [-o FILE] [--watch [SECONDS]] [--json]`: write the page of a run and say where it is.
`--watch` writes it anew until the run ends; whoever looks at it need not reload, the page does so itself.

`python -m toolkit.report scores FOLDER... -o OUT [--json]`: scores that no run holds together, as page, Markdown, JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import cli
from toolkit.errors import ToolkitError, UsageError
from toolkit.report import page, read
from toolkit.report.record import Record

_EPILOG = "For scores that belong to no run: python -m toolkit.report scores FOLDER... -o OUT"


def main(argv: Sequence[str]) -> int:
    if argv[:1] == ["scores"]:
        return _scores(argv[1:])
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.report", description="Write the page of a run.", epilog=_EPILOG
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder, such as runs/demo-20260101-ab12")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="where to write it (default: RUN/report.html)")
    parser.add_argument(
        "--watch", metavar="SECONDS", type=float, nargs="?", const=15.0, help="again every so often until the run ends"
    )
    parser.add_argument(
        "--peak-tflops", metavar="N", type=float, help="dense bf16 peak of a device, instead of the recipe's GPU type's"
    )
    parser.add_argument("--json", action="store_true", help="print path, state, verdict and notes as JSON")
    arguments = parser.parse_args(argv)
    for name, value in (("--watch", arguments.watch), ("--peak-tflops", arguments.peak_tflops)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name}={value:g} is no time" if name == "--watch" else f"{name}={value:g} is no peak",
                             do="give a number above 0")  # fmt: skip
    record = _read(arguments.run, arguments.peak_tflops)
    path = page.write(record, arguments.out)
    if arguments.watch is not None:
        while page.summary(record)["state"] not in ("done", "failed"):
            time.sleep(arguments.watch)
            record = _read(arguments.run, arguments.peak_tflops)
            path = page.write(record, arguments.out)
    summary = page.summary(record)
    if arguments.json:
        cli.print_json({"report": str(path), **summary})
        return 0
    for note in summary["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(f"{summary['verdict']}\n{path}")
    return 0


def _scores(argv: Sequence[str]) -> int:
    from toolkit.report import scores

    parser = argparse.ArgumentParser(
        prog="python -m toolkit.report scores",
        description="Write scores as page, Markdown and JSON, beside the paper's numbers.",
    )
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+", help="what score run wrote, or a run")
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="folder for the three files")
    parser.add_argument("--json", action="store_true", help="print where they are and the notes as JSON")
    arguments = parser.parse_args(argv)
    changes, said = _changes(arguments.folders)
    made = scores.build(arguments.folders, arguments.out, changes=changes)
    paths = {name: str(getattr(made, name)) for name in ("html", "markdown", "json")}
    if arguments.json:
        cli.print_json({**paths, "notes": [*made.notes, *said]})
        return 0
    for note in (*made.notes, *said):
        print(f"note: {note}", file=sys.stderr)
    print("\n".join(paths.values()))
    return 0


def _changes(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Each of several folders compared with the first; what cannot be compared, in words."""
    from toolkit.report.scores_read import place
    from toolkit.scoring.compare import compare

    found, said = [], []
    for other in folders[1:]:
        try:
            found.append(compare(place(folders[0]), place(other)).as_dict())
        except ToolkitError as err:
            said.append(f"not compared: {err}")
    return found, said


def _read(run: Path, peak_tflops: float | None) -> Record:
    record = read.read(run)
    if peak_tflops is None:
        return record
    site = record.recipe.get("cluster")
    cluster = {**(site if isinstance(site, dict) else {}), "peak_tflops": peak_tflops}
    return dataclasses.replace(record, recipe={**record.recipe, "cluster": cluster})


if __name__ == "__main__":
    sys.exit(cli.run(main))
