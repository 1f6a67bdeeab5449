"""The knobs of a corpus: what its filters keep, what counts as a duplicate, what is kept clear of the benchmarks.

Decides names, defaults and which values are possible, so that a login node can refuse a recipe; leaves the cleaning
itself to `toolkit.corpus`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Literal

from toolkit.errors import RecipeError, nearest


@dataclass(frozen=True, kw_only=True)
class Decontamination:
    """How documents are kept clear of benchmarks: left alone, removed, or marked with the names of those they contain.

    `ngram` words in a row of a question bring a document into question; it contains the question when at least
    `alignment` of the question's words stand there in order (8 and 0.5 are those of arXiv 2605.16215). `contexts`:
    PubMedQA's contexts, which are abstracts of papers, are looked for as well.
    """

    mode: Literal["off", "remove", "mark"] = "off"
    ngram: int = 8
    alignment: float = 0.5
    contexts: bool = False

    def __post_init__(self) -> None:
        if not 4 <= self.ngram <= 64:
            raise RecipeError(f"ngram is {self.ngram}", why="it must lie between 4 and 64")
        if not 0 < self.alignment <= 1:
            raise RecipeError(f"alignment is {self.alignment}", why="it must be above 0 and at most 1")


NO_BENCHMARKS = (
    "corpus.decontaminate.mode asks for documents that are clear of benchmarks, and no benchmark is given: state "
    "corpus.decontaminate.benchmarks.NAME=FILE or score.paths.NAME=FILE, or mode=off"
)


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """What counts as a duplicate, and by which means near ones are found.

    Documents are near duplicates when their sets of `shingle` consecutive words have a Jaccard similarity of at least
    `near_threshold`, or are linked by such ones. Two of similarity J meet with probability
    1 - (1 - J^rows)^bands. Unless `rows` is stated it is the largest, 6 at most, by which those at the threshold meet
    with 0.95: 6 at 0.8 (0.998 of them), 5 at 0.7, 3 at 0.6, 2 at 0.5; fewer rows take more comparisons. `sketch`
    numbers a document say how alike those are that met. `memory_mib` bounds what sorting takes.
    """

    ids: bool = True
    exact: bool = True
    near: bool = True
    near_threshold: float = 0.8
    shingle: int = 5
    bands: int = 20
    rows: int = 0  # as the threshold asks; never 0 in what was made
    sketch: int = 256
    memory_mib: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.near_threshold <= 1:
            raise RecipeError(f"{self.near_threshold!r} is not possible", where="near_threshold", why="it is a share")
        if self.rows == 0:
            object.__setattr__(self, "rows", next((rows for rows in range(6, 1, -1) if self._meet(rows) >= 0.95), 1))
        for name, low, high in (
            ("shingle", 1, 100),
            ("bands", 1, 1000),
            ("rows", 1, 100),
            ("sketch", 16, 65536),
            ("memory_mib", 16, 1 << 20),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise RecipeError(f"{value!r} is not possible", where=name, why=f"it must be {low} to {high}")

    def _meet(self, rows: int) -> float:
        return 1 - (1 - self.near_threshold**rows) ** self.bands


# What a corpus can ask for of licences. One may need several: CC BY-NC-ND needs both of its own.
LICENCE_GROUPS = {
    "open": "commercial use and derived works allowed: CC0, CC BY, CC BY-SA, public domain, free software licences",
    "noncommercial": "commercial use forbidden: CC BY-NC, publishers' licences for research and private reading",
    "no-derivatives": "derived works forbidden: CC BY-ND, CC BY-NC-ND",
    "restricted": "to be read, not to be passed on: guidelines and papers under their publishers' own terms",
    "unknown": "no licence stated, or none that is known here",
}
# Ids of licences that look like names of groups; `toolkit.corpus.licence` gives them.
LICENCE_IDS = (
    *("guideline-open", "guideline-restricted", "elsevier-user", "tdm-only", "acs-authorchoice", "pmc-covid"),
    *("research-only", "publisher-specific", "public-domain", "non-commercial"),
)


@dataclass(frozen=True, kw_only=True)
class Length:
    """Bounds that a document must keep; 0 is no bound. Words are what blanks separate."""

    min_characters: int = 0
    min_words: int = 0
    max_characters: int = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 0:
                raise RecipeError(f"{each.name} is {getattr(self, each.name)}", why="it must be 0 (no bound) or more")
        if 0 < self.max_characters < self.min_characters:
            raise RecipeError("max_characters is below min_characters", why="no document could stay")


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Largest shares that are accepted, when `enabled`: Gopher's (arXiv 2112.11446, Table A1), which are made for web
    pages, and twice those for `again_5` to `again_10`.

    `lines` and `paragraphs`: the share that has stood in the text before, by number; `line_characters` and
    `paragraph_characters`: by length. `top_2` to `top_4`: of the words, those in the most frequent run of 2 to 4
    (Gopher counts characters). `again_5` to `again_10`: those in runs of 5 to 10 that have stood before; sound articles
    that name their questionnaire or operation in each paragraph reach 0.15 to 0.20 in runs of 5, and so does one
    abstract in a hundred (of the 1,000 of PubMedQA).
    """

    enabled: bool = False
    lines: float = 0.30
    paragraphs: float = 0.30
    line_characters: float = 0.20
    paragraph_characters: float = 0.20
    top_2: float = 0.20
    top_3: float = 0.18
    top_4: float = 0.16
    again_5: float = 0.30
    again_6: float = 0.28
    again_7: float = 0.26
    again_8: float = 0.24
    again_9: float = 0.22
    again_10: float = 0.20

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.name != "enabled" and not 0 < getattr(self, each.name) <= 1:
                raise RecipeError(f"{each.name} is {getattr(self, each.name)}", why="it must be above 0, and at most 1")


@dataclass(frozen=True, kw_only=True)
class Language:
    """`keep`: ISO 639-1 codes of the languages that stay, none for all. A text goes when all others together reach the
    share `threshold` of it.

    RefinedWeb asks of web pages that one language reaches 0.65 (arXiv 2306.01116, section 3.1). Lists of drugs, genes
    and Latin terms reach that in no language, so here it is asked of the languages that would take a text out.
    """

    keep: tuple[str, ...] = ()
    threshold: float = 0.65

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise RecipeError(f"threshold is {self.threshold}", why="it must be above 0, and at most 1")
        for code in self.keep:
            if not re.fullmatch("[a-z]{2,3}", code):
                raise RecipeError(f"'{code}' is no code of a language", do="write ISO 639-1 codes, for example en")


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What stays. Left as it is, it takes out what is empty, retracted, or under a licence that restricts.

    `licences` are groups (`LICENCE_GROUPS`) and patterns of ids (`CC-BY-NC-4.*`); all groups that a document's licence
    needs must be there, or a pattern that fits it. `cutoff` (YYYY, YYYY-MM or YYYY-MM-DD, "" for none) is the last date
    that stays. It is compared as far as the document's date is known: "2023" stays under a cutoff of 2023-08-31 and
    "2023-09" does not; what bears no date stays.
    """

    licences: tuple[str, ...] = ("open", "unknown")
    retracted: bool = True
    cutoff: str = ""
    length: Length = field(default_factory=Length)
    repetition: Repetition = field(default_factory=Repetition)
    language: Language = field(default_factory=Language)

    def __post_init__(self) -> None:
        if self.cutoff and not re.fullmatch(r"\d{4}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12]\d|3[01]))?)?", self.cutoff):
            raise RecipeError(f"cutoff '{self.cutoff}' is no date", do="write YYYY, YYYY-MM or YYYY-MM-DD")
        for entry in self.licences:
            # A pattern has capitals, digits or signs; a slip in a group's name would quietly remove everything.
            known = (*LICENCE_GROUPS, *LICENCE_IDS)
            if re.fullmatch("[a-z-]*", entry) and entry not in known:
                raise RecipeError(f"unknown group of licences '{entry}'", why=nearest(entry, known))
