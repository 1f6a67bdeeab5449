"""Finds the questions of benchmarks in texts: by runs of words, then by how much of a question stands there.

Decides when a text contains a question; leaves to others what then becomes of the text.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np

from toolkit.cleaning import Decontamination
from toolkit.corpus import phrases, questions, words

_FEW = 12  # words that must be aligned, or 4/5 of a question of fewer than 15: eight in a row are soon a phrase
_NEAR = 4  # words at most between a short question and an option that is said to belong to it: "Answer: B)"
_MOST = 100  # questions reported of one text: it is a copy of the benchmark
# Words that say nothing of what is asked; a question is not there when little else of it is.
_EXAMINERS = frozenset(
    word
    for line in (
        "a about all an and are as at be been best by can cause characterized common correct describes does due except",
        "false following for from has have he her his in incorrect is it its least likely management man most next not",
        "of old on one or patient presents regarding she shows statement statements step that the these this to",
        "treatment true was what when which with woman would year",
    )
    for word in line.split()
)
_PLACES = 3  # where in a text one question is looked at closely, at most


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A question of a benchmark that a text contains: `share` of its words, at `start` to `end` of what was searched
    (title, line end and text, where a title is given).
    """

    benchmark: str
    item: str
    share: float
    start: int
    end: int
    sample: str


@dataclass(frozen=True, kw_only=True)
class _Item:
    """Questions of the same words, in whichever benchmarks."""

    text: str
    owners: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    """The questions to look for. `skipped` is benchmark -> questions of a single word, which cannot be looked for."""

    names: tuple[str, ...]
    skipped: Mapping[str, int]
    rules: Decontamination
    _items: Sequence[_Item]
    _tables: Sequence[tuple[bool, phrases.Table]]

    @classmethod
    def load(cls, paths: Mapping[str, Path], rules: Decontamination) -> Benchmarks:
        """Benchmarks by name, each a file or folder in one of the formats of `questions.read`.

        Raises `DataError` for a file that is missing, empty, damaged or of another form.
        """
        given = {name: questions.read(Path(path), contexts=rules.contexts) for name, path in paths.items()}
        return cls.of(given, rules)

    @classmethod
    def of(cls, given: Mapping[str, Sequence[questions.Question]], rules: Decontamination) -> Benchmarks:
        """Of questions as they are."""
        merged: dict[bytes, list[tuple[str, questions.Question]]] = {}
        hashed: dict[bytes, np.ndarray] = {}
        skipped: Counter[str] = Counter()
        for name, items in given.items():
            for item in items:
                found = words.hashes(item.text)
                if len(found) < 2:
                    skipped[name] += 1
                    continue
                merged.setdefault(found.tobytes(), []).append((name, item))
                hashed[found.tobytes()] = found
        items = [
            _Item(
                text=same[0][1].text,
                owners=tuple(dict.fromkeys((name, item.id) for name, item in same)),
                options=tuple(dict.fromkeys(_words(option) for _, item in same for option in item.options)),
            )
            for same in merged.values()
        ]
        asking = [sum(word not in _EXAMINERS for word in _words(item.text)) > 1 for item in items]
        tables = list(phrases.tables(list(hashed.values()), asking, rules.ngram))
        return cls(names=tuple(given), skipped=dict(skipped), rules=rules, _items=items, _tables=tables)

    def find(self, text: str, hashes: np.ndarray, title: str = "") -> list[Hit]:
        """The questions that `title` and `text` contain; `hashes` are those of the text's words (`words.hashes`).

        A question counts when `ngram` of its words follow one another (a run that five questions share is none) and,
        around them, at least `alignment` of its words in its order, in pieces of two words or more: 12 words, or 4/5
        of a shorter question; and as large a share of those that are no examiner's words, such as "which of the
        following is true". A question without such a run counts when it stands there whole and an option of it at once
        after it, or two options soon after. Case and punctuation are not seen. At most 100 are reported.
        """
        if title:
            text, hashes = f"{title}\n{text}", np.concatenate([words.hashes(f"{title}\n"), hashes])
        found = list(self._candidates(hashes))
        if not found:
            return []
        places = words.spans(text)
        hits: list[Hit] = []
        for short, number, starts in found:
            item = self._items[number]
            question = _words(item.text)
            for start in starts:
                if short:
                    seen = _whole(text, places, question, item.options, start)
                else:
                    seen = _aligned(text, places, question, start, self.rules)
                if seen is not None:
                    share, begin, end = seen
                    sample = text[begin:end]
                    hits += (
                        Hit(benchmark=name, item=id, share=share, start=begin, end=end, sample=sample)
                        for name, id in item.owners
                    )
                    break
            if len(hits) >= _MOST:
                break
        return hits

    def _candidates(self, hashes: np.ndarray) -> Iterator[tuple[bool, int, list[int]]]:
        """(short, item, places to look at), in the order of items."""
        lengths = {table.length for _, table in self._tables}
        runs = dict(phrases.runs(hashes, lengths))
        for short, table in self._tables:
            if table.length not in runs:
                continue
            items, places = table.find(runs[table.length])
            if not len(items):
                continue
            both, counts = np.unique(np.stack([items, places], axis=1), axis=0, return_counts=True)
            by_item: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
            for (item, place), count in zip(both.tolist(), counts.tolist(), strict=True):
                by_item[item].append((-count, place))
            for item, ranked in by_item.items():
                ordered = [place for _, place in sorted(ranked)]
                yield short, item, ordered if short else _apart(ordered, len(_words(self._items[item].text)))


def _apart(places: Sequence[int], length: int) -> list[int]:
    """The first few that are not of one and the same stretch of text: those with the most runs come first."""
    found: list[int] = []
    for place in places:
        if all(abs(place - other) > length // 2 for other in found):
            found.append(place)
            if len(found) == _PLACES:
                break
    return found


def _words(text: str) -> tuple[str, ...]:
    return tuple(words.fold(text[begin:end]) for begin, end in words.spans(text).tolist())


def _cut(text: str, places: np.ndarray, begin: int, end: int) -> list[str]:
    """The words of the text from one number to another, themselves: hashes could meet by chance."""
    return [words.fold(text[a:b]) for a, b in places[max(begin, 0) : max(end, 0)].tolist()]


_Seen = tuple[float, int, int] | None


def _aligned(text: str, places: np.ndarray, question: Sequence[str], start: int, rules: Decontamination) -> _Seen:
    """Share of the question's words and where they stand, if they are enough."""
    slack = len(question) // 2 + rules.ngram
    first = max(start - slack, 0)
    window = _cut(text, places, first, start + len(question) + slack)
    matcher = SequenceMatcher(None, window, question, autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size >= 2]
    count = sum(block.size for block in blocks)
    enough = max(rules.alignment * len(question), min(_FEW, 0.8 * len(question)))
    if count < enough or max(block.size for block in blocks) < rules.ngram:
        return None
    asked = [word not in _EXAMINERS for word in question]
    if sum(sum(asked[block.b : block.b + block.size]) for block in blocks) < rules.alignment * sum(asked):
        return None
    last = blocks[-1].a + blocks[-1].size - 1
    return count / len(question), int(places[first + blocks[0].a, 0]), int(places[first + last, 1])


def _whole(
    text: str, places: np.ndarray, question: Sequence[str], options: Sequence[Sequence[str]], start: int
) -> _Seen:
    """The whole question with an option at once after it, or two soon after; else None."""
    end = start + len(question)
    if start < 0 or _cut(text, places, start, end) != list(question):
        return None
    room = sum(map(len, options)) + 2 * len(options) + _NEAR
    after = _cut(text, places, end, end + room)
    met = [at for option in options if option and (at := _position(after, option)) is not None]
    if len(met) < 2 and min(met, default=room) > _NEAR:
        return None
    return 1.0, int(places[start, 0]), int(places[end - 1, 1])


def _position(given: Sequence[str], sought: Sequence[str]) -> int | None:
    size = len(sought)
    wanted = list(sought)
    return next((i for i in range(len(given) - size + 1) if list(given[i : i + size]) == wanted), None)
