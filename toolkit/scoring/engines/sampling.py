"""Text from a model, token by token: which token comes next, and when a text ends.

Each text has random numbers of its own, by the seed, the item and its place among the item's texts, so that what else
is in the batch changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from toolkit.errors import CheckpointError
from toolkit.scoring.engines import Ask, How, shared
from toolkit.scoring.hf import LoadedModel

if TYPE_CHECKING:
    from toolkit.scoring.engines.hf import Transformers
    from toolkit.scoring.engines.shared import Past

_ROOM = 64  # tokens by which the keys and values of a text grow at once
_LOOK_BACK = 4  # tokens to a character of a stop string: byte by byte, where the vocabulary lacks it


class Row:
    """One text in the making. It ends at a token that ends texts, a stop string, `max_tokens`, or the window's end."""

    def __init__(self, ask: Ask, number: int, how: How, loaded: LoadedModel) -> None:
        self.ids: list[int] = []
        self.pieces = loaded.pieces
        self.how, self.model, self._decode, self._ends = how, loaded.name, loaded.decode, _ends(loaded)
        self._random = random.Random(f"{how.seed}\0{ask.key}\0{number}")
        self.room = min(how.max_tokens, (loaded.window or len(ask.ids) + how.max_tokens) - len(ask.ids))
        self._tail = _LOOK_BACK * (max(map(len, how.stop), default=0) + 1)
        self.done = self.room < 1

    def chance(self) -> float:
        return self._random.random()

    def take(self, token: int) -> None:
        if token in self._ends:
            self.done = True
            return
        self.ids.append(token)
        stopped = self.how.stop and any(stop in self._decode(self.ids[-self._tail :]) for stop in self.how.stop)
        self.done = bool(stopped) or len(self.ids) >= self.room

    def text(self) -> str:
        text = self._decode(self.ids) if self.ids else ""
        found = [at for stop in self.how.stop if (at := text.find(stop)) >= 0]
        return text[: min(found)] if found else text


def _ends(loaded: LoadedModel) -> frozenset[int]:
    found: set[int] = set()
    for config in (loaded.model.config, getattr(loaded.model, "generation_config", None)):
        value = getattr(config, "eos_token_id", None)
        found |= set(value) if isinstance(value, (list, tuple)) else {value} if value is not None else set()
    return frozenset(found)


def choose(logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
    """The next token of each row [rows, vocabulary]: the likeliest, or one drawn at the temperature."""
    logits, how = logits.float(), rows[0].how
    temperature = how.temperature
    if not torch.isfinite(logits.amax(-1)).all():
        raise CheckpointError(
            "logits that are not finite numbers",
            where=rows[0].model,
            why="the weights hold NaN or infinite values, or overflow in this precision",
        )
    logits = logits[:, : rows[0].pieces]  # rows beyond are padding, and no tokens
    if how.penalty:
        for place, row in enumerate(rows):
            if row.ids:
                ids, counts = torch.tensor(row.ids, device=logits.device).unique(return_counts=True)
                logits[place, ids] -= how.penalty * counts
    if temperature == 0:
        return logits.argmax(-1).tolist()
    chances = (logits.double() / temperature).softmax(-1).cumsum(-1)
    drawn = torch.tensor([[row.chance()] for row in rows], dtype=torch.double, device=logits.device)
    found = torch.searchsorted(chances, drawn * chances[:, -1:], right=True)
    return found.clamp(max=logits.shape[-1] - 1)[:, 0].tolist()


def texts(
    engine: Transformers, states: torch.Tensor, before: Past, own: Past, asks: Sequence[Ask], how: How
) -> list[tuple[str, ...]]:
    """`how.n` texts for each prompt, of which `states` are the last states and `before` + `own` keys and values."""
    loaded = engine.loaded
    head, device = loaded.model.get_output_embeddings(), shared.device_of(loaded)
    start, width = (past[0][0].shape[-2] if past else 0 for past in (before, own))
    rows = [Row(ask, number, how, loaded) for ask in asks for number in range(how.n)]
    origin = torch.arange(len(asks), device=device).repeat_interleave(how.n)
    lengths = torch.tensor([len(ask.ids) - start for ask in asks], device=device)[origin]
    grown = Growing([(before, None), (own, origin)], len(rows))
    active = [i for i, row in enumerate(rows) if not row.done]
    logits = head(states)
    logits = logits.index_select(0, origin.to(logits.device))[active]
    if len(active) < len(rows):
        grown.keep(active)
    step = 0
    while active:
        still = []
        for place, token in enumerate(choose(logits, [rows[i] for i in active])):
            rows[active[place]].take(token)
            if not rows[active[place]].done:
                still.append(place)
        if len(still) < len(active):
            grown.keep(still)
            active = [active[place] for place in still]
        if not active:
            break
        own_lengths = lengths[torch.tensor(active, device=device)]
        new = torch.ones(1, step + 1, dtype=torch.bool, device=device)
        made = shared.forward(
            loaded,
            torch.tensor([rows[i].ids[-1:] for i in active], device=device),
            positions=(start + own_lengths + step)[:, None],
            mask=shared.seen(own_lengths, start, width, new),
            cache=grown,
        )
        engine.work.tokens += len(active)
        logits, step = head(made[:, -1]), step + 1
    return [tuple(row.text() for row in rows[i * how.n : (i + 1) * how.n]) for i in range(len(asks))]


class Growing(shared.Joined):
    """One copy of a past for every text, with room for what comes: a step adds to it and copies nothing."""

    def __init__(self, pasts: Sequence[tuple[Past, torch.Tensor | None]], rows: int) -> None:
        super().__init__(pasts)
        self._rows, self._held, self._used = rows, [], super().get_seq_length()
        for layer in range(len(self.pasts[0][0])):
            pair = []
            for kind in (0, 1):
                parts = []
                for past, which in self.pasts:
                    part = past[layer][kind]
                    part = part if which is None else part.index_select(0, which.to(part.device))
                    parts.append(part.expand(rows, -1, -1, -1) if len(part) == 1 else part)
                pair.append(_more(torch.cat(parts, dim=-2)))
            self._held.append(pair)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._used

    def keep(self, places: Sequence[int]) -> None:
        """These rows alone go on."""
        for pair in self._held:
            for kind in (0, 1):
                wanted = torch.tensor(places, dtype=torch.long, device=pair[kind].device)
                pair[kind] = pair[kind].index_select(0, wanted)

    def update(self, key_states: Any, value_states: Any, layer_idx: int, cache_kwargs: Any = None) -> tuple[Any, Any]:
        pair, until = self._held[layer_idx], self._used + key_states.shape[-2]
        for kind, new in enumerate((key_states, value_states)):
            if pair[kind].shape[-2] < until:
                pair[kind] = _more(pair[kind][..., : self._used, :])
            pair[kind][..., self._used : until, :] = new
        if layer_idx == len(self._held) - 1:
            self._used = until
        return pair[0][..., :until, :], pair[1][..., :until, :]


def _more(part: torch.Tensor) -> torch.Tensor:
    room = max(_ROOM, part.shape[-2] // 4)
    return torch.cat([part, part.new_zeros(*part.shape[:2], room, part.shape[3])], dim=-2)
