"""A text as a row of 64-bit numbers, one a word: what duplicates and benchmark items are compared by.

Decides what a word is and which differences between two texts do not count; leaves to others what they compare.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Signs that change what a number says: "<18" is not ">18". Each is a word of its own; all other signs separate words.
SIGNS = "<>≤≥±%"
_PLANE = 1 << 16
_CHUNK = 1 << 18  # characters at a time: bounds memory, and the tables of powers
_GAP, _WORD, _ALONE = 0, 1, 2
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
# Scripts written without blanks; a character is a word: CJK signs, kana, Thai, Lao, Khmer.
_UNSPACED = ((0x0E00, 0x0EFF), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """Of each code point of the basic plane (and one entry for all beyond): what it is, and its number (0 in a gap)."""

    kind: np.ndarray
    value: np.ndarray
    powers: np.ndarray
    inverses: np.ndarray


def hashes(text: str) -> np.ndarray:
    """The words of `text` in order, shape (words,), uint64; the same in every process and on every machine.

    A word is a run of letters, digits and marks of any script, or one of `SIGNS`, or a character of a script without
    blanks. Not seen: case, spacing, punctuation and other signs, whether a digit or letter stands raised or full-width,
    characters beyond the basic plane. Different words have different numbers but for chance (2**-64 a pair).
    """
    parts = [_chunk_hashes(codes) for _, codes in _chunks(text)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.uint64), *parts])


def spans(text: str) -> np.ndarray:
    """Where the words stand that `hashes` numbers: shape (words, 2), int64, first character and one past the last."""
    parts = []
    for offset, codes in _chunks(text):
        kind = _tables().kind.take(codes)
        last = kind > 0
        last[:-1] &= ~((kind[:-1] == _WORD) & (kind[1:] == _WORD))
        parts.append(np.stack([np.flatnonzero(_starts(kind)), np.flatnonzero(last) + 1], axis=1) + offset)
    return np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)


@functools.lru_cache(maxsize=1 << 16)
def fold(word: str) -> str:
    """A word with the differences removed that `hashes` does not see; two equal ones are the same word for certain."""
    return "".join(map(_folded, word))


def mix(values: np.ndarray) -> np.ndarray:
    """Spread 64-bit numbers in place over all their bits (the finaliser of splitmix64), and give them back."""
    values ^= values >> _SHIFTS[0]
    values *= _FACTORS[0]
    values ^= values >> _SHIFTS[1]
    values *= _FACTORS[1]
    values ^= values >> _SHIFTS[2]
    return values


def runs(hashed: np.ndarray, length: int) -> np.ndarray:
    """A number for each `length` consecutive words, shape (words - length + 1,), uint64; empty for fewer words."""
    count = len(hashed) - length + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    total = hashed[:count] * np.uint64(_BASE)
    term = np.empty_like(total)
    weight = _BASE
    for k in range(1, length):
        weight = weight * _BASE % (1 << 64)
        np.multiply(hashed[k : k + count], np.uint64(weight), out=term)
        total += term
    return mix(total)


def _chunk_hashes(codes: np.ndarray) -> np.ndarray:
    # A word's number is a polynomial of its characters. Weighted by their place in the chunk they can all be summed at
    # once, characters of gaps being 0; the inverse power of a word's place makes it the same wherever it stands.
    tables = _tables()
    starts = _starts(tables.kind.take(codes, mode="wrap")).nonzero()[0]  # the mode is the fastest
    if not len(starts):
        return np.zeros(0, np.uint64)
    weighted = tables.value.take(codes, mode="wrap")
    weighted *= tables.powers[: len(codes)]
    sums = weighted.cumsum()
    lasts = np.empty_like(starts)  # a word's gap behind it adds nothing to it
    np.subtract(starts[1:], 1, out=lasts[:-1])
    lasts[-1] = len(codes) - 1
    found = sums[lasts]
    found[1:] -= found[:-1].copy()
    found *= tables.inverses[starts]
    return mix(found)


def _starts(kind: np.ndarray) -> np.ndarray:
    start = np.empty(len(kind), bool)
    start[0] = kind[0] > _GAP
    np.greater(kind[1:], kind[:-1] == _WORD, out=start[1:])  # a word's letter after another begins no word
    return start


def _chunks(text: str) -> Iterator[tuple[int, np.ndarray]]:
    """Code points (all beyond the plane as one), with where they begin; cut at a blank where there is one."""
    begin = 0
    while begin < len(text):
        end = len(text)
        if end - begin > _CHUNK:
            # Without a blank in reach a word is cut: such a text has none that could be compared.
            end = max(text.rfind(" ", begin + _CHUNK // 2, begin + _CHUNK), begin + _CHUNK // 2)
        codes = np.frombuffer(text[begin:end].encode("utf-32-le", "surrogatepass"), np.uint32)
        yield begin, (np.minimum(codes, _PLANE) if codes.max() > _PLANE else codes).astype(np.intp)
        begin = end


@functools.cache
def _folded(char: str) -> str:
    plain = unicodedata.normalize("NFKC", char)
    lower = (plain if len(plain) == 1 else char).lower()
    return lower if len(lower) == 1 else char


@functools.cache
def _tables() -> _Tables:
    kind = np.zeros(_PLANE + 1, np.uint8)
    code = np.arange(_PLANE + 1, dtype=np.uint64)
    for number in range(_PLANE):
        char = chr(number)
        if unicodedata.category(char)[0] in "LNM":
            kind[number] = _WORD
            if number > 0x7F or char.isupper():
                code[number] = ord(_folded(char))
    for low, high in _UNSPACED:
        kind[low : high + 1] *= _ALONE
    for char in SIGNS:
        kind[ord(char)] = _ALONE
    value = mix((code + np.uint64(1)) * np.uint64(_BASE))
    value[kind == _GAP] = 0
    inverse = pow(_BASE, -1, 1 << 64)
    powers, inverses = (np.cumprod(np.full(_CHUNK, base, np.uint64)) for base in (_BASE, inverse))
    return _Tables(kind=kind, value=value, powers=powers, inverses=inverses)
