"""Log-probabilities of answers: each prompt goes through the model once, its answers continue from its cache.

Decides batches and where logits are made (at the answers' positions alone); leaves what the numbers mean to `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.scoring.encode import Request
from toolkit.scoring.hf import LoadedModel

if TYPE_CHECKING:
    import torch

# Models whose logits are lm_head(last hidden state) and whose cache is plain keys and values of all positions.
SHARED = ("llama", "mistral", "qwen2", "qwen3")
_LOGIT_CELLS = 1 << 25  # rows x vocabulary of one piece of logits: 128 MiB in fp32


def answer_logprobs(
    loaded: LoadedModel,
    requests: Sequence[Request],
    *,
    batch_tokens: int,
    advance: Callable[[int], None] = lambda n: None,
) -> list[list[list[float]]]:
    """For each request, for each answer, the log-probability (natural) of each of its tokens, in the given order.

    `batch_tokens` bounds prompt tokens held at once, counted once per answer where answers have several tokens.
    The numbers do not depend on it beyond rounding.
    """
    import torch

    shared = shares_prompt(loaded)
    forward = _shared if shared else _whole
    results: list[list[list[float]]] = [[] for _ in requests]
    with torch.inference_mode():
        for batch in _batches(requests, batch_tokens, shared):
            for i, values in zip(batch, forward(loaded, [requests[i] for i in batch]), strict=True):
                results[i] = values
            advance(len(batch))
    return results


def shares_prompt(loaded: LoadedModel) -> bool:
    """Whether answers may continue from a padded cache. A sliding window counts padding, so it must not be in use."""
    config = loaded.model.config
    sliding = getattr(config, "sliding_window", None) is not None
    return getattr(config, "model_type", "") in SHARED and not sliding


def _width(request: Request, shared: bool) -> int:
    if request.one_token:
        return len(request.prefix)
    return (len(request.prefix) + max(map(len, request.tails))) * len(request.tails)


def _batches(requests: Sequence[Request], batch_tokens: int, shared: bool) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, so that memory runs out at once or never."""
    order = sorted(range(len(requests)), key=lambda i: (-len(requests[i].prefix), -_width(requests[i], shared), i))
    batch: list[int] = []
    widest = 0
    for i in order:
        width = _width(requests[i], shared)
        if batch and max(widest, width) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch, widest = [], 0
        batch.append(i)
        widest = max(widest, width)
    if batch:
        yield batch


def _padded(rows: Sequence[Sequence[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both [rows, longest], padded on the right."""
    import torch

    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids.to(device), mask.to(device)


def _pick(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    states: torch.Tensor,
    targets: Sequence[Sequence[int]],
    vocab: int,
) -> list[list[float]]:
    """log softmax(logits_of(row))[target] for each target of each row of `states` [n, width]; in pieces, in fp32."""
    import torch

    step = max(1, _LOGIT_CELLS // vocab)
    out: list[list[float]] = []
    for at in range(0, len(targets), step):
        piece = targets[at : at + step]
        logits = logits_of(states[at : at + step]).float()
        rows = torch.tensor([row for row, wanted in enumerate(piece) for _ in wanted], device=logits.device)
        tokens = torch.tensor([token for wanted in piece for token in wanted], device=logits.device)
        values = iter((logits[rows, tokens] - logits.logsumexp(1)[rows]).tolist())
        out += [[next(values) for _ in wanted] for wanted in piece]
    return out


def _shared(loaded: LoadedModel, batch: Sequence[Request]) -> list[list[list[float]]]:
    """Prompts once; then every tail of several tokens continues from its prompt's keys and values."""
    import torch
    from transformers import DynamicCache

    body, head = loaded.model.base_model, loaded.model.get_output_embeddings()
    device = loaded.model.get_input_embeddings().weight.device
    more = [(b, j) for b, request in enumerate(batch) for j, tail in enumerate(request.tails) if len(tail) > 1]
    cache = DynamicCache() if more else None
    ids, mask = _padded([request.prefix for request in batch], device)
    states = body(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=bool(more)).last_hidden_state
    ends = [len(request.prefix) - 1 for request in batch]
    states = states[torch.arange(len(batch), device=states.device), torch.tensor(ends, device=states.device)]

    firsts = [[tail[0] for tail in request.tails] for request in batch]
    results = [[[value] for value in values] for values in _pick(head, states, firsts, loaded.vocab_size)]
    if not more:
        return results

    rows = torch.tensor([b for b, _ in more], device=device)
    cache.batch_select_indices(rows)
    tails = [batch[b].tails[j] for b, j in more]
    ids, tail_mask = _padded([tail[:-1] for tail in tails], device)
    starts = torch.tensor([len(batch[b].prefix) for b, _ in more], device=device)[:, None]
    states = body(
        input_ids=ids,
        attention_mask=torch.cat([mask[rows], tail_mask], dim=1),
        position_ids=starts + torch.arange(ids.shape[1], device=device),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    targets = [[token] for tail in tails for token in tail[1:]]
    values = iter(_pick(head, states[tail_mask.bool().to(states.device)], targets, loaded.vocab_size))
    for (b, j), tail in zip(more, tails, strict=True):
        results[b][j] += [next(values)[0] for _ in tail[1:]]
    return results


def _whole(loaded: LoadedModel, batch: Sequence[Request]) -> list[list[list[float]]]:
    """Any causal model: each different prompt + tail goes through whole, and its own logits are taken."""
    device = loaded.model.get_input_embeddings().weight.device
    texts = {tuple(r.prefix + tail[:-1]): 0 for r in batch for tail in r.tails}
    texts = {text: row for row, text in enumerate(texts)}
    ids, mask = _padded(list(texts), device)
    logits = loaded.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    results = []
    for request in batch:
        start = len(request.prefix) - 1
        rows = [logits[texts[tuple(request.prefix + tail[:-1])]][start : start + len(tail)] for tail in request.tails]
        picked = [
            _pick(lambda part: part, row, [[token] for token in tail], loaded.vocab_size)
            for row, tail in zip(rows, request.tails, strict=True)
        ]
        results.append([[value for (value,) in values] for values in picked])
    return results
