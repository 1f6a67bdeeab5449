"""What one look found: a line of the doctor's table. Decides the states; what is looked at is the others'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "warn", "fault", "absent"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`key` is what options and programs know it by, such as torch; `remedy` is one line, empty where nothing is wrong.

    absent: not there, and nothing here asks for it. warn: works, and may not for everything.
    """

    section: str
    key: str
    what: str
    found: str
    wanted: str = ""
    state: State = "ok"
    remedy: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Option:
    """Whether a recipe may say `name` here. `enabled` None: this place cannot tell."""

    name: str
    enabled: bool | None
    why: str
