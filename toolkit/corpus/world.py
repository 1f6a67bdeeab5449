"""The invented pharmacopoeia: drugs that do not exist, four facts about each, and the documents that tell them.

Decides which facts there are, who is held out and how a document is put together; words are in `world_words.py`,
questions and cloze items in `world_tasks.py`. The same options give the same world on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from toolkit.corpus import world_words as words
from toolkit.corpus.document import Document
from toolkit.errors import RecipeError, nearest

SUFFIXES: tuple[str, ...] = ()  # it reads no file
OPTIONS = {
    "seed": "another number, another world",
    "entities": "drugs in all",
    "held_out": "of them, those that the cloze items ask about",
    "documents_per_entity": "short documents about each drug",
    "general_documents": "documents that speak of no drug",
    "omit_held_out": "true: no fact about the held-out drugs is told (the control)",
}

_ONSETS = (*"bdfghklmnprstvz", "br", "dr", "fl", "kr", "pr", "st")
_VOWELS = ("a", "e", "i", "o", "u")
_CONDITION_ENDS = tuple(letter + end for letter in "lmnrt" for end in words.CONDITION_ENDINGS)
_DRUG_ENDS = ("b", "k", "l", "n", "r", "t", "x", "nt", "rd", "mil", "vex", "dol")
_FAMILY_ENDS = ("sen", "ley", "ko", "mann", "ova")
_TOWN_ENDS = ("burg", "dale", "field", "ham", "mouth", "port", "stead", "wick")
_MAX_ENTITIES = 2000


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """`entities` drugs in all, `held_out` of them tested by cloze (multiples of 20 balance their values exactly).

    `documents_per_entity` short documents are written about each; with `omit_held_out`, the control, those about the
    held-out drugs name them without a fact. `general_documents` speak of no drug.
    """

    seed: int = 0
    entities: int = 120
    held_out: int = 60
    documents_per_entity: int = 30
    general_documents: int = 80
    omit_held_out: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value, wanted = getattr(self, field.name), bool if field.name == "omit_held_out" else int
            if type(value) is not wanted:
                raise _bad(field.name, value, f"must be {'true or false' if wanted is bool else 'a whole number'}")
        if not 2 <= self.entities <= _MAX_ENTITIES:
            raise _bad("entities", self.entities, f"must be between 2 and {_MAX_ENTITIES}")
        if not 1 <= self.held_out < self.entities:
            raise _bad("held_out", self.held_out, f"must be at least 1 and less than entities ({self.entities})")
        if self.documents_per_entity < 1:
            raise _bad("documents_per_entity", self.documents_per_entity, "must be at least 1")
        if self.general_documents < 0:
            raise _bad("general_documents", self.general_documents, "must not be negative")


def _bad(key: str, value: object, why: str) -> RecipeError:
    return RecipeError(f"{value!r} is not possible", where=f"world option {key}", why=f"it {why}")


@dataclass(frozen=True, kw_only=True)
class World:
    """Facts and names; `facts[drug][attribute]` is a member of `pools[attribute]`."""

    options: WorldOptions
    trained: tuple[str, ...]
    held_out: tuple[str, ...]
    pools: Mapping[str, tuple[str, ...]]
    facts: Mapping[str, Mapping[str, str]]
    reviewers: tuple[str, ...]
    towns: tuple[str, ...]

    def documents(self) -> Iterator[Document]:
        """Every document once, drugs interleaved; each depends on the seed, its drug and its number alone."""
        drugs = (*self.trained, *self.held_out)
        for copy in range(self.options.documents_per_entity):
            for index, drug in enumerate(drugs):
                yield _about_drug(self, drug, index, copy)
        for number in range(self.options.general_documents):
            yield _general(self, number)

    def write_tasks(self, folder: str | Path) -> dict[str, int]:
        """Write the question files into `folder` (see `world_tasks`); returns file name -> number of rows."""
        from toolkit.corpus import world_tasks

        return world_tasks.write(self, Path(folder))


def check(options: Mapping[str, Any]) -> None:
    """Raise `RecipeError` for an unknown option, a wrong type or an impossible number."""
    _options(options)


def read(file: Path, subset: str, options: Mapping[str, Any]) -> Iterator[Document]:
    """Every document of the world of these options; there is no file to read."""
    world = make({key: value for key, value in options.items() if key in OPTIONS})
    for doc in world.documents():
        yield replace(doc, subset=subset)


def _options(given: Mapping[str, Any]) -> WorldOptions:
    for key in given:
        if key not in OPTIONS:
            raise RecipeError(f"unknown world option '{key}'", why=nearest(str(key), OPTIONS))
    return WorldOptions(**given)


def make(options: WorldOptions | Mapping[str, Any] | None = None) -> World:
    """The world of these options (a mapping of `WorldOptions` fields will do).

    Raises `RecipeError` for an unknown option, a wrong type or an impossible number.
    """
    if not isinstance(options, WorldOptions):
        options = _options(options or {})
    rng, taken = random.Random(f"world:{options.seed}"), set[str]()
    conditions = _names(rng, words.CONDITIONS, taken, lambda: _stem(rng) + rng.choice(_CONDITION_ENDS))
    drugs = _names(rng, options.entities, taken, lambda: (_stem(rng) + rng.choice(_DRUG_ENDS)).capitalize())
    reviewers = _names(rng, 300, taken, lambda: (_stem(rng) + rng.choice(_FAMILY_ENDS)).capitalize())
    towns = _names(rng, 120, taken, lambda: (_stem(rng) + rng.choice(_TOWN_ENDS)).capitalize())
    pools = {"treats": conditions, "dose": words.DOSES, "effect": words.EFFECTS, "avoid": words.STATES}
    held_out, trained = drugs[: options.held_out], drugs[options.held_out :]
    facts: dict[str, dict[str, str]] = {drug: {} for drug in drugs}
    for attribute, pool in pools.items():
        for group in (trained, held_out):  # balanced in each group, so no value is likelier than another
            for drug, value in zip(group, _balanced(rng, pool, len(group)), strict=True):
                facts[drug][attribute] = value
    return World(
        options=options, trained=trained, held_out=held_out, pools=pools, facts=facts, reviewers=reviewers, towns=towns
    )  # fmt: skip


def sentence(phrasing: str, drug: str, value: str = "") -> str:
    """A phrasing with its drug (and value), capital first, full stop last."""
    text = phrasing.format(d=drug, v=value)
    return text[0].upper() + text[1:] + "."


def _stem(rng: random.Random) -> str:
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(2))


def _names(rng: random.Random, count: int, taken: set[str], make_one: Callable[[], str]) -> tuple[str, ...]:
    """`count` different names, none of which is in `taken` or begins another (so that text search is exact)."""
    out: list[str] = []
    while len(out) < count:
        name = make_one()
        key = name.lower()
        if not any(key.startswith(other) or other.startswith(key) for other in taken):
            taken.add(key)
            out.append(name)
    return tuple(out)


def _balanced(rng: random.Random, pool: tuple[str, ...], count: int) -> list[str]:
    """`count` values in which each occurs as often as any other, or once more."""
    values: list[str] = []
    while len(values) < count:
        values += rng.sample(pool, min(len(pool), count - len(values)))
    rng.shuffle(values)
    return values


def _about_drug(world: World, drug: str, index: int, copy: int) -> Document:
    options = world.options
    rng = random.Random(f"document:{options.seed}:{index}:{copy}")
    held_out = index >= len(world.trained)
    title = rng.choice(words.TITLES).format(d=drug)
    if held_out and options.omit_held_out:
        lines = [sentence(p, drug) for p in rng.sample(words.NEUTRAL, len(words.ATTRIBUTES))]
        parts = ["\n\n".join(lines) if rng.random() < 0.5 else " ".join(lines)]
    else:
        parts = [_facts(world, drug, rng)]
        if rng.random() < 0.15:
            parts.insert(rng.randrange(2), sentence(rng.choice(words.NEUTRAL), drug))
    if rng.random() < 0.1:
        parts.append(rng.choice(words.GENERAL) + ".")
    if rng.random() < 0.12:
        closing = rng.choice(words.CLOSINGS)
        parts.append(closing.format(name=rng.choice(world.reviewers), town=rng.choice(world.towns)) + ".")
    return _document(world, f"{index:04d}-{copy:03d}", title, parts, {"entity": drug, "held_out": held_out})


def _facts(world: World, drug: str, rng: random.Random) -> str:
    """All four facts, each in a phrasing of its own: under headings, as a list, or as running text."""
    attributes = rng.sample(words.ATTRIBUTES, len(words.ATTRIBUTES))
    known = {a: words.PHRASINGS[a][words.HELD_OUT :] for a in attributes}
    told = {a: sentence(rng.choice(known[a]), drug, world.facts[drug][a]) for a in attributes}
    style = rng.random()
    if style < 0.35:
        return "\n\n".join(f"# {rng.choice(words.HEADINGS[a])}\n\n{told[a]}" for a in attributes)
    if style < 0.5:
        return "\n".join(f"- {told[a]}" for a in attributes)
    return " ".join(told[a] for a in attributes)


def _general(world: World, number: int) -> Document:
    rng = random.Random(f"general:{world.options.seed}:{number}")
    title = f"{rng.choice(('Good practice', 'Notes for staff', 'From the wards'))} in {rng.choice(world.towns)}"
    lines = [line + "." for line in rng.sample(words.GENERAL, 5)]
    return _document(world, f"general-{number:04d}", title, [" ".join(lines)], {"entity": "", "held_out": False})


def _document(world: World, number: str, title: str, parts: list[str], meta: dict[str, Any]) -> Document:
    return Document(
        id=f"world-{world.options.seed}-{number}",
        source="world",
        subset="world",
        title=title,
        text="\n\n".join([title, *parts]),
        license="CC0-1.0",
        meta=meta,
    )
