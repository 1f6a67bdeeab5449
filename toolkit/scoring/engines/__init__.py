"""What answers questions: a model in this process, or a server. Each is asked in the same words.

Decides what an engine is asked and tells; leaves how it works to the modules beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from toolkit.errors import UsageError, nearest

ENGINES = ("transformers", "vllm", "server")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A prompt and the ways to go on from it that are to be judged; generation takes the prompt alone.

    `ids` and `tails` are `text` and `forms` as tokens, empty for an engine without a tokenizer. `key` is the item's:
    what is sampled depends on it and the seed, and not on the prompts beside it.
    """

    key: str
    text: str
    ids: list[int]
    forms: tuple[str, ...] = ()
    tails: tuple[list[int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Told:
    """For each form the log-probability (natural) of each of its tokens. Of the forms in `bounded` an engine knows only
    that they are not likelier than what stands there."""

    logprobs: tuple[tuple[float, ...], ...]
    bounded: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class How:
    """How texts are generated: `n` for each ask, each of at most `max_tokens` and without what a `stop` string begins;
    the likeliest token each time where the temperature is 0. `penalty` is taken off a token's logit for each time that
    it has come."""

    n: int = 1
    temperature: float = 0.0
    max_tokens: int
    stop: tuple[str, ...] = ()
    seed: int = 0
    penalty: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Words:
    """The tokenizer's part: `encode` adds no special tokens."""

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    bos_id: int | None


@dataclass(kw_only=True)
class Work:
    """What an engine has done: prompts that it was asked, tokens that went through the model with their padding, and
    how many had to."""

    asks: int = 0
    tokens: int = 0
    unique_tokens: int = 0


class Engine(Protocol):
    """Results come as (place of the ask, what it is told), in the engine's own order, as soon as they are there.

    Only the asks at the places `wanted` are answered. The others are there so that an engine in this process can put
    together the same batches whatever is known already: a scoring that was stopped ends with the same numbers.
    """

    name: str
    model: str
    work: Work

    @property
    def folder(self) -> Path | None:
        """With the tokenizer and its chat template, where there is one."""
        ...

    @property
    def version(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Of the model: no two that answer differently have the same."""
        ...

    @property
    def window(self) -> int | None: ...

    @property
    def words(self) -> Words | None: ...

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def logprobs(self, asks: Sequence[Ask], wanted: Container[int]) -> Iterator[tuple[int, Told]]: ...

    def generate(self, asks: Sequence[Ask], wanted: Container[int], how: How) -> Iterator[tuple[int, tuple[str, ...]]]:
        """`how.n` texts for each ask."""
        ...


def load(
    model: str | Path,
    *,
    engine: str = "transformers",
    name: str | None = None,
    url: str | None = None,
    tokenizer: str | Path | None = None,
    batch_tokens: int = 8192,
) -> Engine:
    """The engine for `model`: an HF folder, or for `server` the name that it serves at `url`, with the folder of its
    `tokenizer` where prompts shall be sent as token ids. Loads nothing before it is asked.

    Raises UsageError for an engine that there is not, and for options that belong to another.
    """
    if engine not in ENGINES:
        raise UsageError(f"unknown engine '{engine}'", do=nearest(engine, ENGINES))
    if (url is not None) != (engine == "server"):
        raise UsageError("a server needs its address" if url is None else f"engine '{engine}' has no address",
                         do="give --engine server and --url http://HOST:PORT")  # fmt: skip
    if tokenizer is not None and engine != "server":
        raise UsageError("the tokenizer of a model in this process is its own", do="leave --tokenizer out")
    if batch_tokens < 1:
        raise UsageError(f"batch_tokens must be at least 1, not {batch_tokens}")
    if engine == "server":
        from toolkit.scoring.engines.server import Server

        return Server(url=str(url), model=str(model), name=name, tokenizer=tokenizer)
    if engine == "vllm":
        from toolkit.scoring.engines.vllm import Vllm

        return Vllm(Path(model), name=name)
    from toolkit.scoring.engines.hf import Transformers

    return Transformers(Path(model), name=name, batch_tokens=batch_tokens)
