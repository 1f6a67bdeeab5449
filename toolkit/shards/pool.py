"""Processes that encode blocks of lines: whole blocks go out and arrays of ids come back, in the order of the blocks.

Decides how bytes travel between processes and what the death of one means; leaves what is done with them to `encode`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.errors import ShardError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_SLOTS = 2  # blocks that each worker has: one in work, one waiting
_LARGE = 8 << 20


class Made(NamedTuple):
    """A worker's answer: what `Work` said of the block, and the bytes that it made."""

    said: Any
    made: tuple[bytes, bytes]


Work = Callable[[bytes | None, int], Made]
"""A block's lines (None: one line that is too long) and the number of the first of them, to the answer."""


class Pool:
    """So many workers; as a context they end with it. `begin` is to be called, then `map`, each once.

    `ready`, called in each worker at its start, gives the function that makes its `Work` of what `begin` is given. Both
    are to be found by name in their module.
    """

    def __init__(self, count: int, ready: Callable[[], Callable[[Any], Work]]) -> None:
        from multiprocessing import get_context

        # Spawned, not forked: whoever builds may have threads (progress, torch), and their locks would come along.
        context = get_context("spawn")
        self._team: list[tuple[Any, Connection, list[_Slot]]] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            slots = [_Slot() for _ in range(_SLOTS)]
            process = context.Process(target=_live, args=(theirs, slots, ready), daemon=True)
            self._team.append((process, ours, slots))
            process.start()
            theirs.close()

    def __enter__(self) -> Pool:
        return self

    def begin(self, plan: Any) -> None:
        for _, pipe, _ in self._team:
            self._send(pipe, plan)

    def map(self, blocks: Iterable[tuple[Any, bytes | None, int]]) -> Iterator[tuple[Any, Made]]:
        """The answer to each (anything, lines, number of the first) in order, with the anything.

        The workers have the first blocks when this returns. Raises `ShardError` if a worker dies, and what a worker
        raised.
        """
        waiting: deque[tuple[Any, int]] = deque()
        places = len(self._team) * _SLOTS
        numbered = enumerate(blocks)
        for turn, block in itertools.islice(numbered, places):
            waiting.append(self._give(turn, *block))
        return self._rest(waiting, numbered)

    def _rest(
        self, waiting: deque[tuple[Any, int]], numbered: Iterable[tuple[int, tuple[Any, bytes | None, int]]]
    ) -> Iterator[tuple[Any, Made]]:
        for turn, block in numbered:
            yield self._answer(*waiting.popleft())
            waiting.append(self._give(turn, *block))
        while waiting:
            yield self._answer(*waiting.popleft())

    def _give(self, turn: int, label: Any, lines: bytes | None, first: int) -> tuple[Any, int]:
        _, pipe, slots = self._team[turn % len(self._team)]
        number = turn // len(self._team) % _SLOTS
        size = -1 if lines is None else slots[number].lines.put(lines)
        self._send(pipe, (number, size, first))
        return label, turn

    def _send(self, pipe: Connection, message: Any) -> None:
        # No message is larger than a pipe's buffer once the plan has been taken, so that nobody waits for another here.
        try:
            pipe.send(message)
        except OSError as err:
            raise _died() from err

    def _answer(self, label: Any, turn: int) -> tuple[Any, Made]:
        _, pipe, slots = self._team[turn % len(self._team)]
        try:
            answer = pipe.recv()
        except (EOFError, OSError) as err:
            raise _died() from err
        if isinstance(answer, Exception):
            raise answer
        said, first, second = answer
        box = slots[turn // len(self._team) % _SLOTS].made
        made = box.take(first), box.take(second, first)
        box.empty(first + second)
        return label, Made(said, made)

    def __exit__(self, *_: object) -> None:
        for process, pipe, _slots in self._team:
            pipe.close()
            process.terminate()
        for process, _, slots in self._team:
            process.join()
            for slot in slots:
                slot.close()


class _Box:
    """A file in memory that two processes have open: bytes of any number pass through without a pipe's small steps."""

    def __init__(self, handle: int | None = None) -> None:
        if handle is None:
            if hasattr(os, "memfd_create"):
                handle = os.memfd_create("toolkit-shards")
            else:  # not Linux
                with tempfile.TemporaryFile() as opened:
                    handle = os.dup(opened.fileno())
        self._handle = handle

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd

        return _Box._received, (DupFd(self._handle),)

    @staticmethod
    def _received(handle: Any) -> _Box:
        return _Box(handle.detach())

    def put(self, *parts: bytes) -> int:
        """Write the parts from the start; how many bytes they have."""
        at = 0
        for part in parts:
            view = memoryview(part)
            while view:
                done = os.pwrite(self._handle, view, at)
                view, at = view[done:], at + done
        return at

    def take(self, size: int, begin: int = 0) -> bytes:
        """`size` bytes from `begin`."""
        data = os.pread(self._handle, size, begin)
        while len(data) < size:
            data += os.pread(self._handle, size - len(data), begin + len(data))
        return data

    def empty(self, size: int) -> None:
        """Give the memory back, if it was large."""
        if size > _LARGE:
            os.ftruncate(self._handle, 0)

    def close(self) -> None:
        os.close(self._handle)


class _Slot:
    """A block's way out and its answer's way back."""

    def __init__(self) -> None:
        self.lines, self.made = _Box(), _Box()

    def close(self) -> None:
        self.lines.close()
        self.made.close()


def _died() -> ShardError:
    return ShardError(
        "a worker process died",
        why="most often the machine ran out of memory",
        do="use fewer workers, then run it again",
    )


def _live(pipe: Connection, slots: list[_Slot], ready: Callable[[], Callable[[Any], Work]]) -> None:
    """The life of a worker process; Ctrl-C is for its parent to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, or needs no more
        try:
            work = ready()(pipe.recv())
            while True:
                number, size, first = pipe.recv()
                slot = slots[number]
                lines = None if size < 0 else slot.lines.take(size)
                slot.lines.empty(size)
                said, made = work(lines, first)
                slot.made.put(*made)
                pipe.send((said, *map(len, made)))
        except (EOFError, OSError):
            raise
        except Exception as err:  # for the parent to raise
            pipe.send(err)
