"""Cloze items and four-option questions about the invented pharmacopoeia, in phrasings that no document contains.

Decides what is asked and how gold positions and options are balanced; leaves asking and scoring to others.
Rows of `cloze.jsonl` are `{id, prompt, options, answer, group, entity}`: an option, after one blank, ends the prompt.
The other files hold `{id, question, options, answer, group, entity}`; `answer` is the index of the right option.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import files
from toolkit.corpus import world_words as words

if TYPE_CHECKING:
    from toolkit.corpus.world import World

OPTIONS = 4
_VALID_ROWS = 200
_TRAINED_ENTITIES_TESTED = 60


def write(world: World, folder: Path) -> dict[str, int]:
    """Write the five files into `folder`, each atomically; returns file name -> number of rows."""
    rng = random.Random(f"tasks:{world.options.seed}")
    some = rng.sample(world.trained, min(_TRAINED_ENTITIES_TESTED, len(world.trained)))
    first, last = words.TEST_QUESTIONS, len(words.QUESTIONS["treats"])
    every = [(drug, phrasing) for drug in world.trained for phrasing in range(first, last)]
    valid = rng.sample(every, min(_VALID_ROWS // len(words.ATTRIBUTES), len(every)))
    rows = {
        "cloze": _cloze(world),
        "letters_heldout": _questions(world, "letters_heldout", _test(world.held_out)),
        "letters_trained": _questions(world, "letters_trained", _test(some)),
        "finetune_train": _questions(world, "finetune_train", every),
        # The same facts and wordings as in training with options drawn anew: learning them shows in this loss.
        "finetune_valid": _questions(world, "finetune_valid", valid),
    }
    return {f"{name}.jsonl": _save(folder / f"{name}.jsonl", items) for name, items in rows.items()}


def _save(path: Path, items: Iterable[dict[str, Any]]) -> int:
    count = 0
    with files.atomic_write(path) as handle:
        for item in items:
            handle.write(json.dumps(item, ensure_ascii=False) + "\n")
            count += 1
    return count


def _test(drugs: Sequence[str]) -> list[tuple[str, int]]:
    return [(drug, i % words.TEST_QUESTIONS) for i, drug in enumerate(drugs)]


def _cloze(world: World) -> Iterator[dict[str, Any]]:
    asked = [(drug, i % words.HELD_OUT) for i, drug in enumerate(world.held_out)]
    for drug, attribute, phrasing, item in _items(world, "cloze", asked):
        text = words.PHRASINGS[attribute][phrasing].format(d=drug, v="").rstrip()
        yield {"id": item.pop("id"), "prompt": text[0].upper() + text[1:], **item}


def _questions(world: World, name: str, asked: Sequence[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    for drug, attribute, phrasing, item in _items(world, name, asked):
        yield {"id": item.pop("id"), "question": words.QUESTIONS[attribute][phrasing].format(d=drug), **item}


def _items(world: World, name: str, asked: Sequence[tuple[str, int]]) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """For each (drug, phrasing) and attribute: options of the same pool, each gold position equally often."""
    rng = random.Random(f"{name}:{world.options.seed}")
    for attribute in words.ATTRIBUTES:
        positions = [i % OPTIONS for i in range(len(asked))]
        rng.shuffle(positions)
        for number, ((drug, phrasing), position) in enumerate(zip(asked, positions, strict=True)):
            value = world.facts[drug][attribute]
            options = rng.sample([other for other in world.pools[attribute] if other != value], OPTIONS - 1)
            options.insert(position, value)
            row = {"id": f"{name}-{attribute}-{number:04d}", "options": options, "answer": position}
            yield drug, attribute, phrasing, {**row, "group": attribute, "entity": drug}
