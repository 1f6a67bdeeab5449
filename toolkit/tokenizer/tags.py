"""The tags of a corpus (`[bib_ref]`), which are cut from a text before it is encoded.

Decides which added tokens a text may name; leaves the ids of the text between them to the tokenizers.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.errors import DataError

_CONTROL_NAME = re.compile(r"<[^<>\s]+>")


@dataclass(frozen=True, kw_only=True)
class Tags:
    """The ids of the tags; make one with `tags_of` or `chosen`."""

    ids: Mapping[str, int]
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        longest_first = "|".join(map(re.escape, sorted(self.ids, key=len, reverse=True)))
        object.__setattr__(self, "_pattern", re.compile(f"({longest_first})") if longest_first else None)

    def split(self, text: str) -> list[str]:
        """Stretches of text and tags in turn, beginning and ending with a stretch, which may be empty."""
        return self._pattern.split(text) if self._pattern else [text]

    def encode(self, text: str, encode_stretch: Callable[[str], list[int]]) -> list[int]:
        """Ids of `text`: each tag is its id, each stretch that is not empty is encoded by itself."""
        ids: list[int] = []
        for i, stretch in enumerate(self.split(text)):
            if i % 2:
                ids.append(self.ids[stretch])
            elif stretch:
                ids += encode_stretch(stretch)
        return ids


def tags_of(added: Mapping[str, int]) -> Tags:
    """All tags among the added tokens.

    A control name in an article (`<EOD>`, `</s>`) is text like any other: as a token it would end the document in the
    middle.
    """
    return Tags(ids={name: number for name, number in added.items() if not _CONTROL_NAME.fullmatch(name)})


def chosen(added: Mapping[str, int], names: Sequence[str]) -> Tags:
    """The named ones of the added tokens. Raises `DataError` for a name that is none of them."""
    for name in names:
        if name not in added:
            near = difflib.get_close_matches(name, added, 1)
            known = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(added) or 'none'}"
            raise DataError(f"the tokenizer has no added token {name!r}", do=f"name one that it has; {known}")
    return Tags(ids={name: added[name] for name in names})


def utf8(text: str) -> bytes:
    """`text` in UTF-8. Raises `DataError` for a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise DataError(
            f"text that is not valid Unicode: a lone surrogate at character {err.start}",
            do="repair or remove the text",
        ) from err
