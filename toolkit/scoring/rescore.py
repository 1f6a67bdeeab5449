"""Stored generations judged anew, without a model: each text's answer, the vote of each item, the counts.

Decides what a line of such a file may hold; leaves reading the answer to `extract` and its doubtful cases to them.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from toolkit import files
from toolkit.errors import DataError, nearest
from toolkit.scoring import released
from toolkit.scoring.benchmarks import Benchmark
from toolkit.scoring.extract import Answer, extract, vote
from toolkit.scoring.items import LETTERS
from toolkit.stats import bootstrap_ci, wilson

_AGAIN = "fetch or make the file again"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One line: what was asked and what the model wrote. `labels` are what answers look like; `gold` indexes them."""

    id: str
    labels: tuple[str, ...]
    options: tuple[str, ...]
    gold: int
    generations: tuple[str, ...]
    question: str = ""


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """Counts over items. An invalid item is one none of whose generations has an answer; it counts as wrong.

    `accuracy` is correct / n with its 95 % Wilson interval `ci95` and bootstrap interval `bootstrap95`; `reasons` and
    `how` count generations. `agreement` is the mean share of an item's generations that gave its answer.
    """

    benchmark: str
    n: int
    correct: int
    invalid: int
    accuracy: float
    ci95: tuple[float, float]
    bootstrap95: tuple[float, float]
    generations: int
    invalid_generations: int
    agreement: float
    reasons: dict[str, int] = field(default_factory=dict)
    predicted: dict[str, int] = field(default_factory=dict)
    gold: dict[str, int] = field(default_factory=dict)
    extraction: str = "toolkit"
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "ci95": list(self.ci95), "bootstrap95": list(self.bootstrap95), "notes": list(self.notes)}


def rescore(
    path: str | Path,
    spec: Benchmark,
    *,
    items_out: str | Path | None = None,
    paper_compat: bool = False,
    few_shot: bool = False,
    advance: Callable[[int], None] = lambda n: None,
) -> Rescored:
    """Judge the stored generations at `path` (JSON lines, gzip or not); each item's answers go to `items_out`.

    A line is `{"id", "question"?, "options", "gold", "generations": [text, ...]}`: options a list, an object by
    letter or number, or objects with a key and a text (default: the benchmark's answers), gold its key, a letter, a
    0-based index or an option's text; several generations
    are put to the vote. `paper_compat` reads answers as the released scorer did. Raises DataError naming the line, and
    DiskFull.
    """
    path = Path(path)
    judge = _judge_released(few_shot) if paper_compat else _judge
    n = correct = generations = 0
    reasons: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    golds: Counter[str] = Counter()
    agreement = 0.0
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(files.atomic_write(items_out)) if items_out is not None else None
        for item in read(path, spec):
            label, share, why, answers = judge(item)
            gold = item.labels[item.gold]
            n += 1
            correct += label == gold
            agreement += share
            generations += len(item.generations)
            golds[gold] += 1
            predicted[label if label is not None else "invalid"] += 1
            reasons.update(answer.why for answer in answers if answer.label is None)
            if out is not None:
                out.write(
                    json.dumps(_row(spec.name, item, label, gold, share, why, answers), ensure_ascii=False) + "\n"
                )
            if n % 1000 == 0:
                advance(1000)
        advance(n % 1000)
        if n == 0:
            raise DataError("the file has no generations", where=path, do=_AGAIN)
    notes = (
        [f"{n} items, where the whole {spec.split} split of {spec.title} has {spec.size}"]
        if spec.size not in (None, n)
        else []
    )
    if paper_compat:
        notes.append(
            'answers read as the released scorer did: "maybe" is never valid, and an unreadable text may win the vote'
        )
    return Rescored(
        benchmark=spec.name,
        n=n,
        correct=correct,
        invalid=predicted["invalid"],
        accuracy=correct / n,
        ci95=wilson(correct, n),
        bootstrap95=bootstrap_ci([1.0] * correct + [0.0] * (n - correct)),
        generations=generations,
        invalid_generations=reasons.total(),
        agreement=agreement / n,
        reasons=dict(reasons.most_common()),
        predicted=dict(sorted(predicted.items())),
        gold=dict(sorted(golds.items())),
        extraction="released" if paper_compat else "toolkit",
        notes=tuple(notes),
    )


Judged = tuple[str | None, float, str, list[Answer]]


def _judge(item: Stored) -> Judged:
    answers = [
        extract(text, labels=item.labels, options=item.options, question=item.question) for text in item.generations
    ]
    if len(answers) == 1:
        return answers[0].label, float(answers[0].label is not None), answers[0].why, answers
    won = vote(answers)
    return won.label, won.agreement, won.why, answers


def _judge_released(few_shot: bool) -> Callable[[Stored], Judged]:
    def judge(item: Stored) -> Judged:
        words = not all(len(label) == 1 for label in item.labels)
        by_key = {label.lower(): label for label in item.labels}
        said = [
            released.answer(text, cot="answer is" in text.lower(), few_shot=few_shot, words=words)
            for text in item.generations
        ]
        answers = [
            Answer(
                label=by_key.get(one) if one in released.VALID else None,
                how="released",
                why="" if one in released.VALID else "unreadable",
            )
            for one in said
        ]
        won = released.vote(said)
        label = by_key.get(won) if won in released.VALID else None
        return label, said.count(won) / len(said) if said else 0.0, "" if label else "unreadable", answers

    return judge


def _row(
    benchmark: str, item: Stored, label: str | None, gold: str, share: float, why: str, answers: Sequence[Answer]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "benchmark": benchmark,
        "mode": "stored",
        "id": item.id,
        "answer": label,
        "prediction": label,
    }
    row |= {"gold": gold, "correct": label == gold, "valid": label is not None}
    text = dict(zip(item.labels, item.options, strict=False)).get(label, "")
    if text and text.lower() != label:
        row["text"] = text
    row |= {"answers": [answer.label for answer in answers], "how": [answer.how or answer.why for answer in answers]}
    if len(answers) > 1:
        row["agreement"] = round(share, 6)
    return row | ({"why": why} if label is None else {})


def read(path: str | Path, spec: Benchmark) -> Iterator[Stored]:
    """The file's items, one line at a time. Raises DataError with the line for everything that is not as it must be."""
    path = Path(path)
    seen: dict[str, int] = {}
    for number, raw in _lines(path):
        where = f"{path}:{number}"
        try:
            row = json.loads(raw)
        except UnicodeDecodeError:
            raise DataError("is not UTF-8 text", where=where, do="save the file as UTF-8") from None
        except RecursionError:
            raise DataError("is nested too deeply", where=where) from None
        except ValueError as err:
            why = err.msg if isinstance(err, json.JSONDecodeError) else str(err)
            raise DataError(
                "is not valid JSON", where=where, why=why, do=f"the file may be cut short: {_AGAIN}"
            ) from None
        item = _stored(row, spec, where)
        if item.id in seen:
            raise DataError(f"the id '{item.id}' appears twice", where=where, why=f"first on line {seen[item.id]}")
        seen[item.id] = number
        yield item


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        handle: IO[bytes]
        with gzip.open(path, "rb") if packed else open(path, "rb") as handle:  # type: ignore[assignment]
            for number, line in enumerate(handle, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise DataError("no such file of generations", where=path) from None
    except IsADirectoryError:
        raise DataError("is a folder; give the file of generations", where=path) from None
    except (EOFError, gzip.BadGzipFile) as err:
        raise DataError("the compressed file is damaged", where=path, why=str(err), do=_AGAIN) from None
    except OSError as err:
        raise DataError(f"cannot be read: {err.strerror or err}", where=path) from err


_NAMES = ("id", "question", "options", "gold", "generations")


def _stored(row: Any, spec: Benchmark, where: str) -> Stored:
    if not isinstance(row, dict):
        raise DataError(f"a line must be a JSON object, not {type(row).__name__}", where=where)
    for name in ("id", "gold", "generations"):
        if name not in row:
            raise DataError(
                f"the field '{name}' is missing", where=where, do=nearest(name, [k for k in row if k not in _NAMES])
            )
    if not isinstance(row["id"], (str, int)) or isinstance(row["id"], bool):
        raise DataError(f"the id must be text or a whole number, not {type(row['id']).__name__}", where=where)
    generations = row["generations"]
    if isinstance(generations, str):
        generations = [generations]
    if not isinstance(generations, list) or not all(isinstance(text, (str, type(None))) for text in generations):
        raise DataError("'generations' must be a list of texts (null counts as an empty one)", where=where)
    question = row.get("question", "")
    if not isinstance(question, str):
        raise DataError(f"the question must be text, not {type(question).__name__}", where=where)
    named = _paired(row.get("options"))
    labels, options = _answers(named, spec, where)
    gold = row["gold"]
    if isinstance(named, Mapping) and "1" in named and str(gold).strip() in named:
        gold = LETTERS[int(gold) - 1]  # the key of an option: these count from 1
    gold = _gold(gold, labels, options, where)
    return Stored(
        id=str(row["id"]),
        labels=labels,
        options=options,
        gold=gold,
        generations=tuple(text or "" for text in generations),
        question=question,
    )


def _answers(options: Any, spec: Benchmark, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(labels, options' texts). Without options the benchmark's own answers, of which no text is known."""
    if options is None:
        return spec.answers, () if spec.listed else spec.answers
    listed = spec.listed
    if isinstance(options, Mapping) and {str(key).strip().lower() for key in options} == {*spec.answers}:
        options = [*options]  # yes, no and maybe under their own names
    elif isinstance(options, Mapping):
        keys = [_KEY.sub("", str(key)).strip(" ().:").upper() for key in options]
        numbered = sorted(keys) == [str(i + 1) for i in range(len(keys))]
        if not numbered and sorted(keys) != list(LETTERS[: len(keys)]):
            raise DataError(f"the options must be under A, B, C ..., not {list(options)}"[:200], where=where)
        options = [value for _, value in sorted(zip(keys, options.values(), strict=True), key=lambda pair: pair[0])]
        listed = True
    if not isinstance(options, list) or not all(isinstance(option, (str, int, float)) for option in options):
        raise DataError("the options must be texts, in a list or under their letters", where=where)
    if not 2 <= len(options) <= len(LETTERS):
        raise DataError(f"{len(options)} options: an item needs 2 to {len(LETTERS)}", where=where)
    texts = tuple(str(option) for option in options)
    if not listed and {text.strip().lower() for text in texts} <= {*spec.answers}:
        return tuple(text.strip().lower() for text in texts), texts
    return tuple(LETTERS[: len(texts)]), texts


_KEY = re.compile(r"(?i)^\s*(?:option|choice|answer|op)[\s_-]*(?=\w\W*$)")
_KEYS, _TEXTS = ("key", "label", "letter", "id"), ("value", "text", "option", "content")


def _paired(options: Any) -> Any:
    """Options as {letter: text} where they come as objects (`{"key": "A", "value": ...}`) or as two lists."""
    if isinstance(options, Mapping) and len(options) == 2:
        keys, texts = (next((options[n] for n in names if n in options), None) for names in (_KEYS, _TEXTS))
        if isinstance(keys, list) and isinstance(texts, list) and len(keys) == len(texts) == len({*map(str, keys)}):
            return dict(zip(map(str, keys), texts, strict=True))
    if isinstance(options, list) and options and all(isinstance(option, Mapping) for option in options):
        pairs = [
            tuple(next((option[n] for n in names if n in option), None) for names in (_KEYS, _TEXTS))
            for option in options
        ]
        if all(isinstance(text, (str, int, float)) for _, text in pairs):
            keyed = {str(key): text for key, text in pairs if key is not None}
            return keyed if len(keyed) == len(pairs) else [text for _, text in pairs]
    return options


_MARKED = re.compile(r"\(?([A-Ja-j])(?:[).:]+\s*(.*)|\s*)", re.DOTALL)


def _gold(gold: Any, labels: tuple[str, ...], options: tuple[str, ...], where: str) -> int:
    """The right answer's index: of its letter or word, of a 0-based number, or of the option's text, in this order."""
    if isinstance(gold, list) and len(gold) == 1:
        gold = gold[0]
    if isinstance(gold, float) and gold.is_integer():
        gold = int(gold)  # a table with an empty cell makes numbers of this kind
    if type(gold) is int:
        if 0 <= gold < len(labels):
            return gold
        why = (
            "numbers count from 0 here; a file that counts from 1 must say so in letters" if gold == len(labels) else ""
        )
        raise DataError(
            f"the gold answer {gold} is not among the {len(labels)} options (0 to {len(labels) - 1})",
            where=where,
            why=why,
        )
    if isinstance(gold, str):
        said = gold.strip().casefold()
        letters = [letter.casefold() for letter in LETTERS[: len(labels)]]
        for names in (
            [label.casefold() for label in labels],
            [option.strip().casefold() for option in options],
            letters,
        ):
            if names.count(said) == 1:
                return names.index(said)
        if said.isdigit() and int(said) < len(labels):
            return int(said)
        marked = _MARKED.fullmatch(gold.strip())  # (C), or C. with the option's text
        index = letters.index(marked[1].casefold()) if marked and marked[1].casefold() in letters else None
        if marked and index is not None:
            text = (marked[2] or "").strip().casefold()
            if not text or (options and text == options[index].strip().casefold()):
                return index
    raise DataError(f"the gold answer {gold!r} is not among the options ({', '.join(labels)})"[:200], where=where)
