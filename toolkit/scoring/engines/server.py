"""Any server with OpenAI's /v1/completions: one generated token and its likeliest rivals, or texts.

Decides what is asked over HTTP, when an answer is asked for again and when no more; an API key comes from the
environment alone. A prompt's own log-probabilities are asked for only where an answer has several tokens: servers do
not keep the beginnings that prompts share for such requests.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Container, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from toolkit.errors import ServerError, ToolkitError, UsageError, nearest
from toolkit.scoring.engines import Ask, How, Told, Words, Work, top, tree

KEY = "OPENAI_API_KEY"
_TRIES = 5
_PAUSE_S = 1.0  # before the second try, twice as long before each other
_LONGEST_PAUSE_S = 60.0  # that a server may ask for
_TIMEOUT_S = 600.0
_AT_ONCE = 16
_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})
_MOST_BYTES = 1 << 26
_T = TypeVar("_T")


class Server:
    """A model that is served at `url`. With the folder of its tokenizer prompts are sent as token ids, else as text."""

    name, device, dtype = "server", "server", "unknown"

    def __init__(
        self, *, url: str, model: str, name: str | None = None, tokenizer: str | Path | None = None,
        pause_s: float = _PAUSE_S,
    ) -> None:  # fmt: skip
        self._base, self.served, self.model, self.work = _base(url), model, name or model, Work()
        self._tokenizer, self._pause_s, self._top, self._lock = tokenizer, pause_s, top.COUNT, threading.Lock()
        self._opener = urllib.request.build_opener(_NoRedirect)

    @cached_property
    def _card(self) -> dict[str, Any]:
        """What the server says of the model. Raises ServerError, and UsageError for a model that it does not have."""
        found = self._get("/v1/models")
        rows = found.get("data") if isinstance(found, dict) else None
        cards = {str(row.get("id")): row for row in rows or () if isinstance(row, dict)}
        if not cards:
            raise ServerError("names no model", where=self._base, do="give the address of an OpenAI-compatible server")
        if self.served not in cards:
            do = nearest(self.served, cards)
            raise UsageError(f"the server has no model '{self.served}'", where=self._base, do=do)
        return cards[self.served]

    @cached_property
    def version(self) -> str:
        try:
            found = self._get("/version")
        except ServerError:
            return "unknown"
        return str(found.get("version", "unknown"))[:80] if isinstance(found, dict) else "unknown"

    @cached_property
    def fingerprint(self) -> str:
        """Of the address and the model's name there: a server does not tell its weights."""
        told = [self._base, self.served, self._card.get("root")]
        return hashlib.sha256(json.dumps(["server", *told], default=str).encode()).hexdigest()

    @property
    def folder(self) -> Path | None:
        return None if self._tokenizer is None else Path(self._tokenizer)

    @property
    def window(self) -> int | None:
        stated = self._card.get("max_model_len")
        return stated if type(stated) is int and stated > 0 else None

    @cached_property
    def words(self) -> Words | None:
        if self._tokenizer is None:
            return None
        from toolkit.scoring.hf import tokenizer_of

        encode, decode, bos_id, _ = tokenizer_of(self._tokenizer)
        return Words(encode=encode, decode=decode, bos_id=bos_id)

    @property
    def notes(self) -> tuple[str, ...]:
        return (f"log-probabilities are those of the server's {self._top} likeliest tokens",) if self._told else ()

    _told = False

    def logprobs(self, asks: Sequence[Ask], wanted: Container[int]) -> Iterator[tuple[int, Told]]:
        places = self._begin(asks, wanted)
        self._told = True
        if any(not ask.ids for ask in asks) and any(_several(ask) for ask in asks):
            raise UsageError(
                "answers of several tokens need the model's tokenizer", where=self._base, do="give --tokenizer FOLDER"
            )
        yield from self._each(asks, places, self._judge)

    def generate(self, asks: Sequence[Ask], wanted: Container[int], how: How) -> Iterator[tuple[int, tuple[str, ...]]]:
        places = self._begin(asks, wanted)

        def ask_for(ask: Ask) -> tuple[str, ...]:
            body = {"n": how.n, "temperature": how.temperature, "max_tokens": how.max_tokens, "stop": list(how.stop)}
            body |= {"seed": seed_of(ask, how)} | ({"frequency_penalty": how.penalty} if how.penalty else {})
            choices = self._choices(ask.ids or ask.text, **body)
            texts = [choice.get("text") for choice in sorted(choices, key=lambda choice: choice.get("index") or 0)]
            if len(texts) != how.n or not all(isinstance(text, str) for text in texts):
                raise self._nonsense(f"{len(texts)} texts, where {how.n} were asked for", choices)
            return tuple(texts)

        yield from self._each(asks, places, ask_for)

    def _begin(self, asks: Sequence[Ask], wanted: Container[int]) -> list[int]:
        """The places that are wanted, those of prompts with a beginning in common after each other."""
        _ = self._card
        places = sorted((i for i in range(len(asks)) if i in wanted), key=lambda i: (asks[i].ids, asks[i].text))
        self.work.asks += len(places)
        some = [asks[i] for i in places]
        self.work.unique_tokens += tree.unique([ask.ids for ask in some], [ask.tails for ask in some])
        return places

    def _judge(self, ask: Ask) -> Told:
        if _several(ask):
            forms = [self._echo(ask.ids, tail) for tail in ask.tails]
            return Told(logprobs=tuple(forms))
        choice = self._choices(ask.ids or ask.text, max_tokens=1, temperature=0, logprobs=self._top)[0]
        try:
            likeliest = choice["logprobs"]["top_logprobs"][0]
            values = {str(text): float(value) for text, value in likeliest.items()}
            ordered = dict(sorted(values.items(), key=lambda pair: -pair[1]))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise self._nonsense("a completion without logprobs.top_logprobs", choice) from None
        if not ordered:
            raise self._nonsense("no likeliest token", choice)
        if ask.ids and all(text.startswith("token_id:") for text in ordered):
            return top.by_id(ask, {int(text.partition(":")[2]): value for text, value in ordered.items()})
        return top.by_text(ask, ordered)

    def _echo(self, ids: Sequence[int], tail: Sequence[int]) -> tuple[float, ...]:
        """The tail's own log-probabilities after the prompt."""
        choice = self._choices([*ids, *tail], max_tokens=1, temperature=0, logprobs=1, echo=True)[0]
        try:
            values = [float(value) for value in choice["logprobs"]["token_logprobs"][len(ids) : len(ids) + len(tail)]]
        except (KeyError, TypeError, ValueError):
            values = []
        if len(values) != len(tail):
            raise self._nonsense("an echo without the prompt's log-probabilities", choice)
        return tuple(values)

    def _choices(self, prompt: str | Sequence[int], **body: Any) -> list[dict[str, Any]]:
        asked = {"model": self.served, "prompt": prompt, **body}
        if isinstance(prompt, list) and "logprobs" in body:
            asked["return_tokens_as_token_ids"] = True  # vLLM's; others leave it aside
        try:
            found = self._post(asked)
        except _Refused as err:
            if body.get("logprobs", 0) <= 5 or "logprob" not in str(err):
                raise
            self._top = 5  # OpenAI's own limit
            found = self._post(asked | {"logprobs": 5})
        choices = found.get("choices") if isinstance(found, dict) else None
        if not isinstance(choices, list) or not choices or not all(isinstance(one, dict) for one in choices):
            raise self._nonsense("no completion", found)
        self._count(found.get("usage"))
        return choices

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            details = usage.get("prompt_tokens_details")
            kept = details.get("cached_tokens") if isinstance(details, dict) else 0
            numbers = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
            made = sum(value for value in numbers if type(value) is int) - (kept if type(kept) is int else 0)
            with self._lock:
                self.work.tokens += max(0, made)

    def _nonsense(self, what: str, found: Any) -> ServerError:
        why = f"it says {json.dumps(found, default=str)[:200]}"
        return ServerError(f"answers with {what}", where=self._base, why=why)

    def _get(self, path: str) -> Any:
        return self._send(urllib.request.Request(self._base + path, headers=_headers()))

    def _post(self, body: Any) -> Any:
        data = json.dumps(body).encode()
        headers = _headers() | {"Content-Type": "application/json"}
        return self._send(urllib.request.Request(self._base + "/v1/completions", data=data, headers=headers))

    def _send(self, request: urllib.request.Request) -> Any:
        pause = self._pause_s
        for number in range(1, _TRIES + 1):
            try:
                with self._opener.open(request, timeout=_TIMEOUT_S) as reply:
                    raw = reply.read(_MOST_BYTES + 1)
                break
            except urllib.error.HTTPError as err:
                with err:
                    said = " ".join(err.read(2000).decode("utf-8", "replace").split())[:300]
                if err.code not in _AGAIN:
                    raise _Refused(self._base, err.code, said) from None
                fault, wanted = f"HTTP {err.code}: {said}", err.headers.get("Retry-After", "")
            except (OSError, http.client.HTTPException) as err:
                fault, wanted = str(getattr(err, "reason", "") or err) or type(err).__name__, ""
            if number == _TRIES:
                raise ServerError(
                    f"the server does not answer, after {_TRIES} tries", where=self._base, why=fault,
                    do="when it is there again, run the same command again: what came is kept",
                )  # fmt: skip
            time.sleep(min(float(wanted), _LONGEST_PAUSE_S) if wanted.isdigit() else pause)
            pause *= 2
        try:
            if len(raw) > _MOST_BYTES:
                raise ValueError("an answer without end")
            return json.loads(raw)
        except (ValueError, RecursionError):
            said = " ".join(raw[:2000].decode("utf-8", "replace").split())[:200]
            raise ServerError("answers with what is not JSON", where=self._base, why=f"it says {said!r}",
                              do="give the address of an OpenAI-compatible server") from None  # fmt: skip

    def _each(self, asks: Sequence[Ask], places: Sequence[int], work: Callable[[Ask], _T]) -> Iterator[tuple[int, _T]]:
        """Several at once, each told as soon as it is there. After a failure nothing more is asked, and it is raised
        when what is under way has come."""
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, _T | BaseException]] = queue.SimpleQueue()
        stop = threading.Event()
        for place in places:
            todo.put(place)

        def run() -> None:
            while not stop.is_set():
                try:
                    place = todo.get_nowait()
                except queue.Empty:
                    break
                try:
                    done.put((place, work(asks[place])))
                except BaseException as err:
                    stop.set()
                    done.put((place, err))
            done.put((-1, StopIteration()))

        workers = min(_AT_ONCE, len(places))
        for _ in range(workers):
            threading.Thread(target=run, daemon=True).start()  # which nobody waits for after Ctrl-C
        failure: BaseException | None = None
        try:
            while workers:
                place, found = done.get()
                if place < 0:
                    workers -= 1
                elif isinstance(found, BaseException):
                    failure = failure or found
                else:
                    yield place, found
        finally:
            stop.set()
        if failure is not None:
            raise failure


class _Refused(ServerError):
    def __init__(self, base: str, code: int, said: str) -> None:
        do = "give --tokenizer FOLDER, so that prompts are fitted into its window" if "context" in said.lower() else ""
        do = f"set {KEY} in the environment" if code in (401, 403) else do
        super().__init__(f"the server refuses: HTTP {code}", where=base, why=said, do=do)

    __str__ = ToolkitError.__str__


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An answer from elsewhere would be another server's, and be asked for with this one's key."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _base(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"'{url}' is no address of a server", do="give http://HOST:PORT")
    if parts.username or parts.password:
        raise UsageError("the address of a server must hold no name and password", do=f"set {KEY} in the environment")
    return url.rstrip("/").removesuffix("/v1")


def _headers() -> dict[str, str]:
    key = os.environ.get(KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}


def seed_of(ask: Ask, how: How) -> int:
    """The item's own: 31 bits, which every engine takes."""
    return int.from_bytes(hashlib.sha256(f"{how.seed}\0{ask.key}".encode()).digest()[:4], "big") >> 1


def _several(ask: Ask) -> bool:
    return any(len(tail) > 1 for tail in ask.tails)
