"""HTTP as a guest: one request at a time, with a delay, a name and a contact, and only where robots.txt lets it.

Decides when to wait, to try again, to go on with half a file and to give up; leaves what is fetched to `fetch`.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import urllib.robotparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import toolkit
from toolkit import files
from toolkit.errors import DataError, DiskFull

AGENT = "meditron-toolkit"
TRIES = 4
LONGEST_WAIT_S = 600  # a server that asks for more is to be asked another day
_TIMEOUT_S = 60
_HOPS = 5
_BLOCK = 1 << 20
_DOCUMENT = 512 << 20  # bytes of a listing or a description, which are held in memory


class Refused(DataError):
    """The server, or its robots.txt, does not give this file; others of the same source may be had."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(kw_only=True)
class Guest:
    """One visitor: it remembers when it last asked, and what each host's robots.txt says."""

    contact: str
    delay_s: float = 1.0
    robots: dict[str, urllib.robotparser.RobotFileParser] = field(default_factory=dict)
    last: float = 0.0

    @property
    def agent(self) -> str:
        return f"{AGENT}/{toolkit.__version__} (+{self.contact})"

    def read(self, url: str, *, headers: Mapping[str, str] | None = None) -> bytes:
        """A listing or description as a whole. Raises `Refused` or `DataError`."""
        for attempt in range(TRIES):
            answer, url_now = self._ask(url, headers or {})
            with answer:
                try:
                    body = answer.read(_DOCUMENT + 1)
                except (http.client.IncompleteRead, OSError):
                    if attempt + 1 == TRIES:
                        raise Refused("the answer broke off", where=shown(url), do="try again later") from None
                    continue
            if len(body) > _DOCUMENT:
                raise Refused(f"the answer is larger than {_DOCUMENT >> 20} MiB", where=shown(url_now))
            return body
        raise AssertionError("unreachable")

    def save(self, url: str, path: Path, *, size: int = 0, md5: str = "", sha256: str = "") -> int:
        """Fetch `url` to `path`, going on with what an earlier try left in `path`.partial; returns the bytes.

        The file takes its name only when size and digests, as far as they are known, are right. Raises `Refused`,
        `DataError` or `DiskFull`; a partial file stays, for the next try to go on with.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part, mark = path.with_name(f"{path.name}.partial"), path.with_name(f"{path.name}.partial.json")
        for _ in range(TRIES):
            if self._went_on(url, path, part, mark, size):
                break
        else:
            raise Refused("the connection broke off again and again", where=shown(url), do="run the same command again")
        found = part.stat().st_size
        if size and found != size:
            _forget(part, mark)
            raise Refused(
                f"{found} bytes came, and {size} were announced", where=shown(url), do="run the same command again"
            )
        for name, wanted in (("md5", md5), ("sha256", sha256)):
            if wanted and (found_digest := digest(part, name)) != wanted.lower():
                _forget(part, mark)
                raise Refused(
                    f"its {name} is {found_digest}, and {wanted} was announced",
                    where=shown(url),
                    do="run the same command again",
                )
        with open(part, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(part, path)
        mark.unlink(missing_ok=True)
        return found

    def _went_on(self, url: str, path: Path, part: Path, mark: Path, size: int) -> bool:
        """One request for what is missing; True when the file is there as a whole."""
        there = part.stat().st_size if part.exists() else 0
        tag = _tag(mark) if there else ""
        if there and not tag:  # of what state of the file it is the beginning, nobody knows
            part.unlink()
            there = 0
        if size and there == size:
            return True
        ask = {"Range": f"bytes={there}-", "If-Range": tag} if there else {}
        answer, _ = self._ask(url, {"Accept-Encoding": "identity", **ask})
        with answer:
            stated = answer.headers.get("Content-Length")
            if answer.status != 206:
                there = 0
            elif not (answer.headers.get("Content-Range") or "").startswith(f"bytes {there}-"):
                _forget(part, mark)
                return False
            expected = there + int(stated or 0)
            if size and stated and expected != size:
                raise Refused(f"the server gives {expected} bytes, and {size} were announced", where=shown(url))
            _check_room(path, expected - there)
            try:
                with files.disk_errors(path):
                    tag = _strong(answer.headers.get("ETag")) or answer.headers.get("Last-Modified") or ""
                    files.write_json(mark, {"tag": tag})
                    whole = _pour(answer, part, append=there > 0)
            except DiskFull as err:
                kept = f"what has come so far is kept in {part.name}"
                raise DiskFull(
                    err.what, where=path, why=kept, do="free space, then run the same command again"
                ) from err
        return whole and (not stated or part.stat().st_size == expected)

    def _ask(self, url: str, headers: Mapping[str, str]) -> tuple[Any, str]:
        """An answer with status 200 or 206, after waiting, redirects and busy servers. Raises `Refused`."""
        first, hops, tries = urllib.parse.urlsplit(url), 0, 0
        opener = urllib.request.build_opener(_NoRedirects)
        while True:
            parts = urllib.parse.urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise Refused("leads to what is no web address", where=shown(url))
            if first.scheme == "https" and parts.scheme != "https":
                raise Refused("leads from https to an address without encryption", where=shown(url))
            self._may(url)
            # Keys are for the host that they were given for.
            sent = {k: v for k, v in headers.items() if parts.netloc == first.netloc or not _is_secret(k)}
            request = urllib.request.Request(url, headers={"User-Agent": self.agent, **sent})
            self._wait(url)
            try:
                return opener.open(request, timeout=_TIMEOUT_S), url
            except urllib.error.HTTPError as err:
                with err:
                    status, told = err.code, err.headers
                if status in (301, 302, 303, 307, 308) and told.get("Location"):
                    hops += 1
                    if hops > _HOPS:
                        raise Refused(f"leads on more than {_HOPS} times", where=shown(url)) from None
                    url = urllib.parse.urljoin(url, told["Location"])
                    continue
                if status == 416:  # what is there is longer than the file: begin anew
                    headers = {k: v for k, v in headers.items() if k not in ("Range", "If-Range")}
                    tries += 1
                    if tries < TRIES:
                        continue
                if status in (429, 500, 502, 503, 504):
                    tries += 1
                    pause = _retry_after(told.get("Retry-After"), default=min(60.0, self.delay_s * 2**tries))
                    if pause > LONGEST_WAIT_S:
                        raise Refused(
                            f"the server asks to come back in {pause:.0f} seconds", where=shown(url)
                        ) from None
                    if tries < TRIES:
                        time.sleep(pause)
                        continue
                raise Refused(f"the server answers {status} {err.reason}", where=shown(url)) from None
            except (OSError, http.client.HTTPException) as err:
                tries += 1
                if tries < TRIES:
                    time.sleep(min(60.0, self.delay_s * 2**tries))
                    continue
                why = str(getattr(err, "reason", "") or err)
                raise DataError(
                    "cannot be reached", where=shown(url), why=why, do="see to the network, then run it again"
                ) from err

    def _wait(self, url: str) -> None:
        """Not before the delay, or the host's own where it asks for a longer one."""
        rules = self.robots.get(_host(url))
        own = rules.crawl_delay(AGENT) if rules is not None else None
        pause = self.last + max(self.delay_s, float(own or 0)) - time.monotonic()
        if pause > 0:
            time.sleep(min(pause, LONGEST_WAIT_S))
        self.last = time.monotonic()

    def _may(self, url: str) -> None:
        """Raise `Refused` where robots.txt forbids. As RFC 9309 says: none (4xx) allows, an unreachable one forbids."""
        host = _host(url)
        if host not in self.robots:
            rules = urllib.robotparser.RobotFileParser()
            self._wait(url)
            request = urllib.request.Request(f"{host}/robots.txt", headers={"User-Agent": self.agent})
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                    rules.parse(answer.read(500 << 10).decode("utf-8", "replace").splitlines())
            except urllib.error.HTTPError as err:
                if not 400 <= err.code < 500:
                    raise Refused(f"robots.txt cannot be read ({err.code})", where=host, do="try again later") from None
                rules.parse([])
            except (OSError, http.client.HTTPException) as err:
                raise DataError("cannot be reached", where=host, why=str(getattr(err, "reason", "") or err),
                                do="see to the network, then run it again") from err  # fmt: skip
            self.robots[host] = rules
        if not self.robots[host].can_fetch(AGENT, url):
            raise Refused(
                "robots.txt forbids it", where=shown(url), do="ask the provider, or see the commands of `downloads`"
            )


def shown(url: str) -> str:
    """An address as it may be shown: signed ones carry a key behind the question mark."""
    return url.partition("?")[0]


def _host(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _is_secret(name: str) -> bool:
    return name.lower() in ("authorization", "x-api-key", "cookie")


def _strong(tag: str | None) -> str:
    return tag if tag and not tag.startswith("W/") else ""


def _tag(mark: Path) -> str:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return str(json.loads(mark.read_text(encoding="utf-8")).get("tag") or "")
    return ""


def _pour(answer: Any, part: Path, *, append: bool) -> bool:
    """The body into a file; False when it broke off."""
    with open(part, "ab" if append else "wb") as handle:
        while True:
            try:
                block = answer.read(_BLOCK)
            except http.client.IncompleteRead as err:
                handle.write(err.partial)
                return False
            except OSError:
                return False
            if not block:
                return True
            handle.write(block)


def _forget(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _check_room(path: Path, wanted: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if wanted > free:
        raise DiskFull(
            f"{wanted / 1e9:.1f} GB are to come, and {free / 1e9:.1f} GB are free", where=path.parent, do="free space"
        )


def digest(path: Path, name: str) -> str:
    state = hashlib.new(name, usedforsecurity=False)
    with open(path, "rb") as handle:
        while block := handle.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def _retry_after(value: str | None, *, default: float) -> float:
    """Seconds, from a number of them or a date."""
    if value is None:
        return default
    if value.strip().isdigit():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return default
