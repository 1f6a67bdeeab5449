"""Which file or folder holds a split of a benchmark, of what a user named. Leaves what is in it to `rows`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import DataError

if TYPE_CHECKING:
    from toolkit.scoring.benchmarks import Benchmark


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the rows of one split are: `path` is the file itself or the folder in which `names` are looked for."""

    spec: Benchmark
    path: Path
    names: tuple[str, ...]
    split: str = "test"
    seed: int = 0
    compat: bool = False

    def file(self) -> Path:
        if not self.path.is_dir():
            return self.path
        for name in self.names:
            if (self.path / name).is_file():
                return self.path / name
        raise self.missing()

    def groups(self) -> tuple[str, ...]:
        """The groups whose files are read; in `compat`, demonstrations come from more than are scored."""
        if self.split != "test" and self.compat:
            from toolkit.scoring import paper_compat

            return paper_compat.groups(self.spec)
        return tuple(self.spec.groups)

    def missing(self) -> DataError:
        looked = ", ".join(self.names[:6]) or "no known file name"
        what = "file" if self.split == "test" else f"{self.split} file"
        do = "" if self.split == "test" else "give --train, or score without demonstrations"
        name = self.spec.name
        return DataError(
            f"the folder has no {what} of benchmark '{name}'", where=self.path, why=f"looked for: {looked}", do=do
        )


def find(spec: Benchmark, path: Path, *, split: str, given: bool, seed: int, compat: bool) -> Source:
    """Where `split` of `spec` is, of what a user named: `path`, which for training splits may be the scored one's file
    or folder (unless it was `given` for them). Raises DataError for a benchmark that has no such split.
    """
    names, own = _names(spec, split), spec.format == "truthfulqa"
    if split != "test" and not given and not own:
        if not names:
            do = "give --train NAME=PATH, or score without demonstrations"
            raise DataError(f"the file of benchmark '{spec.name}' names no {split} files", where=path, do=do)
        base = path if path.is_dir() else path.parent
        if not _found(spec, base, names) and _found(spec, base.parent, names):
            base = base.parent  # splits in folders side by side
        path = base
    return Source(spec=spec, path=path, names=names, split=split, seed=seed, compat=compat)


def _names(spec: Benchmark, split: str) -> tuple[str, ...]:
    """The original files' names, then the hub's."""
    if spec.format == "truthfulqa":
        split = "test"  # one file has it all
    places = (spec, spec.hub) if spec.hub else (spec,)
    if split == "test":
        return tuple(name for place in places for name in place.files)
    own = [place.demonstrations if split == "demonstrations" else () for place in places]
    return tuple(name for place, first in zip(places, own, strict=True) for name in first or place.train)


def _found(spec: Benchmark, folder: Path, names: tuple[str, ...]) -> bool:
    groups = tuple(spec.groups) or ("",)
    return any((folder / name.replace("{group}", group)).is_file() for name in names for group in groups)
