"""The rows of a finetuning: of every benchmark of its mixture, read, worded, counted and written, with their tokenizer.

Decides which rows are trained on and which are held out; leaves the reading to `scoring.benchmarks`, what a row says to
`scoring.targets`, and the files to `train.answers`.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit import files, mixture, scoring
from toolkit import tokenizer as tokenizers
from toolkit.errors import DataError
from toolkit.recipe.schema import Finetune
from toolkit.scoring import chat, demonstrations, targets
from toolkit.train import answers

READY, SHOWN = "ready.json", "shown.jsonl"
PARTS = ("training", "validation")
_FEW = 3  # rows of each benchmark that are kept as texts, to be looked at
_LEAST = 20  # no more than one row in so many is held out
SCORED, HELD_OUT = "asked in what is scored as well", "asked in a row that is held out as well"
_WHY = (targets.NO_EXPLANATION, targets.TOO_LONG, SCORED, HELD_OUT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the items come from. `world` is the folder of the corpus stage's tasks; `scored` the files of the run's
    benchmarks, none of whose items may be trained on.
    """

    asked: Finetune
    world: Path | None = None
    scored: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def items(self, name: str, part: str) -> list[scoring.Item]:
        """The items of a benchmark's share in `part`. Raises `DataError`."""
        spec = scoring.benchmarks.get(name)
        place = self.asked.paths.get(name, self.asked.path)
        if place == "world":
            if self.world is None:
                raise DataError("finetune.path=world needs a corpus of kind world", do="give finetune.path=FILE")
            short = {"training": "train", "validation": "valid"}[part]
            return scoring.benchmarks.load(spec, self.world / f"finetune_{short}.jsonl")
        if place is None:
            raise DataError(f"no training rows of {name} are named", do=f"give finetune.paths.{name}=FILE")
        for other, path in self.scored.items():
            if Path(place).is_file() and Path(path).is_file() and Path(place).samefile(path):
                what = "the model would be trained on what it is scored on"
                raise DataError(
                    what, where=place, why=f"score.paths.{other} is this file", do="give the training split"
                )
        found = scoring.benchmarks.load(spec, split="train", train_path=place)
        held = held_out(len(found), self.asked.held_out)
        return [item for n, item in enumerate(found) if (n in held) == (part == "validation")]

    def apart(self, part: str) -> dict[tuple[str, ...], str]:
        """What no row of `part` may ask, by `_key`, and why. The demo world has parts of its own.

        Raises `DataError` for a file of a scored benchmark that cannot be read; one that is not there yet says nothing.
        """
        found = {}
        if part == "training" and self.asked.held_out:
            for name in mixture.parse(self.asked.benchmark):
                if self.asked.paths.get(name, self.asked.path) != "world":
                    found |= dict.fromkeys(map(_key, self.items(name, part="validation")), HELD_OUT)
        for name, path in self.scored.items():
            if path != "world" and Path(path).exists():
                spec = scoring.benchmarks.get(name)
                found |= dict.fromkeys(map(_key, scoring.benchmarks.load(spec, path)), SCORED)
        return found


def _key(item: scoring.Item) -> tuple[str, ...]:
    """The same question of the same text with the same answer, whatever the order and the number of its options."""
    return *demonstrations.key(item), " ".join(item.options[item.gold].split()).casefold()


def held_out(rows: int, most: int) -> frozenset[int]:
    """Numbers of the rows to validate on: evenly spread, `most` or one in twenty, whichever is fewer."""
    count = min(most, rows // _LEAST)
    return frozenset(n * rows // count for n in range(count))


def prepare(asked: Finetune, base: Path, out: Path) -> tuple[targets.Way, int]:
    """How items become rows, and how many tokens are new; writes the tokenizer for both to the new folder `out`.

    Raises `DataError` for a chat template that cannot be used, or a tokenizer that cannot take its tokens.
    """
    own = tokenizers.load(base)
    written = None
    if asked.format == "messages":
        written = chat.messages()
    elif asked.format == "template":
        written = chat.of(str(asked.template), tokenizer=own)
        if written is None:
            raise DataError("this folder has no chat template", where=asked.template, do="name another")
    extended = tokenizers.extend(base, out, () if written is None else written.new)
    if written is None:
        chat.remove(out)  # the base's own, in which it was not asked
    else:
        whole = chat.with_system(written.template, asked.system) if asked.system else written.template
        files.write_text(out / chat.TEMPLATE, whole)
        written = chat.of(out, tokenizer=extended)
    way = targets.Way(tokenizer=extended, seq_length=asked.seq_length, target=asked.target, chat=written)
    return way, extended.vocab_size - own.vocab_size


def make(sources: Sources, *, base: Path, out: Path, words: Path, seed: int, made_of: str) -> dict[str, Any]:
    """Write the rows to the folder `out`, their tokenizer to `words`, and last of all `ready.json`, which is returned.

    Rows that were made of the same (`made_of`) stay. Raises `DataError`: a file that cannot be read, a benchmark
    without any rows.
    """
    ready = out / READY
    if ready.is_file() and (told := files.read_json(ready)).get("made_of") == made_of:
        return dict(told)
    ready.unlink(missing_ok=True)
    way, new = prepare(sources.asked, base, words)
    told = {"made_of": made_of, "new_tokens": new}
    with files.atomic_write(out / SHOWN) as shown:
        for part in PARTS:
            told[part] = _write(sources, part, out / part, way, seed, shown)
    files.write_json(ready, told)
    return told


def _write(sources: Sources, part: str, path: Path, way: targets.Way, seed: int, shown: Any) -> dict[str, Any]:
    """Rows of all benchmarks one behind the other; in training, each as often as its benchmark's weight says."""
    import numpy as np

    weights = mixture.parse(sources.asked.benchmark)
    counts: Counter[str] = Counter()
    own: dict[str, int] = {}
    lost: dict[str, dict[str, int]] = {}
    apart = sources.apart(part)

    def free(items: Iterable[scoring.Item]) -> Iterator[scoring.Item]:
        for item in items:
            if (why := apart.get(_key(item))) is None:
                yield item
            else:
                counts[why] += 1

    def rows() -> Iterator[tuple[tuple[int, ...], int]]:
        for name in weights:
            before, left = counts["rows"], counts.copy()
            instruction = scoring.benchmarks.get(name).instruction
            for row in targets.rows(free(sources.items(name, part)), way, instruction):
                if isinstance(row, targets.LeftOut):
                    counts[row.why] += 1
                    continue
                if counts["rows"] - before < _FEW:
                    shown.write(_as_text(row, name, part, way) + "\n")
                counts.update(rows=1, cut=row.cut)
                yield row.ids, row.answer
            own[name] = counts["rows"] - before
            lost[name] = {why: counts[why] - left[why] for why in _WHY if counts[why] > left[why]}

    answers.write(path, rows())
    table = answers.read(path).table
    if part == "training":
        pieces = np.split(table, np.cumsum(list(own.values()))[:-1])
        mixed = zip(pieces, weights.values(), strict=True)
        taken = [answers.repeated(piece, w, seed + n) for n, (piece, w) in enumerate(mixed)]
        for name, some in zip(weights, taken, strict=True):
            if not len(some):
                raise _nothing(sources.asked, name, lost[name] or f"{own[name]:,} at a weight of {weights[name]:g}")
        table = np.concatenate(taken)
        answers.save_table(path, table)
    left = {why: counts[why] for why in _WHY if counts[why]}
    begin, end, answer = (column.astype(int) for column in table.T)
    told: dict[str, Any] = {"rows": len(table), "cut": counts["cut"], "tokens": int((end - begin - 1).sum())}
    told |= {
        "answer_tokens": int((end - answer).sum()),
        "left_out": sum(left.values()),
        "why_left_out": left,
        "benchmarks": own,
    }
    print(f"{part}: {said(told)}", flush=True)
    return told


def _as_text(row: targets.Row, name: str, part: str, way: targets.Way) -> str:
    before, said = (way.tokenizer.decode(ids, control=True) for ids in (row.ids[: row.answer], row.ids[row.answer :]))
    line = {"part": part, "benchmark": name, "id": row.id, "before": before, "answer": said}
    return json.dumps(line, ensure_ascii=False)


def said(told: Mapping[str, Any]) -> str:
    """What the log says of a part."""
    mixed = ", ".join(f"{count:,} of {name}" for name, count in told["benchmarks"].items())
    parts = [f"{told['rows']:,} rows" + (f" (made of {mixed})" if len(told["benchmarks"]) > 1 else "")]
    parts += [f"{told['tokens']:,} tokens, {told['answer_tokens']:,} of answers"]
    parts += [f"{told['cut']:,} questions cut to fit"] if told["cut"] else []
    return ", ".join([*parts, *([_left_out(told["why_left_out"])] if told["left_out"] else [])])


def _nothing(asked: Finetune, name: str, why: Mapping[str, int] | str) -> DataError:
    return DataError(
        f"no rows to finetune on of {name}",
        where=asked.paths.get(name, asked.path) or asked.benchmark,
        why=why if isinstance(why, str) else _left_out(why),
    )


def _left_out(why: Mapping[str, int]) -> str:
    return "; ".join(f"left out: {count:,} ({reason})" for reason, count in why.items())
