"""Pickles written by hand: the few opcodes that a checkpoint's `.metadata` and its records take.

Decides how classes of torch are named without importing torch, which would cost 200 MB; leaves which objects there are
to `distcp` and `record`. Reading is `metadata`'s and `record`'s, each with an allow-list.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Name:
    """A class or function that the reader finds in `module`."""

    module: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Call:
    """What the reader gets by calling `what` with `args`."""

    what: Name
    args: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Made:
    """An object of class `of` that takes `state` (its attributes, or what its __setstate__ wants); None: none."""

    of: Name
    state: Any = None


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """A dict for the reader, of keys that need not be hashable here."""

    pairs: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Persistent:
    """A reference that the reader's own `persistent_load` answers."""

    ident: tuple[Any, ...]


def dumps(value: Any) -> bytes:
    """`value`, of None, bool, int, str, tuple, list, dict and the classes above, as a pickle of protocol 2."""
    return _Writer().dump(value)


class _Writer:
    """Protocol 2: what torch.save itself writes."""

    def __init__(self) -> None:
        self._out, self._memo = bytearray(b"\x80\x02"), dict[Any, int]()

    def dump(self, value: Any) -> bytes:
        self._value(value)
        return bytes(self._out + b".")

    def _value(self, value: Any) -> None:
        out = self._out
        if value is None:
            out += b"N"
        elif isinstance(value, bool):
            out += b"\x88" if value else b"\x89"
        elif isinstance(value, int):
            self._int(value)
        elif isinstance(value, str):
            if not self._known(value):
                raw = value.encode("utf-8")
                out += b"X" + struct.pack("<I", len(raw)) + raw
                self._remember(value)
        elif isinstance(value, Name):
            if not self._known(value):
                out += f"c{value.module}\n{value.name}\n".encode()
                self._remember(value)
        elif isinstance(value, tuple):
            self._items(b"(", value, b"t")
        elif isinstance(value, list):
            self._items(b"](", value, b"e")
        elif isinstance(value, dict | Pairs):
            pairs = value.items() if isinstance(value, dict) else value.pairs
            self._items(b"}(", [each for pair in pairs for each in pair], b"u")
        elif isinstance(value, Call):
            self._value(value.what)
            self._value(value.args)
            out += b"R"
        elif isinstance(value, Made):
            self._value(value.of)
            out += b")\x81"
            if value.state is not None:
                self._value(value.state)
                out += b"b"
        elif isinstance(value, Persistent):
            self._value(value.ident)
            out += b"Q"
        else:
            raise TypeError(f"{type(value).__name__} is nothing that a checkpoint holds")

    def _items(self, begin: bytes, values: Sequence[Any], end: bytes) -> None:
        self._out += begin
        for value in values:
            self._value(value)
        self._out += end

    def _int(self, value: int) -> None:
        if -(2**31) <= value < 2**31:
            self._out += b"J" + struct.pack("<i", value)
        else:
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self._out += b"\x8a" + bytes([len(raw)]) + raw

    def _known(self, key: Any) -> bool:
        if key not in self._memo:
            return False
        self._out += b"j" + struct.pack("<I", self._memo[key])
        return True

    def _remember(self, key: Any) -> None:
        self._memo[key] = len(self._memo)
        self._out += b"r" + struct.pack("<I", self._memo[key])
