"""`python -m toolkit.job RUN STAGE`: what every job on Slurm runs, on its batch host. Thin: the stage's entry does the
work, `slurm_stage` keeps it alive.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from toolkit import cli
from toolkit.errors import UsageError
from toolkit.plan import step_named
from toolkit.runs import find

_EPILOG = """examples (inside a job; the launcher and slurm/*.sh write these lines):
  python -m toolkit.job runs/pretrain_70b-20260101-120000-ab12 pretrain
  python -m toolkit.job runs/pretrain_70b-20260101-120000-ab12 shards --part 3

exit codes: 0 done · 1 failed, or handed back to Slurm's queue · others as the stage's own
"""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.job",
        description="Run one stage of a run inside a job of Slurm.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("stage", metavar="STAGE", help="a stage of this run")
    parser.add_argument("--part", metavar="N", help="only part N of the stage, counted from 0")
    args = parser.parse_args(argv)
    if not os.environ.get("SLURM_JOB_ID", "").isdigit():
        raise UsageError(
            "this runs inside a job of Slurm",
            do="submit it: python -m toolkit.launch recipe=NAME, or sbatch slurm/NAME.sh",
        )
    run = find(args.run)
    step = step_named(run.recipe, args.stage, where=run.path)
    from toolkit.keepalive import part, whole

    if args.part is not None:
        return part(run, step, args.part)
    code = whole(run, step)
    if step.stage == "night":
        from toolkit import tonight

        tonight.ended(run)
    return code


if __name__ == "__main__":
    sys.exit(cli.run(main))
