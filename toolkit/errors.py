"""The errors a user can cause, one class per cause, each with its exit code; anything else is a defect.

Decides how an error reads (what, where, why, what to do); leaves to the verbs how it is shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_NAMES = 30


class ToolkitError(Exception):
    """One paragraph for the user: what happened, where, why, and what to do about it."""

    exit_code = 1

    def __init__(self, what: str, *, where: object = "", why: str = "", do: str = "") -> None:
        self.what, self.where, self.why, self.do = what, str(where), why, do
        super().__init__(what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        parts = [
            part if part.endswith(("?", "!")) else part.rstrip(". ") + "." for part in (head, self.why, self.do) if part
        ]
        return " ".join(_sentence(part) if i else part for i, part in enumerate(parts))

    def as_dict(self) -> dict[str, object]:
        fields = {name: getattr(self, name) for name in ("what", "where", "why", "do")}
        return {"error": type(self).__name__, **fields, "exit_code": self.exit_code}


class UsageError(ToolkitError):
    """A command line that cannot be understood."""

    exit_code = 2


class RecipeError(ToolkitError):
    """A recipe with an unknown key, a wrong type or an impossible combination."""

    exit_code = 2


class PlanRefused(ToolkitError):
    """The plan shows that the run cannot work as asked."""

    exit_code = 3


class ImageError(ToolkitError):
    """An image that is missing, damaged or another than was asked for, or that could not be built."""

    exit_code = 3


class PreflightFailed(ToolkitError):
    """A node or its fabric is not fit for the job."""

    exit_code = 4


class GateFailed(ToolkitError):
    """Scores got worse than the gate allows."""

    exit_code = 5


class DataError(ToolkitError):
    """Input text, a benchmark file or a tokenizer that is missing, empty, damaged or of the wrong form."""


class ShardError(ToolkitError):
    """A `.bin/.idx` pair that is missing, truncated or inconsistent."""


class CheckpointError(ToolkitError):
    """A checkpoint or HF model that is missing, incomplete or of another shape."""


class FileRefused(ToolkitError):
    """The system does not let a file or folder be read, written or made: its rights, its name, what is in its place."""


class DiskFull(ToolkitError):
    """The file system has no room; nothing half written was left in place."""


class RunBusy(ToolkitError):
    """Another process works on this run."""


class RunError(ToolkitError):
    """A run folder that is missing or damaged."""


class Stopped(ToolkitError):
    """Asked to stop; what was done is saved, and the same command goes on from there. No failure (EX_TEMPFAIL)."""

    exit_code = 75


class RolledBack(ToolkitError):
    """The loss has jumped: the training is to be started again, from before that, and leaves the batches out."""

    exit_code = 76


class Diverged(ToolkitError):
    """Loss or gradients are no numbers any more, or the loss keeps jumping: going on would waste the machine."""


class StageFailed(ToolkitError):
    """A stage's job ended without its results."""


class ServerError(ToolkitError):
    """A server that cannot be reached, stopped answering, or answers what is no answer."""


class MissingPackage(ToolkitError):
    """A package of an extra is not installed where it is needed."""


def _sentence(text: str) -> str:
    """With a capital, unless it begins with something to type, such as key=value."""
    return text[:1].upper() + text[1:] if text.split()[0].rstrip(",:;").isalpha() else text


def nearest(name: str, valid: Iterable[str]) -> str:
    """The hint for a misspelt name: the nearest valid one, or all of them when none is near and they are few."""
    names = sorted(set(valid))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"valid: {', '.join(names)}" if 0 < len(names) <= _MOST_NAMES else ""
