"""Counts of a build, in and out, by rule, subset and licence, with a few examples of each.

Decides what the report says; its memory does not grow with the input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.corpus.document import BadRow, Document

EXAMPLES = 5
LISTED_ROWS = 1000
_EXCERPT = 160

# What each rule removes, in the order in which they are asked.
RULES = {
    "bad_row": "could not be read: not JSON, not XML, not UTF-8, no text, truncated",
    "empty": "holds no text",
    "licence": "forbids commercial use or derived works, and neither was allowed",
}


@dataclass
class Tally:
    """`read` = `kept` + the sum of `removed`."""

    read: int = 0
    characters: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    subsets: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {rule: [] for rule in RULES})
    bad_rows: list[dict[str, Any]] = field(default_factory=list)

    def _subset(self, name: str) -> Counter[str]:
        return self.subsets.setdefault(name, Counter())

    def bad(self, row: BadRow, subset: str) -> None:
        self.read += 1
        self._subset(subset).update(("in", "bad_row"))
        self.removed["bad_row"] += 1
        entry = {"file": row.file, "line": row.line, "why": row.why}
        if len(self.bad_rows) < LISTED_ROWS:
            self.bad_rows.append(entry)
        if len(self.examples["bad_row"]) < EXAMPLES:
            self.examples["bad_row"].append({**entry, "text": row.sample})

    def remove(self, rule: str, doc: Document) -> None:
        self.read += 1
        self._subset(doc.subset).update(("in", rule))
        self.removed[rule] += 1
        if len(self.examples[rule]) < EXAMPLES:
            about = {"id": doc.id, "title": doc.title, "license": doc.license, "file": doc.meta.get("file", "")}
            self.examples[rule].append({**about, "text": doc.text[:_EXCERPT]})

    def keep(self, doc: Document, part: str) -> None:
        self.read += 1
        self.characters += len(doc.text)
        counts = self._subset(doc.subset)
        counts.update(("in", "out", part))
        counts["characters"] += len(doc.text)
        self.licences[doc.license] += 1

    def move(self, subset: str, old: str, new: str) -> None:
        counts = self._subset(subset)
        counts[old] -= 1
        counts[new] += 1

    def merge(self, later: Tally) -> None:
        """Add what was counted after this; the same as if one tally had counted both."""
        self.read += later.read
        self.characters += later.characters
        self.removed.update(later.removed)
        self.licences.update(later.licences)
        for name, counts in later.subsets.items():
            self._subset(name).update(counts)
        for rule, examples in later.examples.items():
            self.examples[rule] = [*self.examples[rule], *examples][:EXAMPLES]
        self.bad_rows = [*self.bad_rows, *later.bad_rows][:LISTED_ROWS]

    def as_state(self) -> dict[str, Any]:
        """All of it as JSON takes it, in the order in which it was met; `from_state` gives the same tally again."""
        subsets = {name: dict(counts) for name, counts in self.subsets.items()}
        same = {name: getattr(self, name) for name in ("read", "characters", "examples", "bad_rows")}
        return {**same, "removed": dict(self.removed), "licences": dict(self.licences), "subsets": subsets}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Tally:
        counters = {name: Counter(state[name]) for name in ("removed", "licences")}
        subsets = {name: Counter(counts) for name, counts in state["subsets"].items()}
        same = {name: state[name] for name in ("read", "characters", "examples", "bad_rows")}
        return cls(**same, **counters, subsets=subsets)

    @property
    def kept(self) -> int:
        return self.read - self.removed.total()

    def part(self, name: str) -> int:
        return sum(counts[name] for counts in self.subsets.values())

    def as_dict(self) -> Mapping[str, Any]:
        columns = ("in", "out", "train", "valid", "characters", *RULES)
        return {
            "in": self.read,
            "out": self.kept,
            "train": self.part("train"),
            "valid": self.part("valid"),
            "characters": self.characters,
            "rules": [
                {"rule": rule, "removed": self.removed[rule], "meaning": meaning, "examples": self.examples[rule]}
                for rule, meaning in RULES.items()
            ],
            "licences": dict(self.licences.most_common()),
            "unknown_licence": self.licences["unknown"],
            "subsets": {name: {c: counts[c] for c in columns} for name, counts in sorted(self.subsets.items())},
            "set_aside": self.removed["bad_row"],
            "set_aside_rows": self.bad_rows,
            "set_aside_rows_listed": len(self.bad_rows),
        }
