"""A Llama-like model on prompts that share beginnings: each token of the tree goes through it once.

Decides how keys and values are kept and joined and where logits are made; leaves the order of the work to `tree`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from toolkit.scoring.hf import LoadedModel

Past = list[tuple[torch.Tensor, torch.Tensor]]
"""By layer, keys and values, both [rows or 1, heads, tokens, size of a head]."""

# Models whose logits are lm_head(last hidden state) and whose cache is plain keys and values of all positions.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_LOGIT_CELLS = 1 << 25  # rows x vocabulary of one piece of logits: 128 MiB in fp32


def fits(loaded: LoadedModel) -> bool:
    """Whether the model is one of those. A sliding window counts padding, so it must not be in use."""
    config = loaded.model.config
    sliding = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    plain = getattr(config, "_attn_implementation", "") == "sdpa"  # which takes masks of true and false
    return getattr(config, "model_type", "") in FAMILIES and plain and not sliding


class Joined(DynamicCache):
    """Keys and values of several pasts before the new ones. A past of one row stands before every row, and is copied
    for one layer at a time; `made` takes the new ones where they are wanted."""

    def __init__(self, pasts: Sequence[tuple[Past, torch.Tensor | None]], made: Past | None = None) -> None:
        super().__init__()
        self.pasts, self.made = [past for past in pasts if past[0]], made

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return sum(past[0][0].shape[-2] for past, _ in self.pasts)

    def update(self, key_states: Any, value_states: Any, layer_idx: int, cache_kwargs: Any = None) -> tuple[Any, Any]:
        if self.made is not None:
            self.made.append((key_states, value_states))
        found = []
        for kind, new in enumerate((key_states, value_states)):
            parts = []
            for past, rows in self.pasts:
                part = past[layer_idx][kind]
                part = part if rows is None else part.index_select(0, rows.to(part.device))
                parts.append(part.expand(len(new), -1, -1, -1) if len(part) == 1 else part)
            found.append(torch.cat([*parts, new], dim=-2) if parts else new)
        return found[0], found[1]


def device_of(loaded: LoadedModel) -> torch.device:
    return loaded.model.get_input_embeddings().weight.device


def padded(rows: Sequence[Sequence[int]], device: Any) -> torch.Tensor:
    """Token ids [rows, longest], zeros on the right."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids.to(device)


def causal(width: int, past: int, device: Any) -> torch.Tensor | None:
    """[1, 1, width, past + width], true where a token may look; None where torch's own causal mask is the same. What
    pads a row lies behind all that its tokens look at."""
    if past == 0:
        return None
    return torch.ones(width, past + width, dtype=torch.bool, device=device).tril(past)[None, None]


def forward(
    loaded: LoadedModel, ids: torch.Tensor, *, positions: torch.Tensor, mask: torch.Tensor | None, cache: DynamicCache
) -> torch.Tensor:
    """Last hidden states [rows, width, hidden]; `cache` takes keys and values."""
    body = loaded.model.base_model
    made = body(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
    return made.last_hidden_state


def extend(loaded: LoadedModel, before: Past, ids: Sequence[int]) -> Past:
    """The keys and values of `before` and of the tokens after it, in one row."""
    if not ids:
        return before
    device, made = device_of(loaded), Past()
    start = before[0][0].shape[-2] if before else 0
    forward(
        loaded,
        torch.tensor([list(ids)], device=device),
        positions=torch.arange(start, start + len(ids), device=device)[None],
        mask=causal(len(ids), start, device),
        cache=Joined([(before, None)], made),
    )
    if not before:
        return made
    pairs = zip(before, made, strict=True)
    return [(torch.cat([k, new_k], dim=-2), torch.cat([v, new_v], dim=-2)) for (k, v), (new_k, new_v) in pairs]


def suffixes(
    loaded: LoadedModel, before: Past, rows: Sequence[Sequence[int]], *, keep: bool
) -> tuple[torch.Tensor, Past]:
    """Rows that all go on from `before`: the state at each one's last token [rows, hidden], and their keys and values
    where those are wanted, padded on the right."""
    device, made = device_of(loaded), Past()
    start = before[0][0].shape[-2] if before else 0
    ids = padded(rows, device)
    states = forward(
        loaded,
        ids,
        positions=torch.arange(start, start + ids.shape[1], device=device)[None].expand(len(rows), -1),
        mask=causal(ids.shape[1], start, device),
        cache=Joined([(before, None)], made if keep else None),
    )
    last = torch.tensor([len(row) - 1 for row in rows], device=states.device)
    return states[torch.arange(len(rows), device=states.device), last], made


def seen(lengths: torch.Tensor, start: int, width: int, new: torch.Tensor) -> torch.Tensor:
    """[rows, 1, new, start + width + new]: all of `start`, of `width` each row's own length, of the new as `new`."""
    rows, device = len(lengths), lengths.device
    own = torch.arange(width, device=device)[None] < lengths[:, None]
    before = torch.cat([torch.ones(rows, start, dtype=torch.bool, device=device), own], dim=1)
    before = before[:, None, None].expand(-1, 1, new.shape[0], -1)
    return torch.cat([before, new[None, None].expand(rows, 1, -1, -1)], dim=-1)


def tails(
    loaded: LoadedModel,
    before: Past,
    own: Past,
    *,
    rows: Sequence[int],
    lengths: Sequence[int],
    ids: Sequence[Sequence[int]],
) -> list[torch.Tensor]:
    """States of the tokens `ids[i]` after row `rows[i]` of `own`, of which the first `lengths[i]` are its own; each
    [tokens, hidden]."""
    device = device_of(loaded)
    start, width = (past[0][0].shape[-2] if past else 0 for past in (before, own))
    counts, tokens = torch.tensor(lengths, device=device), padded(ids, device)
    new = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=device).tril()
    states = forward(
        loaded,
        tokens,
        positions=start + counts[:, None] + torch.arange(tokens.shape[1], device=device),
        mask=seen(counts, start, width, new),
        cache=Joined([(before, None), (own, torch.tensor(rows, device=device))]),
    )
    return [states[i, : len(row)] for i, row in enumerate(ids)]


def pick(loaded: LoadedModel, states: torch.Tensor, targets: Sequence[Sequence[int]]) -> list[list[float]]:
    """log softmax(logits of states[i])[t] for each t in targets[i]; in pieces, in fp32."""
    head, step = loaded.model.get_output_embeddings(), max(1, _LOGIT_CELLS // loaded.vocab_size)
    out: list[list[float]] = []
    for at in range(0, len(targets), step):
        out += picked(head(states[at : at + step]), targets[at : at + step])
    return out


def picked(logits: torch.Tensor, targets: Sequence[Sequence[int]]) -> list[list[float]]:
    logits = logits.float()
    rows = torch.tensor([row for row, wanted in enumerate(targets) for _ in wanted], device=logits.device)
    tokens = torch.tensor([token for wanted in targets for token in wanted], device=logits.device)
    values = iter((logits[rows, tokens] - logits.logsumexp(1)[rows]).tolist())
    return [[next(values) for _ in wanted] for wanted in targets]
