"""What this place has against the pins, what of it is broken, and which options of a recipe that rules out.

Decides what is looked at on which kind of place; a fault is told with its remedy, and nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolkit import pins
from toolkit.doctor import apptainer, engine, machine, packages, slurm
from toolkit.doctor.asking import LIMIT_S, ask
from toolkit.doctor.finding import Finding, Option
from toolkit.doctor.options import options
from toolkit.doctor.profiles import CUDA, PROFILES, Place, place, wanted

__all__ = ["CUDA", "PROFILES", "Finding", "Option", "Place", "Report", "diagnose"]
_ENDS_OTHERS = ("megatron-core", "nemo-toolkit", "nvidia-modelopt", "nvidia-resiliency-ext", "peft")
"""They import the kernels' packages wherever these are found."""


@dataclass(frozen=True, kw_only=True)
class Report:
    place: Place
    findings: tuple[Finding, ...]
    options: tuple[Option, ...]

    @property
    def ok(self) -> bool:
        return not any(finding.state == "fault" for finding in self.findings)


def diagnose(
    profile: str = "auto",
    *,
    without: frozenset[str] = frozenset(),
    runs: Path = Path("runs"),
    limit_s: float = LIMIT_S,
    told: Callable[[str], None] = lambda question: None,
) -> Report:
    """Look at everything that belongs to the profile. `told` hears what is being asked, before it is.

    Whatever is heavy is imported by processes of their own, each question within `limit_s`.
    """
    where = place(profile, without=without, env=os.environ)
    table = pins.table()
    found = [machine.python(where, table)]
    if where.profile != "login":
        found.append(machine.shared_memory())
    if where.profile == "login" or (profile == "auto" and not where.image):
        found += _host(runs, told)
    found += _packages(where, table, limit_s, told)
    if where.profile != "login":
        by_name = {finding.key: finding for finding in found}
        found += engine.look(where, table, by_name, limit_s=limit_s, told=told)
    return Report(place=where, findings=tuple(found), options=tuple(options(where, found)))


def _host(runs: Path, told: Callable[[str], None]) -> list[Finding]:
    told("the machine")
    found = [
        machine.memlock(),
        machine.folder(runs.expanduser().absolute(), "runs", "the folder of runs"),
        machine.folder(machine.scratch(), "scratch", "scratch (TMPDIR)"),
    ]
    told("Slurm")
    found += slurm.look()
    told("Apptainer")
    return found + apptainer.look()


def _packages(where: Place, table: pins.Pins, limit_s: float, told: Callable[[str], None]) -> list[Finding]:
    """Those with kernels first: what they do on import happens again to everything that imports them."""
    wants = wanted(where, table)
    there = [want.name for want in wants if packages.present(want.name)]
    first = [name for name in there if name in packages.KERNELS and not packages.impostor(name)]
    answers = _import(first, limit_s, told)
    spoilt = {name for name, answer in answers.items() if answer.ending in ("died", "hung")}
    rest = [name for name in there if name not in first and not (spoilt and name in _ENDS_OTHERS)]
    answers |= _import([name for name in rest if not packages.impostor(name)], limit_s, told)
    findings = [packages.finding(want, answers.get(want.name)) for want in wants]
    return sorted(findings, key=lambda finding: finding.key not in packages.KERNELS)


def _import(names: list[str], limit_s: float, told: Callable[[str], None]) -> dict[str, packages.Answer]:
    asked = {f"import {packages.module_of(name)}": name for name in names}
    answers = ask(list(asked), limit_s=limit_s, told=told) if asked else {}
    return {asked[question]: answer for question, answer in answers.items()}
