"""`python -m toolkit.plan calibrate RUN...`: how fast a site's own trainings were against what is foretold of them, as
one factor with its spread, in a small file that `cluster.calibration` names. The model itself stays as published.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from toolkit import cli, files
from toolkit.errors import RecipeError, RunError, UsageError
from toolkit.plan import setup, speed, trainings
from toolkit.plan.calibrated import PARAMS, Params
from toolkit.recipe import load
from toolkit.recipe.schema import Recipe

FORMAT = 1
_WARM = 3  # first steps of an attempt: kernels are chosen, memory is taken
_LEAST = 10  # steps of a run that say something
_NARROWEST = 1.03  # range around a run's median, either way
_ALONE = 1.05  # and where there is one run only
_KNOWN = (0.2, 5.0)  # a factor beyond is another machine, or another training


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One training of a run: seconds of its median step, and those of its 5 fastest and slowest of 100."""

    run: str
    stage: str
    gpu: str
    steps: int
    measured_s: float
    fast_s: float
    slow_s: float
    foretold_s: float

    @property
    def factor(self) -> float:
        return self.measured_s / self.foretold_s


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`factor` is measured over foretold, the geometric mean over the trainings; `low` and `high` are around it."""

    gpu: str
    factor: float
    low: float
    high: float
    trainings: tuple[Trained, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "gpu": self.gpu,
            "factor": round(self.factor, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "model": fingerprint(),
            "trainings": [
                {name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(one).items()}
                for one in self.trainings
            ],
        }


def fingerprint() -> str:
    """Of the parameters that a factor was learned with: with others it means nothing."""
    return hashlib.sha256(json.dumps(asdict(PARAMS), sort_keys=True).encode()).hexdigest()[:12]


def calibrate(runs: Sequence[Path]) -> Calibration:
    """Raises `RunError` for a run that is damaged, trained on no GPU, or too few steps; `UsageError` where the runs'
    GPUs differ.
    """
    found = [one for run in runs for one in trained(run)]
    kinds = sorted({one.gpu for one in found})
    if len(kinds) != 1:
        raise UsageError(
            f"the runs are of different GPUs: {', '.join(kinds)}" if kinds else "no run is given",
            do="calibrate each kind of GPU by itself, into a file of its own",
        )
    factor = math.exp(statistics.fmean(math.log(one.factor) for one in found))
    least = _ALONE if len(found) == 1 else _NARROWEST
    low = min([1 / least, *(one.fast_s / one.foretold_s / factor for one in found)])
    high = max([least, *(one.slow_s / one.foretold_s / factor for one in found)])
    return Calibration(gpu=kinds[0], factor=factor, low=low, high=high, trainings=tuple(found))


def trained(run: Path) -> list[Trained]:
    """The trainings of one run that have steps enough."""
    recipe = load(run / "recipe.yaml")
    if recipe.cluster.device != "gpu":
        raise RunError(
            f"it trained on cluster.device={recipe.cluster.device}", where=run, why="what is foretold is of GPUs"
        )
    found = []
    for stage in trainings.stages(recipe):
        seconds = list(_steady(run / "stages" / stage / "metrics.jsonl"))
        if len(seconds) < _LEAST:
            continue
        own = setup.of(trainings.of_stage(recipe, stage))
        cuts = statistics.quantiles(seconds, n=20)
        one = Trained(
            run=run.name,
            stage=stage,
            gpu=own.gpu.title,
            steps=len(seconds),
            measured_s=statistics.median(seconds),
            fast_s=cuts[0],
            slow_s=cuts[-1],
            foretold_s=speed.step(own).seconds,
        )
        if not _KNOWN[0] < one.factor < _KNOWN[1]:
            raise RunError(
                f"its steps took {one.measured_s:.4g} s where {one.foretold_s:.4g} s are foretold",
                where=run / "stages" / stage,
                why="that far off it is another machine than the recipe says",
                do="look at cluster.gpu, cluster.nics and cluster.nic_gbps of its recipe.yaml",
            )
        found.append(one)
    if not found:
        raise RunError(f"no training with {_LEAST} steady steps", where=run, do="give a run that trained longer")
    return found


def _steady(path: Path) -> Iterator[float]:
    """Seconds of the steps after the first of each attempt; damaged lines are passed over."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as err:
        raise RunError(f"cannot be read: {err.strerror}", where=path) from None
    last, since = None, 0
    for line in lines:
        try:
            row = json.loads(line)
            step, took = row["step"], row["step_s"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if type(step) is not int or type(took) not in (int, float) or not 0 < took < 1e6 or row.get("event"):
            continue
        since = since + 1 if last is not None and step == last + 1 else 1
        last = step
        if since > _WARM:
            yield float(took)


def params(recipe: Recipe) -> Params:
    """What `speed` counts with on the recipe's cluster: as published, or as its `cluster.calibration` says."""
    if recipe.cluster.calibration is None:
        return PARAMS
    path = Path(recipe.cluster.calibration)
    gpu, found = read(path)
    kind = setup.of(recipe).gpu.title
    if gpu != kind:
        raise RecipeError(f"it was learned on {gpu}, and cluster.gpu is {kind}", where=path, do="calibrate again")
    return found


def read(path: Path) -> tuple[str, Params]:
    """The GPU's title, and the published parameters with the site's factor and range. Raises `RecipeError`."""
    again = "make it with python -m toolkit.plan calibrate RUN... --out FILE"
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise RecipeError(f"the calibration cannot be read: {err.strerror}", where=path, do=again) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise RecipeError("this is no calibration: not YAML in UTF-8", where=path, do=again) from None
    if not isinstance(value, Mapping) or value.get("format") != FORMAT:
        raise RecipeError(f"this is no calibration of format {FORMAT}", where=path, do=again)
    if value.get("model") != fingerprint():
        raise RecipeError("it was learned with other parameters than this toolkit's", where=path, do=again)
    figures = {name: value.get(name) for name in ("factor", "low", "high")}
    wrong = [f"{name}={v!r}" for name, v in figures.items() if type(v) not in (int, float) or not 0.1 < v < 10]
    if wrong or not figures["low"] <= 1 <= figures["high"] or not isinstance(value.get("gpu"), str):
        raise RecipeError(f"damaged calibration: {', '.join(wrong) or 'its range or its GPU'}", where=path, do=again)
    site, low, high = (float(figures[name]) for name in ("factor", "low", "high"))
    return value["gpu"], replace(PARAMS, site=site, low=low, high=high)


def text(found: Calibration) -> str:
    wide = max(len(one.run) for one in found.trainings)
    lines = [f"{'run':<{wide}}  {'stage':<9} {'steps':>7} {'median s':>9} {'foretold s':>10} {'factor':>7}"]
    for one in found.trainings:
        lines.append(
            f"{one.run:<{wide}}  {one.stage:<9} {one.steps:>7,} {one.measured_s:>9.4g} {one.foretold_s:>10.4g} "
            f"{one.factor:>7.3f}"
        )
    lines.append(
        f"\n{found.gpu}: steps take {found.factor:.3f} x what is foretold, {found.factor * found.low:.3f} to "
        f"{found.factor * found.high:.3f}"
    )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.plan calibrate", description="Learn how fast this site is from its own runs."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs that trained on GPUs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there, for cluster.calibration=FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    found = calibrate(args.runs)
    if args.out is not None:
        files.write_text(args.out, yaml.safe_dump(found.as_dict(), sort_keys=False))
    if args.json:
        cli.print_json(found.as_dict())
        return 0
    print(text(found))
    print(f"written: cluster.calibration={args.out}" if args.out else "not written: --out FILE keeps it")
    return 0
