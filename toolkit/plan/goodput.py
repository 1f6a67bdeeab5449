"""How often a training should save, and what share of its time is progress when machines fail: by formula and by
simulation.

Decides nothing about checkpoints but their rhythm; how large they are is `room`'s to say, how fast a step is `speed`'s.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

# "The Llama 3 Herd of Models" (arXiv 2407.21783), section 3.3.4: 419 unexpected interruptions in 54 days on 16,384
# H100.
FAILURES_PER_GPU_HOUR = 419 / (54 * 24 * 16_384)
# The same, section 3.3.1: its storage took 2 TB/s, sustained, from up to 16,384 GPUs, 2,048 nodes of eight.
DISK_GB_S_A_NODE = 2000 / 2048
SIZES = (128, 1024, 16_384)  # GPUs, for which the goodput is told beside that of the run
_RUNS, _SEED = 200, 1234
# Hours of training that are simulated: enough to meet failures, few enough for a plan that answers at once.
_LEAST_H, _MOST_H = 24.0, 720.0
_MOST_FAILURES = 100_000  # of all simulated runs together: a tenth of a second


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What saves and failures of a training take, in seconds. The training stands still for `stall_s` at each save;
    `write_s` after it began the checkpoint is whole (not less than the stall); `restart_s` after a failure it trains
    again, from the newest whole checkpoint; `mtbf_s` is the mean time between failures of all its GPUs together.
    """

    stall_s: float
    write_s: float
    restart_s: float
    mtbf_s: float

    @property
    def lag_s(self) -> float:
        """For how long after the training goes on a failure still costs the interval before the save as well."""
        return max(0.0, self.write_s - self.stall_s)


@dataclass(frozen=True, kw_only=True)
class Goodput:
    """Share of the time that is progress: the mean over the simulated runs, what nine in ten of them lie between, and
    failures a run.
    """

    mean: float
    low: float
    high: float
    failures: float


def mtbf_s(gpus: int, per_gpu_hour: float | None = None) -> float:
    """Seconds between failures of `gpus` GPUs, which each fail so often an hour; for ever where none does."""
    rate = FAILURES_PER_GPU_HOUR if per_gpu_hour is None else per_gpu_hour
    return 3600 / (rate * gpus) if rate > 0 else math.inf


def young(saving: Saving) -> float:
    """Seconds of training between two saves that lose least, to first order: sqrt(2 x stall x MTBF) (J. W. Young,
    "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974).
    """
    return math.sqrt(2 * saving.stall_s * saving.mtbf_s)


def daly(saving: Saving) -> float:
    """The same to higher order, equation 37 of J. T. Daly, "A higher order estimate of the optimum checkpoint interval
    for restart dumps", FGCS 22(3), 2006: good where saves take long beside the time between failures too.
    """
    stall, mtbf = saving.stall_s, saving.mtbf_s
    if stall >= 2 * mtbf:
        return mtbf
    if math.isinf(mtbf):
        return math.inf
    part = stall / (2 * mtbf)
    return math.sqrt(2 * stall * mtbf) * (1 + math.sqrt(part) / 3 + part / 9) - stall


def expected(saving: Saving, interval_s: float) -> float:
    """Daly's complete model (his equation 20): the share of the time that is progress, when failures come at random,
    also while the training restarts; and, which he has not, when a save is whole only some time after it began.
    """
    if math.isinf(saving.mtbf_s):
        return interval_s / (interval_s + saving.stall_s)
    mtbf = saving.mtbf_s
    cycle, before = (interval_s + saving.stall_s) / mtbf, (saving.restart_s + saving.lag_s) / mtbf
    if cycle + before > 700:  # beyond the range of exp: nothing is ever saved
        return 0.0
    return interval_s / (mtbf * math.exp(before) * math.expm1(cycle))


def simulate(saving: Saving, interval_s: float, *, work_s: float, runs: int = _RUNS, seed: int = _SEED) -> Goodput:
    """Runs of `work_s` of training each, with failures drawn at random from `seed`; a failure during a restart begins
    it again. Where failures are very many, fewer runs are made, and one that hardly gets on is cut short.
    """
    draw = random.Random(seed)
    shares: list[float] = []
    failures = 0
    while len(shares) < runs and failures < _MOST_FAILURES:
        share, met = _run(saving, interval_s, work_s, draw)
        shares.append(share)
        failures += met
    shares.sort()
    made = len(shares)
    tail = made // 20
    return Goodput(mean=sum(shares) / made, low=shares[tail], high=shares[made - 1 - tail], failures=failures / made)


def _run(saving: Saving, interval_s: float, work_s: float, draw: random.Random) -> tuple[float, int]:
    """(share of the time that was progress, failures) of one run of `work_s`."""
    if math.isinf(saving.mtbf_s):
        return expected(saving, interval_s), 0
    cycle, lag, rate = interval_s + saving.stall_s, saving.lag_s, 1 / saving.mtbf_s
    clock = done = start = 0.0  # `start`: what of the time to the next failure is no training
    for failures in range(_MOST_FAILURES):
        left = work_s - done
        takes = start + left + saving.stall_s * math.ceil(left / interval_s)  # to the end, its last save included
        until = draw.expovariate(rate)
        if until >= takes:
            return work_s / (clock + takes), failures
        clock += until
        whole = math.floor((until - start - lag) / cycle) if until > start + lag else 0
        done += whole * interval_s
        start = saving.restart_s
    return done / clock, _MOST_FAILURES


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """A rhythm of saves and what it makes of the time. `steps` is None where it is told in seconds alone."""

    gpus: int
    steps: int | None
    interval_s: float
    goodput: Goodput


def best_interval_s(saving: Saving) -> float:
    """Daly's, but one save has ended before the next begins."""
    return max(daly(saving), saving.write_s)


def best(saving: Saving, *, gpus: int, step_s: float, most_steps: int, hours: float) -> Rhythm:
    """The rhythm that loses least in a training of so many steps, which take so many hours."""
    wanted = best_interval_s(saving)
    least = max(1, math.ceil(saving.write_s / step_s))
    steps = most_steps if math.isinf(wanted) else min(most_steps, max(least, round(wanted / step_s)))
    return of(saving, gpus=gpus, interval_s=steps * step_s, hours=hours, steps=steps)


def of(saving: Saving, *, gpus: int, interval_s: float, hours: float, steps: int | None = None) -> Rhythm:
    """The rhythm of a save each `interval_s`, in a training of so many hours."""
    simulated = 3600 * min(max(hours, _LEAST_H), _MOST_H)
    if math.isinf(interval_s):
        interval_s = simulated
    found = simulate(saving, interval_s, work_s=simulated)
    return Rhythm(gpus=gpus, steps=steps, interval_s=interval_s, goodput=found)
