"""`python -m toolkit.stages RUN STAGE [--part N]`: one rank of one stage's payload, or one part of a stage that is
shared out. Rank 0 records what the stage made.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence

from toolkit import cli, files
from toolkit.errors import RolledBack, Stopped, ToolkitError, UsageError
from toolkit.plan import steps
from toolkit.recipe.layout_rules import TRAINING_STAGES
from toolkit.runs import find, record_done
from toolkit.stages import parts
from toolkit.stages.context import Context, inputs
from toolkit.train import stopping

_MODULES = {"import": "import_"}  # a keyword cannot name a module


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2 and not (len(argv) == 4 and argv[2] == "--part"):
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
    if step.stage in TRAINING_STAGES:  # the others hold nothing that is worth a save: a signal ends them
        stopping.install()
    context = Context(run=run, step=step)
    context.folder.mkdir(parents=True, exist_ok=True)
    if len(argv) == 4:
        parts.run_part(context, argv[3])
        return 0
    started = time.time()
    read = inputs(run, step) if context.rank == 0 else {}  # rank 0 alone records; others need not read the files too
    try:
        module = importlib.import_module(f"toolkit.stages.{_MODULES.get(step.stage, step.stage)}")
        result = module.run(context)
    except (Stopped, RolledBack) as err:
        print(f"{'stopped' if isinstance(err, Stopped) else 'rolled back'}: {err}", flush=True)
        return err.exit_code
    except BrokenPipeError as err:  # for a verb that is its reader gone, and well; here it is a helper process
        raise RuntimeError("a process that this stage talks to is gone") from err
    except ToolkitError as err:
        files.write_json(context.folder / f"error{'' if context.rank == 0 else f'-{context.rank}'}.json", err.as_dict())
        raise
    if context.rank == 0:
        record_done(
            run, ident, stage=step.stage, started=started, inputs=read, outputs=result.outputs, result=result.figures
        )
        parts.clear(context)
    return 0


if __name__ == "__main__":
    code = cli.run(main)
    stopping.over()
    sys.exit(code)
