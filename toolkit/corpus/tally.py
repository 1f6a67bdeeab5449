"""Counts of a build, in and out, by source and rule, with examples: of one unit of input, and of all of them together.

Decides what is counted, and that the order in which units are counted changes nothing; `report` says it to people.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.corpus.document import BadRow, Document, Left
from toolkit.corpus.filters import Removed, precise
from toolkit.corpus.mend import Change
from toolkit.corpus.personal import masked

EXAMPLES = 5  # of each rule
DETAILS = 200  # different ones below a rule that are counted by name
_EXCERPT = 300
_NUMBERS = re.compile(r"(?<![A-Za-z]-)\d[\d,.]*\b")
_QUOTED = re.compile(r"'[^']{0,200}'|\"[^\"]{0,200}\"|<[^>]{0,200}>")
_OTHER = "(others)"


@dataclass(kw_only=True)
class Subset:
    """Counts of one source of the recipe; `inn` = `out` + the sum of `removed`.

    `copies` counts what is written, which upsampling makes more than `out`; `characters` and `bytes` (of UTF-8) are of
    that. `lengths` are of documents by their number of characters: under key k those of 2^k to 2^(k+1) - 1.
    """

    inn: int = 0
    train: int = 0
    valid: int = 0
    copies: int = 0
    characters: int = 0
    bytes: int = 0
    withdrawals: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    years: Counter[str] = field(default_factory=Counter)
    lengths: Counter[str] = field(default_factory=Counter)

    @property
    def out(self) -> int:
        return self.train + self.valid


@dataclass(kw_only=True)
class Tally:
    """What became of the documents; `merge` gives the same whatever the order, and memory is bounded.

    `details` counts below a rule: languages, licences, benchmarks, reasons. `examples` holds for each rule those
    `EXAMPLES` whose hashes are smallest, which are the same ones however the input was shared out.
    """

    subsets: dict[str, Subset] = field(default_factory=dict)
    details: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def read(self, subset: str, rows: int = 1) -> None:
        """Something came from a reader: call it once for every item, with the rows that the item stands for."""
        self._of(subset).inn += rows

    def bad(self, row: BadRow, subset: str) -> None:
        self._of(subset).removed["bad_row"] += 1
        self._detail("bad_row", reason(row.why), 1)
        place = f"{row.file}:{row.line}" if row.line else row.file
        self._example("bad_row", subset, place, row.why, row.sample)

    def leave(self, left: Left, subset: str) -> None:
        """What the reader itself left out."""
        self._of(subset).removed[left.rule] += left.count
        if left.sample:
            self._example(left.rule, subset, left.id, "", left.sample)

    def remove(self, removed: Removed, doc: Document) -> None:
        self._of(doc.subset).removed[removed.rule] += 1
        if removed.detail:
            self._detail(removed.rule, removed.detail, 1)
        self._example(removed.rule, doc.subset, doc.id, removed.why, removed.sample or doc.text, doc.title)

    def changed(self, doc: Document, changes: Iterable[Change]) -> None:
        for change in changes:
            self._of(doc.subset).changed[change.rule] += 1
            self._example(change.rule, doc.subset, doc.id, "", change.sample, doc.title)

    def marked(self, benchmark: str, doc: Document, why: str = "", sample: str = "") -> None:
        """A document that holds an item of a benchmark and stays, marked."""
        self._of(doc.subset).marked[benchmark] += 1
        self._example("marked", doc.subset, doc.id, why, sample or doc.text, doc.title)

    def withdrawal(self, subset: str) -> None:
        self._of(subset).withdrawals += 1

    def keep(self, doc: Document, part: str, copies: int = 1) -> None:
        """A document that is written, `copies` times, to `part`: train or valid."""
        counts = self._of(doc.subset)
        if part == "valid":
            counts.valid += 1
        else:
            counts.train += 1
        counts.copies += copies
        counts.characters += len(doc.text) * copies
        counts.bytes += len(doc.text.encode("utf-8", "surrogatepass")) * copies
        counts.licences[doc.license] += 1
        counts.years[precise(doc.date)[:4]] += 1
        counts.lengths[str(max(0, len(doc.text).bit_length() - 1))] += 1

    def merge(self, other: Tally) -> None:
        for name, theirs in other.subsets.items():
            mine = self._of(name)
            for key, value in vars(theirs).items():
                if isinstance(value, Counter):
                    getattr(mine, key).update(value)
                else:
                    setattr(mine, key, getattr(mine, key) + value)
        for rule, counts in other.details.items():
            for detail, number in counts.items():
                self._detail(rule, detail, number)
        for rule, examples in other.examples.items():
            self.examples[rule] = _smallest([*self.examples.get(rule, []), *examples])

    @property
    def lost(self) -> int:
        """In less out less removed, over all: anything but 0 is a defect of the toolkit."""
        return sum(each.inn - each.out - each.removed.total() for each in self.subsets.values())

    def total(self, name: str) -> int:
        """The sum of a number (`inn`, `out`, `train`, ...) over all sources."""
        return sum(getattr(each, name) for each in self.subsets.values())

    def counted(self, name: str) -> Counter[str]:
        """The sum of a counter (`removed`, `licences`, ...) over all sources."""
        return sum((getattr(each, name) for each in self.subsets.values()), Counter())

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it, sorted; `from_dict` gives the same tally again."""
        return {
            "subsets": {name: _plain(vars(each)) for name, each in sorted(self.subsets.items())},
            "details": {rule: dict(sorted(counts.items())) for rule, counts in sorted(self.details.items())},
            "examples": {rule: list(examples) for rule, examples in sorted(self.examples.items())},
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Tally:
        subsets = {
            name: Subset(**{key: Counter(value) if isinstance(value, dict) else value for key, value in each.items()})
            for name, each in given["subsets"].items()
        }
        details = {rule: Counter(counts) for rule, counts in given["details"].items()}
        return cls(subsets=subsets, details=details, examples={rule: list(e) for rule, e in given["examples"].items()})

    def _of(self, subset: str) -> Subset:
        found = self.subsets.get(subset)
        if found is None:
            found = self.subsets[subset] = Subset()
        return found

    def _detail(self, rule: str, detail: str, number: int) -> None:
        """Beyond `DETAILS` names those with the smallest hashes keep theirs: their counts are whole in every order."""
        counts = self.details.setdefault(rule, Counter())
        counts[detail[:_EXCERPT]] += number
        named = [name for name in counts if name != _OTHER]
        if len(named) > DETAILS:
            last = max(named, key=lambda name: _hash(rule, name))
            counts[_OTHER] += counts.pop(last)

    def _example(self, rule: str, subset: str, name: str, why: str, sample: str, title: str = "") -> None:
        held = self.examples.setdefault(rule, [])
        name = name[:_EXCERPT]
        key = _hash(rule, subset, name, why[:_EXCERPT])
        if len(held) >= EXAMPLES and key > held[-1]["key"]:
            return
        cut = {"id": name, "title": title, "why": why, "text": sample}
        entry = {"key": key, "subset": subset, **{field: masked(value[:_EXCERPT]) for field, value in cut.items()}}
        self.examples[rule] = _smallest([*held, entry])


def reason(why: str) -> str:
    """What a row is bad for without what is of that row alone, so that equal causes are counted together."""
    return _NUMBERS.sub("N", _QUOTED.sub("…", why)).partition(": ")[0][:100]


def _smallest(examples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    by_key = {(e["key"], e["text"], e["title"]): e for e in examples}
    return [by_key[key] for key in heapq.nsmallest(EXAMPLES, by_key)]


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _plain(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dict(sorted(value.items())) if isinstance(value, Counter) else value for key, value in counts.items()}
