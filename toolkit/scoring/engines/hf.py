"""A Hugging Face model in this process: prompts as a tree, each token of it once, answers from its ends.

Decides the order of the work and what is held meanwhile; leaves the model's calls to `shared`, or to `whole` for
models that cannot go on from a joined past, and what is sampled to `sampling`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Container, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import files, hf_folder
from toolkit.errors import MissingPackage, UsageError
from toolkit.scoring.engines import Ask, How, Told, Words, Work, tree
from toolkit.scoring.hf import LoadedModel, check_hf, load_model, named

if TYPE_CHECKING:
    from toolkit.scoring.engines.shared import Past

_WORDS = ("generation_config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "added_tokens.json")


def fingerprint(folder: Path) -> str:
    """SHA-256 of what decides a model folder's answers: config, weights and tokenizer; not its card. Raises as
    `check_hf`."""
    check_hf(folder)
    more = (folder / name for name in (hf_folder.CONFIG, "special_tokens_map.json", *_WORDS))
    digest = hashlib.sha256()
    for file in sorted({*hf_folder.weight_files(folder), *(path for path in more if path.is_file())}):
        digest.update(f"{file.name}\0{files.sha256_file(file)}\n".encode())
    return digest.hexdigest()


class Transformers:
    """The engine of an HF folder, or of a model that is loaded already; a folder is loaded when it is first asked.

    `batch_tokens` bounds the tokens that go through the model at once, without those that they share. No result depends
    on it beyond rounding.
    """

    name = "transformers"

    def __init__(self, model: Path | LoadedModel, *, name: str | None = None, batch_tokens: int = 8192) -> None:
        self._model, self.batch_tokens, self.work = model, batch_tokens, Work()
        if isinstance(model, LoadedModel):
            self.model = name or model.name
        else:
            check_hf(model)
            self.model = name or named(model)

    @property
    def folder(self) -> Path:
        return self._model.folder if isinstance(self._model, LoadedModel) else self._model

    @cached_property
    def loaded(self) -> LoadedModel:
        return self._model if isinstance(self._model, LoadedModel) else load_model(self._model, name=self.model)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.folder)

    @property
    def version(self) -> str:
        import torch
        import transformers

        return f"{transformers.__version__}, torch {torch.__version__}"

    @property
    def window(self) -> int | None:
        return self.loaded.window

    @cached_property
    def words(self) -> Words:
        return Words(encode=self.loaded.encode, decode=self.loaded.decode, bos_id=self.loaded.bos_id)

    @property
    def device(self) -> str:
        return self.loaded.device

    @property
    def dtype(self) -> str:
        return self.loaded.dtype

    @property
    def notes(self) -> tuple[str, ...]:
        return self.loaded.notes

    def logprobs(self, asks: Sequence[Ask], wanted: Container[int]) -> Iterator[tuple[int, Told]]:
        if not self._begin(asks, wanted, tails=True):
            return
        torch, shared = _modules()
        with torch.inference_mode(), self._room(torch):
            if not shared.fits(self.loaded):
                from toolkit.scoring.engines import whole

                yield from whole.logprobs(self, asks, wanted)
                return
            # A row of several tokens to judge is copied for each of them.
            own = [max((len(tail) for tail in ask.tails), default=1) - 1 for ask in asks]
            copies = max((sum(len(tail) > 1 for tail in ask.tails) for ask in asks), default=0)
            for before, batch in self._batches(asks, wanted, own, copies=max(1, copies)):
                start = before[0][0].shape[-2] if before else 0
                told = self._judge(before, [asks[i] for i in batch], start)
                yield from ((i, one) for i, one in zip(batch, told, strict=True) if i in wanted)

    def generate(self, asks: Sequence[Ask], wanted: Container[int], how: How) -> Iterator[tuple[int, tuple[str, ...]]]:
        if not self._begin(asks, wanted, tails=False):
            return
        torch, shared = _modules()
        from toolkit.scoring.engines import sampling, whole

        with torch.inference_mode(), self._room(torch):
            if not shared.fits(self.loaded):
                yield from whole.generate(self, asks, wanted, how)
                return
            for before, batch in self._batches(asks, wanted, [how.max_tokens] * len(asks), copies=how.n):
                start = before[0][0].shape[-2] if before else 0
                rows = [asks[i].ids[start:] for i in batch]
                states, own = shared.suffixes(self.loaded, before, rows, keep=True)
                self.work.tokens += len(rows) * max(map(len, rows))
                made = sampling.texts(self, states, before, own, [asks[i] for i in batch], how)
                yield from ((i, texts) for i, texts in zip(batch, made, strict=True) if i in wanted)

    @contextlib.contextmanager
    def _room(self, torch: Any) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            do = f"give a smaller batch_tokens than {self.batch_tokens}: what was answered is kept"
            raise UsageError("the GPU's memory is full", where=self.model, do=do) from None

    def _begin(self, asks: Sequence[Ask], wanted: Container[int], *, tails: bool) -> int:
        some = [ask for place, ask in enumerate(asks) if place in wanted]
        self.work.asks += len(some)
        self.work.unique_tokens += tree.unique([ask.ids for ask in some], [ask.tails for ask in some if tails])
        return len(some)

    def _batches(
        self, asks: Sequence[Ask], wanted: Container[int], more: Sequence[int], *, copies: int
    ) -> Iterator[tuple[Past, list[int]]]:
        """(what stands before them, places of asks) for each batch in which one is wanted; a part is encoded before the
        branches that go on from it, and let go after the last. `more[i]` tokens will stand after ask i."""
        from toolkit.scoring.engines import shared

        stack: list[tuple[tree.Node, Past, int]] = [(self._plan(asks), [], 0)]
        while stack:
            node, before, at = stack.pop()
            if not any(i in wanted for i in node.all()):
                continue
            before = shared.extend(self.loaded, before, asks[node.first].ids[at : node.end])
            self.work.tokens += node.end - at
            lengths = [len(asks[i].ids) - node.end + more[i] for i in node.rows]
            for batch in tree.batches(lengths, past=node.end, copies=copies, tokens=self.batch_tokens):
                places = [node.rows[place] for place in batch]
                if any(i in wanted for i in places):
                    yield before, places
            stack += [(child, before, node.end) for child in reversed(node.children)]

    def _plan(self, asks: Sequence[Ask]) -> tree.Node:
        return tree.plan([ask.ids for ask in asks], tree.WORTH[self.loaded.device])

    def _judge(self, before: Past, asks: Sequence[Ask], start: int) -> list[Told]:
        """Prompts once, from `before` on; then every form of several tokens goes on from its prompt."""
        from toolkit.scoring.engines import shared

        more = [(row, j) for row, ask in enumerate(asks) for j, tail in enumerate(ask.tails) if len(tail) > 1]
        rows = [ask.ids[start:] for ask in asks]
        states, own = shared.suffixes(self.loaded, before, rows, keep=bool(more))
        self.work.tokens += len(rows) * max(map(len, rows))
        firsts = shared.pick(self.loaded, states, [[tail[0] for tail in ask.tails] for ask in asks])
        found = [[[value] for value in values] for values in firsts]
        lengths = [len(asks[row].tails[j]) - 1 for row, j in more]
        width = max(map(len, rows))
        for batch in tree.batches(lengths, past=start + width, copies=1, tokens=self.batch_tokens):
            which = [more[place] for place in batch]
            tails = [asks[row].tails[j] for row, j in which]
            made = shared.tails(
                self.loaded,
                before,
                own,
                rows=[row for row, _ in which],
                lengths=[len(rows[row]) for row, _ in which],
                ids=[tail[:-1] for tail in tails],
            )
            self.work.tokens += len(tails) * max(len(tail) - 1 for tail in tails)
            for (row, j), states, tail in zip(which, made, tails, strict=True):
                values = shared.pick(self.loaded, states, [[token] for token in tail[1:]])
                found[row][j] += [value for (value,) in values]
        return [Told(logprobs=tuple(tuple(values) for values in forms)) for forms in found]


def _modules() -> tuple[Any, Any]:
    try:
        import torch

        from toolkit.scoring.engines import shared
    except ImportError as err:
        raise MissingPackage(f"scoring needs {err.name}", do="install the extra 'score'") from err
    return torch, shared
