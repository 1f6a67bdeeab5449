"""Which of the checkpoints that were found are scored tonight, and why the others are not.

Decides by the history alone: what has scores for what is asked, what has been tried too often, what must wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.night.history import History, Scored, Tries


@dataclass(frozen=True, kw_only=True)
class Found:
    """A checkpoint of a watched training. `bad` says why it cannot be scored, '' when it can."""

    series: str
    path: Path
    step: int
    fingerprint: str
    bad: str = ""

    @property
    def name(self) -> str:
        return f"step={self.step}"  # its folder's name may change when the next one is saved


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a night does. `skipped` are tried again; `given_up` are not, unless their files change; `waiting` are left
    for the next night.
    """

    due: tuple[Found, ...]
    skipped: tuple[tuple[Found, str], ...]
    given_up: tuple[tuple[Found, str], ...]
    waiting: tuple[Found, ...]


def choose(found: Sequence[Found], history: History, *, asked: str, tries: int, most: int) -> Choice:
    """At most `most` checkpoints without scores for `asked`, the newest of every training first, in order of steps.

    Counts a try of each that is bad, in the history; those that are due count when their job begins. A checkpoint older
    than the last good one is due only where it has no scores at all: it is for the trend, not for the gate.
    """
    due: list[Found] = []
    skipped: list[tuple[Found, str]] = []
    given_up: list[tuple[Found, str]] = []
    for series in dict.fromkeys(one.series for one in found):
        known, tried = {one.name: one for one in history.scored(series)}, history.tries(series)
        good = history.good(series)
        for one in (one for one in found if one.series == series):
            if not _wanted(one, known.get(one.name), asked, good.step if good else None):
                continue
            before = tried.get(one.name)
            number = before.number if before and before.fingerprint == one.fingerprint else 0
            reason = one.bad or (before.reason if before and number else "")
            if number >= tries:
                given_up.append((one, reason))
            elif one.bad:
                _count(history, one, number + 1, one.bad)
                skipped.append((one, f"{one.bad} (try {number + 1} of {tries})"))
            else:
                due.append(one)
    chosen = _newest_first(due)[:most]
    order = {(one.series, one.path): place for place, one in enumerate(due)}
    return Choice(
        due=tuple(sorted(chosen, key=lambda one: (one.series, one.step, order[one.series, one.path]))),
        skipped=tuple(skipped),
        given_up=tuple(given_up),
        waiting=tuple(one for one in due if one not in chosen),
    )


def _wanted(one: Found, known: Scored | None, asked: str, good: int | None) -> bool:
    if known is None or known.fingerprint != one.fingerprint:
        return True
    return known.asked != asked and (good is None or one.step >= good)


def _newest_first(due: Sequence[Found]) -> list[Found]:
    """The newest of every training, then the second newest of every training, and so on."""
    by_series: dict[str, list[Found]] = {}
    for one in sorted(due, key=lambda one: one.step, reverse=True):
        by_series.setdefault(one.series, []).append(one)
    ranks = [(rank, series, one) for series, ones in by_series.items() for rank, one in enumerate(ones)]
    return [one for _, _, one in sorted(ranks, key=lambda item: item[:2])]


def _count(history: History, one: Found, number: int, reason: str) -> None:
    told = Tries(number=number, reason=reason, fingerprint=one.fingerprint, path=str(one.path), step=one.step)
    history.tried(one.series, one.name, told)
