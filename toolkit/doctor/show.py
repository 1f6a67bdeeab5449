"""The doctor's words for people and programs: a table, a line for each fault, the options. Keeps secrets out."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.doctor.finding import Finding, Option
from toolkit.doctor.profiles import Place

_COLUMNS = ("what", "found", "wanted", "state")
_SECRET = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(\w+://)[^/\s:@]+(?::[^/\s@]*)?@")
_SHORT = 6  # a secret of fewer characters is a word that would be struck out everywhere
_WIDEST = 60
_GO = {True: "yes", False: "no", None: "-"}


def as_dict(where: Place, findings: Sequence[Finding], options: Sequence[Option]) -> dict[str, Any]:
    return _clean(
        {
            "profile": where.profile,
            "why": where.why,
            "image": where.image,
            "without": sorted(where.without),
            "ok": not any(f.state == "fault" for f in findings),
            "faults": sum(f.state == "fault" for f in findings),
            "warnings": sum(f.state == "warn" for f in findings),
            "findings": [dataclasses.asdict(f) for f in findings],
            "options": [dataclasses.asdict(option) for option in options],
        }
    )


def text(where: Place, findings: Sequence[Finding], options: Sequence[Option]) -> str:
    lines = [f"{where.profile}: {where.why}{''.join(f', without {name}' for name in sorted(where.without))}", ""]
    shown = [[_line(cell) for cell in (f.what, f.found, f.wanted, f.state)] for f in findings]
    widths = [min(_WIDEST, max(len(row[n]) for row in [list(_COLUMNS), *shown])) for n in range(len(_COLUMNS))]
    section = ""
    lines.append(_row(_COLUMNS, widths))
    for finding, row in zip(findings, shown, strict=True):
        if finding.section != section:
            section = finding.section
            lines.append(f"-- {section}")
        lines.append(_row(row, widths))
    for state, title in (("fault", "Faults:"), ("warn", "Warnings:")):
        which = [f for f in findings if f.state == state]
        lines += ["", title, *(f"  {f.what}: {_line(f.remedy or f.found)}" for f in which)] if which else []
    if options:
        lines += ["", "Options of a recipe here:", *_options(options)]
    faults = sum(f.state == "fault" for f in findings)
    lines += ["", "no fault found" if not faults else f"{faults} fault{'s' if faults > 1 else ''} found"]
    return _clean("\n".join(lines))


def _options(options: Sequence[Option]) -> list[str]:
    """A line each; those that cannot be told for one and the same reason share one."""
    told = [option for option in options if option.enabled is not None]
    wide = max((len(option.name) for option in told), default=0)
    lines = [f"  {_GO[o.enabled]:3}  {o.name.ljust(wide)}  {_line(o.why)}" for o in told]
    open_ = [option for option in options if option.enabled is None]
    for why in dict.fromkeys(option.why for option in open_):
        lines.append(f"  {_GO[None]:3}  {', '.join(o.name for o in open_ if o.why == why)}: {_line(why)}")
    return lines


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _line(text: str) -> str:
    """One line that steers no terminal: what a broken package says of itself may hold anything."""
    return "".join(c if c.isprintable() else " " for c in text)


def _clean(value: Any, secrets: Sequence[str] | None = None) -> Any:
    """The same with the environment's secrets, and users and passwords of addresses, struck out of every text."""
    secrets = _secrets(os.environ) if secrets is None else secrets
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "***")
        return _IN_ADDRESS.sub(r"\1***@", value)
    if isinstance(value, Mapping):
        return {key: _clean(one, secrets) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(one, secrets) for one in value]
    return value


def _secrets(env: Mapping[str, str]) -> list[str]:
    found = {value for name, value in env.items() if _SECRET.search(name) and len(value) >= _SHORT and value[0] != "/"}
    return sorted(found, key=len, reverse=True)
