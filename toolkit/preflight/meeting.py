"""All ranks meet at rank 0's address, as torch.distributed's would, tell what they are, do what rank 0 asks of them,
and hear that it is over.

Decides the words on the wire, their limits and when waiting ends. Whoever can reach the port may speak, so nothing that
comes is trusted to be more than text. What is a fault is `judge`'s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # a class of its own before Python 3.11
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.preflight.facts import Facts, read

LIMIT_S = 300.0
_GREETING = "meditron preflight"
_MOST_BYTES = 1 << 16  # of a line; the longest node lists are a few KiB
_LINE_S = 10.0
_TRY_AGAIN_S = 0.2
_CLOCKS = 3
_ELSEWHERE = "is where another rank 0 listens"
# A client of NFS may believe for acdirmax, 60 s by default (nfs(5)), that a new file is not there.
_SEEN_S = 90.0
_MOST_STAY_S = 86_400.0
_LATER_S = 30.0  # the others wait longer than rank 0, which can say more than they


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """What rank 0 heard: facts of each report, and {rank: (node, why)} of those that could not reach it."""

    told: tuple[Facts, ...]
    unheard: Mapping[int, tuple[str, str]]
    led: Any = None  # what `lead` returned


@dataclass(frozen=True, kw_only=True)
class Table:
    """Those who met, while they are still there. `hosts` is the address by which others reach a rank."""

    told: tuple[Facts, ...]
    unheard: Mapping[int, tuple[str, str]]
    hosts: Mapping[int, str]
    server: _Server

    def ask(self, orders: Mapping[int, dict[str, Any]], limit_s: float, stay_s: float) -> dict[int, dict[str, Any]]:
        """Give {rank: order}, all at once; {rank: answer}, `{"error": why}` of those that gave none in `limit_s`.
        A rank leaves that hears nothing for `stay_s` afterwards.
        """
        return self.server.ask(orders, limit_s, stay_s)


Obey = Callable[[Any], dict[str, Any]]


def meet(
    own: Facts,
    *,
    folder: Path,
    limit_s: float = LIMIT_S,
    obey: Obey | None = None,
    lead: Callable[[Table], Any] | None = None,
) -> tuple[Meeting | None, str]:
    """Meet the other ranks; `folder` is one that every node should see. Returns what rank 0 heard and "".

    Others get None, and why rank 0 could not be reached or "". Waits `limit_s` for the last rank, and no longer. Then
    rank 0 calls `lead`, and every rank answers the orders that this gives with what `obey` returns.
    """
    if own.rank == 0:
        return _as_first(own, folder, limit_s, obey, lead)
    seen_s = min(_SEEN_S, limit_s / 2)
    why = _report(own, folder, limit_s + _LATER_S, seen_s=seen_s, note_after_s=limit_s / 2, obey=obey)
    return None, why


# What lies on a rank's desk: (order, seconds, who waits for the answer), or None: it is over.
_Desk = queue.SimpleQueue  # of tuple[dict[str, Any], float, Future[Any]] | None


class _Server:
    """Rank 0's side: a thread for each rank that is connected."""

    def __init__(self, port: int, token: str, world: int) -> None:
        self.told: list[Facts] = []
        self.hosts: dict[int, str] = {}
        self._desks: dict[tuple[int, str, int], _Desk] = {}
        self.all_told, self.over = threading.Event(), threading.Event()
        self._token, self._world = token, world
        self._lock, self._seats = threading.Lock(), threading.Semaphore(2 * world + 64)
        self._reported: list[threading.Thread] = []
        self._socket = _listen(port, backlog=world + 64)

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            if self._seats.acquire(blocking=False):
                threading.Thread(target=self._guest, args=(connection,), daemon=True).start()
            else:
                connection.close()

    def close(self) -> None:
        """Tell all who reported that it is over, and wait a little for them to have heard it."""
        with self._lock:
            self.over.set()
            for desk in self._desks.values():
                desk.put(None)
        deadline = time.monotonic() + _LINE_S
        for guest in list(self._reported):
            guest.join(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._socket.close()

    def ask(self, orders: Mapping[int, dict[str, Any]], limit_s: float, stay_s: float) -> dict[int, dict[str, Any]]:
        waiting: dict[int, Future[Any]] = {}
        with self._lock:
            desks = {who[0]: desk for who, desk in self._desks.items()}
        for rank, order in orders.items():
            waiting[rank] = Future()
            if rank in desks:
                desks[rank].put(({"order": order, "stay_s": stay_s}, limit_s, waiting[rank]))
            else:
                waiting[rank].set_result({"error": "is not there any more"})
        found, deadline = {}, time.monotonic() + limit_s + _LINE_S
        for rank, future in waiting.items():
            try:
                answer = future.result(max(0.0, deadline - time.monotonic()))
            except (OSError, ValueError, TimeoutError, FutureTimeout):
                answer = None
            found[rank] = answer if isinstance(answer, dict) else {"error": "its process is gone, or does not answer"}
        return found

    def _guest(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            lines = _Lines(connection)
            connection.settimeout(_LINE_S)
            for _ in range(_CLOCKS):
                if lines.read() != _GREETING:
                    break
                lines.write({"preflight": self._token, "clock": time.time()})
            else:
                connection.settimeout(_SEEN_S + _LINE_S)
                facts = read(lines.read())
                if facts is not None:
                    desk: _Desk = queue.SimpleQueue()
                    with self._lock:
                        self.told = [f for f in self.told if _who(f) != _who(facts)] + [facts]  # it tried again
                        self.hosts[facts.rank] = connection.getpeername()[0].removeprefix("::ffff:")
                        self._desks[_who(facts)] = desk
                        self._reported.append(threading.current_thread())
                        if len(self.told) >= self._world:
                            self.all_told.set()
                        if self.over.is_set():
                            desk.put(None)
                    try:
                        _serve(desk, lines, connection)
                    finally:
                        with self._lock:
                            if self._desks.get(_who(facts)) is desk:
                                del self._desks[_who(facts)]
                    connection.settimeout(_LINE_S)
                    lines.write("over")
        self._seats.release()


def _serve(desk: _Desk, lines: _Lines, connection: socket.socket) -> None:
    """Hand a rank its orders and their senders its answers, until it is over or the rank is gone."""
    gone: Exception | None = None
    while (item := desk.get()) is not None:
        order, limit_s, answer = item
        if gone is None:
            try:
                connection.settimeout(limit_s)
                lines.write(order)
                answer.set_result(lines.read())
                continue
            except (OSError, ValueError) as err:
                gone = err
        answer.set_exception(gone)
    if gone is not None:
        raise gone


def _who(facts: Facts) -> tuple[int, str, int]:
    return facts.rank, facts.node, facts.pid


def _as_first(
    own: Facts, folder: Path, limit_s: float, obey: Obey | None, lead: Callable[[Table], Any] | None
) -> tuple[Meeting | None, str]:
    token, deadline = secrets.token_hex(8), time.monotonic() + limit_s
    folder.mkdir(parents=True, exist_ok=True)
    # Written before there is anybody to ask for it.
    files.write_json(folder / "rendezvous.json", {"token": token, "node": own.node, "master": own.master})
    begun = (folder / "rendezvous.json").stat().st_mtime
    try:
        server = _Server(int(own.master.rpartition(":")[2]), token, own.world)
    except OSError as err:
        why = f"cannot listen at {own.master}: {err.strerror or err}; is there a second rank 0?"
        return None, why
    threading.Thread(target=server.run, daemon=True).start()
    mine: list[str] = []
    # By the address that the others use, which need not be one of this host.
    myself = threading.Thread(
        target=lambda: mine.append(
            _report(own, folder, limit_s, seen_s=0.0, expect=token, until=server.over, obey=obey)
        ),
        daemon=True,
    )
    myself.start()
    while not server.all_told.wait(_TRY_AGAIN_S) and time.monotonic() < deadline and not mine:
        pass
    told = tuple(sorted(server.told, key=lambda facts: (facts.rank, facts.node)))
    unheard = _notes(folder, own.job, begun - limit_s)
    if mine and mine[0]:
        unheard[0] = (own.node, mine[0])
    led = None
    try:
        if lead is not None and not (mine and _ELSEWHERE in mine[0]):
            near = {f.rank: own.master.rpartition(":")[0] for f in told if f.node == own.node}
            led = lead(Table(told=told, unheard=unheard, hosts={**server.hosts, **near}, server=server))
    finally:
        server.close()
        myself.join(_LINE_S)
    if mine and _ELSEWHERE in mine[0]:
        return None, mine[0]
    return Meeting(told=told, unheard=unheard, led=led), ""


def _report(
    own: Facts,
    folder: Path,
    limit_s: float,
    *,
    seen_s: float,
    note_after_s: float | None = None,
    expect: str | None = None,
    until: threading.Event | None = None,
    obey: Obey | None = None,
) -> str:
    """Tell rank 0 what `own` says and wait until the meeting is over; returns why that could not be, or ""."""
    host, _, port = own.master.rpartition(":")
    begun, why, note = time.monotonic(), "", folder / "unheard" / f"{own.rank}-{own.node}-{own.pid}.json"
    while time.monotonic() - begun < limit_s and not (until and until.is_set()):
        try:
            with socket.create_connection((host, int(port)), timeout=_LINE_S) as connection:
                return _speak(connection, own, folder, limit_s, seen_s, expect, obey)
        except _Final as err:
            return f"{own.master} {err}"
        except (OSError, ValueError) as err:
            why = f"{own.master} cannot be reached: {getattr(err, 'strerror', None) or err or type(err).__name__}"
        if note_after_s is not None and time.monotonic() - begun > note_after_s:
            note_after_s = None
            with contextlib.suppress(OSError):  # of use only where rank 0 can see it
                files.write_json(note, {"rank": own.rank, "node": own.node, "job": own.job, "why": why})
        time.sleep(_TRY_AGAIN_S)
    return why


class _Final(Exception):
    """Why this rank will not be heard, however often it tries."""


def _speak(
    connection: socket.socket,
    own: Facts,
    folder: Path,
    limit_s: float,
    seen_s: float,
    expect: str | None,
    obey: Obey | None,
) -> str:
    lines, samples, token = _Lines(connection), [], ""
    for _ in range(_CLOCKS):
        before, begun = time.time(), time.monotonic()
        lines.write(_GREETING)
        hello = lines.read()
        took = time.monotonic() - begun
        if not isinstance(hello, dict) or not isinstance(hello.get("clock"), float):
            raise ValueError("something else answers there")
        token = str(hello.get("preflight"))
        samples.append((took, before + took / 2 - hello["clock"]))
    if expect is not None and token != expect:
        raise _Final(_ELSEWHERE)
    round_trip, offset = min(samples)
    sees = _sees(folder, token, seen_s)
    told = dataclasses.replace(own, clock_offset_s=offset, round_trip_s=round_trip, sees_folder=sees)
    lines.write(dataclasses.asdict(told))
    connection.settimeout(limit_s + _LATER_S)
    try:
        while (said := lines.read()) != "over":
            order, stay_s = said["order"], float(said["stay_s"])
            lines.write(obey(order) if obey is not None else {"error": "this rank takes no orders"})
            connection.settimeout(min(max(stay_s, _LINE_S), _MOST_STAY_S))
        return ""
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise _Final("went away before it was over")


def _sees(folder: Path, token: str, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while True:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.listdir(folder)  # makes a network file system look again
            if files.read_json(folder / "rendezvous.json").get("token") == token:
                return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_TRY_AGAIN_S)


def _notes(folder: Path, job: str, since: float) -> dict[int, tuple[str, str]]:
    """What ranks of this attempt wrote that could not reach rank 0; notes of earlier ones are removed."""
    found: dict[int, tuple[str, str]] = {}
    for path in sorted((folder / "unheard").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            note, written = files.read_json(path), path.stat().st_mtime
            if note["job"] == job and written >= since:
                found[int(note["rank"])] = (str(note["node"]), str(note["why"]))
            else:
                path.unlink()
    return found


def _listen(port: int, backlog: int) -> socket.socket:
    """On every address of this host, as torch's store does."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog)
    return socket.create_server(("", port), backlog=backlog)


class _Lines:
    """JSON values, one a line, over a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._reader = connection, connection.makefile("rb")

    def read(self) -> Any:
        """Raises `ValueError` for what is no line of JSON, `OSError` after the socket's time limit."""
        line = self._reader.readline(_MOST_BYTES)
        if not line.endswith(b"\n"):
            raise ValueError("the connection was closed")
        try:
            return json.loads(line)
        except RecursionError:
            raise ValueError("not JSON of this kind") from None

    def write(self, value: Any) -> None:
        self._connection.sendall(json.dumps(value).encode() + b"\n")
