"""Which engine turns text into ids: gigatoken where it is exact, else the reference (sentencepiece, tokenizers).

Decides by the ids of both on a sample of the input; leaves rows, tags and the order of documents to `encode`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolkit import tokenizer as tokenizers
from toolkit.tokenizer import JsonTokenizer, Tags, Tokenizer

_CACHE_BYTES = 80 << 20
"""What gigatoken's cache of words may take in a process before it is made anew: it has no bound of its own."""

_NOT_ITS = (KeyboardInterrupt, SystemExit, MemoryError)

Encode = Callable[[str], Any]
"""From a stretch of text to its ids, a uint32 array (gigatoken) or a list (reference)."""

ALWAYS = (
    "Dose: 12.5 mg/kg  twice\tdaily\r\n\r\n(n = 1,234).\n",
    "literal </s> and <s> <unk> <0x0A> <|im_end|> <EOD> [INST]",
    "\u2581 \u2581\u2581 a\u2581b",
    " ", "   ", "\n", "\n \n  \n", " a", "a ", "\t\t", "\0", "\ufeff", "\u00a0\u2003\u200b\u2028",
    "é e\u0301 ﬁ Å A\u030a 각 \u1100\u1161\u11a8 β-blocker µg ≥ 10⁹/L",
    "😀👩\u200d⚕️🏳️\u200d🌈 漢字かな 한국어 العربية हिन्दी ไทย \U0010ffff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + "=" * 80 + "-" * 33 + "ACGT" * 30,
    "1234567890 00000000 3.14159 1e-5 ½",
)  # fmt: skip
"""Text that is hard on tokenizers; compared besides the sample, for the sample may have none of it."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Who encodes: a package and its version, and why it is the reference where it is (else "").

    `definition` is what gigatoken loads, a tokenizer.json without added tokens; empty for the reference.
    """

    name: str
    version: str
    why: str = ""
    compared: int = 0
    definition: bytes = field(default=b"", repr=False)


def candidate(tokenizer: Tokenizer | JsonTokenizer) -> Engine:
    """The fast engine, not yet proven, if it is there for such a tokenizer; else the reference."""
    definition, why = tokenizer.definition()
    if not why and find_spec("gigatoken") is None:
        why = "gigatoken is not installed"
    if why:
        return _reference(tokenizer, why)
    return Engine(name="gigatoken", version=_version("gigatoken"), definition=definition)


def prove(
    engine: Engine, tokenizer: Tokenizer | JsonTokenizer, sample: Iterable[str], tags: Tags
) -> tuple[Engine, Encode]:
    """`engine` if it gives the reference's ids for each stretch of `sample` and of `ALWAYS`; else the reference."""
    if not engine.definition:
        return engine, tokenizer.encode_stretch
    encode, why = _loaded(engine, tokenizer.folder)
    compared = 0
    for stretch in () if why else (*ALWAYS, *(part for text in sample for part in tags.split(text)[::2])):
        ids = encode(stretch)
        if (ids if isinstance(ids, list) else ids.tolist()) != tokenizer.encode_stretch(stretch):
            why = f"gigatoken gives other ids than {tokenizer.package} for {stretch[:60]!r}"
            break
        compared += len(stretch)
    if why:
        return _reference(tokenizer, why), tokenizer.encode_stretch
    return replace(engine, compared=compared), encode


def load(engine: Engine, folder: Path) -> Encode:
    """The engine itself, in a process that has only its description; `folder` is the tokenizer's.

    The reference, where it cannot be loaded: who proves it finds the same and says so.
    """
    return _loaded(engine, folder)[0] if engine.definition else tokenizers.load(folder).encode_stretch


def _loaded(engine: Engine, folder: Path) -> tuple[Encode, str]:
    try:
        return Gigatoken(engine.definition, folder), ""
    except BaseException as err:  # a panic of the Rust side is no Exception
        if isinstance(err, _NOT_ITS):
            raise
        return tokenizers.load(folder).encode_stretch, f"gigatoken cannot load the tokenizer: {str(err)[:200]}"


class Gigatoken:
    """gigatoken's encoder of single texts, made anew whenever its cache has grown too large; the ids stay the same.

    A text that it fails on is encoded by the reference, the tokenizer in `folder`.
    """

    def __init__(self, definition: bytes, folder: Path) -> None:
        from gigatoken import Tokenizer as Made

        self._make = Made.from_json
        self._definition, self._folder = definition, folder
        self._reference: Encode | None = None
        self._renew()

    def __call__(self, text: str) -> Any:
        try:
            return self._encode(text)
        except BaseException as err:  # a panic of the Rust side is no Exception
            if isinstance(err, _NOT_ITS):
                raise
            self._reference = self._reference or tokenizers.load(self._folder).encode_stretch
            return self._reference(text)

    def rest(self) -> None:
        """To be called now and then, for example after a block: forgets the cache where it has grown too large."""
        if _resident() - self._resident > _CACHE_BYTES:
            self._renew()

    def _renew(self) -> None:
        self._encode = None  # the old cache goes before the new tokenizer comes
        _give_back()
        self._encode = self._make(self._definition).backend.encode
        self._encode("a")
        self._resident = _resident()


def _reference(tokenizer: Tokenizer | JsonTokenizer, why: str) -> Engine:
    return Engine(name=tokenizer.package, version=_version(tokenizer.package), why=why)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _give_back() -> None:
    """Lets the system have the memory that was freed; the C library keeps it where it is not glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
