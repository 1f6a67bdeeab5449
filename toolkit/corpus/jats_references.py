"""What a citation says between the paper's tokens: the cited work's title and its first author.

Decides which words of a reference are taken; where they stand in the text is settled in `jats_inline.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxml.etree import _Element

_CITATIONS = tuple("{*}" + name for name in ("mixed-citation", "element-citation", "citation", "nlm-citation"))
_TITLES, _AUTHORS = ("article-title", "chapter-title", "source"), ("surname", "collab")


class References:
    """An article's references by their ids, read when they are cited; to be made before the tree is changed."""

    def __init__(self, article: _Element | None = None) -> None:
        self.elements: dict[str, _Element] = {}
        self.known: dict[str, str] = {}
        for ref in () if article is None else article.iter("{*}ref"):
            for element in (ref, *ref):  # citations inside a reference may have ids of their own
                if own := element.get("id"):
                    self.elements.setdefault(own, element)

    def __contains__(self, ident: str) -> bool:
        return ident in self.elements

    def cite(self, targets: str) -> str:
        """`[bib_ref] title, author [/bib_ref]` of each of the ids in `targets`, nothing of unknown ones."""
        if targets not in self.known:
            found = (self.elements.get(ident) for ident in targets.split())
            said = dict.fromkeys(filter(None, (_cited(ref) for ref in found if ref is not None)))
            self.known[targets] = " ".join(f"[bib_ref] {words} [/bib_ref]" for words in said)
        return self.known[targets]


def cut(text: str, words: int = 12) -> str:
    """The first words of a title, without the stop at its end."""
    return " ".join(text.split()[:words]).rstrip(" .,;:([")


def _cited(ref: _Element) -> str:
    """Title cut to 12 words and the first author's last name; of a reference without structure its first words."""
    space = ref.tag[: ref.tag.rfind("}") + 1]
    title, author = _first(ref, space, _TITLES), _first(ref, space, _AUTHORS)
    if title is None:
        return cut(_words(next(ref.iter(*_CITATIONS), ref)))
    words, name = cut(_words(title)), "" if author is None else " ".join(_words(author).split()[:6]).rstrip(".,;: ")
    return f"{words}, {name}" if words and name else words or name


def _first(ref: _Element, space: str, names: tuple[str, ...]) -> _Element | None:
    for name in names:
        if (found := next(ref.iter(space + name), None)) is not None:
            return found
    return None


def _words(element: _Element) -> str:
    return "".join(element.itertext()) if len(element) else element.text or ""
