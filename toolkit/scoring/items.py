"""One question of a benchmark, whatever file it came from. Leaves reading to `readers` and wording to `prompts`."""

from __future__ import annotations

import string
from dataclasses import dataclass

LETTERS = string.ascii_uppercase


@dataclass(frozen=True, kw_only=True)
class Item:
    """`question` (exam style) or `prompt` (a beginning that an option completes), never both empty.

    `gold` indexes `options`. `listed` says that the options are printed in the prompt under letters; when it is
    false (yes, no, maybe) the options themselves are the answers. `explanation` is why the answer is right, where the
    file says it. `source_index` is the row's place in its own file, from 0.
    """

    id: str
    options: tuple[str, ...]
    gold: int
    question: str = ""
    prompt: str = ""
    context: str = ""
    group: str = ""
    listed: bool = True
    explanation: str = ""
    source_index: int = -1

    @property
    def labels(self) -> tuple[str, ...]:
        """What an answer looks like: letters when the options are listed, else the options' own words."""
        return tuple(LETTERS[: len(self.options)]) if self.listed else self.options
