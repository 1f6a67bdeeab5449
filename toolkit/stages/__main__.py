"""`python -m toolkit.stages RUN STAGE`: one rank of one stage's payload. Rank 0 records what the stage made."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence

from toolkit import cli, files
from toolkit.errors import ToolkitError, UsageError
from toolkit.plan import steps
from toolkit.runs import find, record_done
from toolkit.stages.context import Context, inputs

_MODULES = {"import": "import_"}  # a keyword cannot name a module


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        raise UsageError(
            "give a run folder and a stage",
            do="example: python -m toolkit.stages runs/demo-20260101-120000-ab12 corpus",
        )
    run, ident = find(argv[0]), argv[1]
    step = next((s for s in steps(run.recipe) if s.id == ident), None)
    if step is None:
        raise UsageError(
            f"this run has no stage '{ident}'",
            where=run.path,
            do="its stages: " + ", ".join(s.id for s in steps(run.recipe)),
        )
    context = Context(run=run, step=step)
    context.folder.mkdir(parents=True, exist_ok=True)
    started = time.time()
    read = inputs(run, step) if context.rank == 0 else {}  # rank 0 alone records; others need not read the files too
    try:
        module = importlib.import_module(f"toolkit.stages.{_MODULES.get(step.stage, step.stage)}")
        result = module.run(context)
    except ToolkitError as err:
        files.write_json(context.folder / f"error{'' if context.rank == 0 else f'-{context.rank}'}.json", err.as_dict())
        raise
    if context.rank == 0:
        record_done(
            run, ident, stage=step.stage, started=started, inputs=read, outputs=result.outputs, result=result.figures
        )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
