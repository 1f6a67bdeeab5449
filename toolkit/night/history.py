"""The history folder: scores of every checkpoint, the last good one of each training, tries, records of nights.

Decides where what is kept, and that everything appears whole or not at all; a damaged file counts as one that is not
there. Nights do not overlap, and the parts of one write different files: no file has two writers.

    series/<training>/<checkpoint>/scores.json, predictions.jsonl, checkpoint.json, verdict.json
    series/<training>/good.json, tries/<checkpoint>.json, page.html, trend.json      nights/<night>.json    index.html
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import files

CHECKPOINT, VERDICT = "checkpoint.json", "verdict.json"
SCORES, PREDICTIONS = "scores.json", "predictions.jsonl"
_NAME = re.compile(r"[A-Za-z0-9_][\w.=-]*")
_LATEST = 4e9  # of seconds since 1970: what lies beyond is damage


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A checkpoint with scores. `asked` is the digest of what it was scored on, `fingerprint` of its files then."""

    series: str
    name: str
    folder: Path
    path: str
    step: int
    fingerprint: str
    asked: str
    night: str
    at: float
    verdict: Mapping[str, Any] | None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What scores.json says; nothing where it is damaged."""
        told = _read(self.folder / SCORES, list)
        return [row for row in told or () if isinstance(row, dict)]


@dataclass(frozen=True, kw_only=True)
class Tries:
    """How many nights have tried a checkpoint (its files being those of `fingerprint`), and why the last could not."""

    number: int
    reason: str
    fingerprint: str
    path: str
    step: int
    night: str = ""


class History:
    """One history folder. Raises `DiskFull` where it writes, and `OSError` for a folder that cannot be written."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def series(self) -> list[str]:
        """Trainings that anything is known of, by name."""
        root = self.folder / "series"
        found = root.iterdir() if root.is_dir() else ()
        return sorted(path.name for path in found if _NAME.fullmatch(path.name) and path.is_dir())

    def place(self, series: str) -> Path:
        return self.folder / "series" / _checked(series)

    def scored(self, series: str) -> list[Scored]:
        """Its checkpoints with scores, by step."""
        root = self.place(series)
        folders = [path for path in (root.iterdir() if root.is_dir() else ()) if _NAME.fullmatch(path.name)]
        found = [self._scored(series, path) for path in folders if path.is_dir()]
        return sorted((one for one in found if one is not None), key=lambda one: (one.step, one.at, one.name))

    def _scored(self, series: str, folder: Path) -> Scored | None:
        told = _read(folder / CHECKPOINT, dict)
        if told is None or not (folder / SCORES).is_file() or told.get("sizes", _sizes(folder)) != _sizes(folder):
            return None
        texts = {key: told.get(key) for key in ("path", "fingerprint", "asked", "night")}
        step, at = told.get("step"), told.get("at")
        if not all(isinstance(value, str) for value in texts.values()) or not isinstance(step, int):
            return None
        verdict, at = _read(folder / VERDICT, dict), _number(at)
        return Scored(series=series, name=folder.name, folder=folder, step=step, at=at, verdict=verdict, **texts)

    def keep(self, series: str, name: str, scores: Path, *, facts: Mapping[str, Any]) -> Path:
        """Take the two files of a folder of scores in, as those of checkpoint `name`; what was known of it is replaced.

        `facts`: path, step, fingerprint, asked, night.
        """
        target = self.place(series) / _checked(name)
        with files.atomic_folder(target) as part:
            for file in (SCORES, PREDICTIONS):
                shutil.copyfile(scores / file, part / file)
            files.write_json(part / CHECKPOINT, {**facts, "at": time.time(), "sizes": _sizes(part)})
        self._tries(series, name).unlink(missing_ok=True)
        return target

    def judge(self, one: Scored, verdict: Mapping[str, Any]) -> None:
        files.write_json(one.folder / VERDICT, verdict)

    def good(self, series: str) -> Scored | None:
        """The checkpoint that the next night is compared with: the newest of the last night that was good. Where that
        is lost, the newest that was found good before.
        """
        told = _read(self.place(series) / "good.json", dict) or {}
        name = told.get("name")
        named = isinstance(name, str) and _NAME.fullmatch(name)
        if named and (one := self._scored(series, self.place(series) / name)) is not None:
            return one
        passed = [one for one in self.scored(series) if one.verdict and one.verdict.get("state") in ("good", "first")]
        return passed[-1] if passed else None

    def set_good(self, one: Scored) -> None:
        files.write_json(self.place(one.series) / "good.json", {"name": one.name, "step": one.step, "night": one.night})

    def tries(self, series: str) -> dict[str, Tries]:
        """By checkpoint name, those that have been tried and have no scores."""
        found = {}
        for path in sorted((self.place(series) / "tries").glob("*.json")):
            told = _read(path, dict) or {}
            number, step = told.get("number"), told.get("step")
            if isinstance(number, int) and isinstance(step, int):
                found[path.stem] = Tries(
                    number=number,
                    reason=str(told.get("reason", ""))[:2000],
                    fingerprint=str(told.get("fingerprint", "")),
                    path=str(told.get("path", "")),
                    step=step,
                    night=str(told.get("night", "")),
                )
        return found

    def tried(self, series: str, name: str, tries: Tries) -> None:
        files.write_json(self._tries(series, name), dataclasses.asdict(tries))

    def started(self, series: str, name: str, *, night: str, fingerprint: str, path: str, step: int) -> None:
        """Count a try of this night, once: its job may be started again."""
        before = self.tries(series).get(name)
        number = before.number if before and before.fingerprint == fingerprint else 0
        if before and before.night == night and number:
            return
        reason, facts = "its job ended without a word", {"fingerprint": fingerprint, "path": path, "step": step}
        self.tried(series, name, Tries(number=number + 1, reason=reason, night=night, **facts))

    def failed(self, series: str, name: str, reason: str) -> None:
        """The reason of a try that has been counted already."""
        told = _read(self._tries(series, name), dict)
        if told is not None:
            files.write_json(self._tries(series, name), {**told, "reason": reason})

    def _tries(self, series: str, name: str) -> Path:
        return self.place(series) / "tries" / f"{_checked(name)}.json"

    def tonight(self) -> dict[str, Any] | None:
        """The night that began last: its run's folder, when it began."""
        return _read(self.folder / "tonight.json", dict)

    def begin(self, run: Path) -> None:
        files.write_json(self.folder / "tonight.json", {"run": str(run), "began": time.time()})

    def over(self) -> None:
        """No night is at work, and there is nothing left to say of the one that began last."""
        (self.folder / "tonight.json").unlink(missing_ok=True)

    def recorded(self, night: object) -> bool:
        """Whether a night has come to its end: people have been told what it found."""
        named = isinstance(night, str) and _NAME.fullmatch(night)
        return bool(named) and _read(self.folder / "nights" / f"{night}.json", dict) is not None

    def nights(self) -> list[dict[str, Any]]:
        """What each night left, the oldest first."""
        found = [_read(path, dict) for path in (self.folder / "nights").glob("*.json")]
        return sorted((one for one in found if one), key=lambda one: (_number(one.get("began")), str(one.get("night"))))

    def record(self, night: str, told: Mapping[str, Any]) -> Path:
        path = self.folder / "nights" / f"{_checked(night)}.json"
        files.write_json(path, {"night": night, **told})
        return path


def _checked(name: str) -> str:
    """Names become folders: one that leads elsewhere is a defect of the caller."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of this history")
    return name


def _read(path: Path, kind: type) -> Any:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        value = files.read_json(path)
        return value if isinstance(value, kind) else None
    return None


def _number(value: Any) -> float:
    """Seconds since 1970, 0 for what is none."""
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LATEST
    return float(value) if fine else 0.0


def _sizes(folder: Path) -> dict[str, int]:
    """Of the files of scores, in bytes: one that is cut short or lost is told without reading it."""
    return {name: (folder / name).stat().st_size for name in (SCORES, PREDICTIONS) if (folder / name).is_file()}
