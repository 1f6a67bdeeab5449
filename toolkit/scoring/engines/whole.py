"""Any causal language model: every text goes through it whole, and what is generated goes on from its own cache.

Slower than `shared` and without its demands: for models with learned positions, sliding windows, states.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from toolkit.scoring.engines import Ask, How, Told, sampling, shared, tree

if TYPE_CHECKING:
    from toolkit.scoring.engines.hf import Transformers


def logprobs(engine: Transformers, asks: Sequence[Ask], wanted: Container[int]) -> Iterator[tuple[int, Told]]:
    longest = [len(ask.ids) + max((len(tail) for tail in ask.tails), default=1) - 1 for ask in asks]
    copies = max(len({tuple(tail[:-1]) for tail in ask.tails}) for ask in asks)
    for batch in tree.batches(longest, past=0, copies=copies, tokens=engine.batch_tokens):
        if any(i in wanted for i in batch):
            told = _judge(engine, [asks[i] for i in batch])
            yield from ((i, one) for i, one in zip(batch, told, strict=True) if i in wanted)


def _judge(engine: Transformers, asks: Sequence[Ask]) -> list[Told]:
    """Each different prompt + form goes through whole, and its own logits are taken."""
    loaded, device = engine.loaded, shared.device_of(engine.loaded)
    texts = {tuple(ask.ids + tail[:-1]): 0 for ask in asks for tail in ask.tails}
    texts = {text: row for row, text in enumerate(texts)}
    ids = shared.padded(list(texts), device)
    mask = torch.zeros_like(ids)
    for text, row in texts.items():
        mask[row, : len(text)] = 1
    engine.work.tokens += ids.numel()
    logits = loaded.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    found = []
    for ask in asks:
        start = len(ask.ids) - 1
        forms = []
        for tail in ask.tails:
            rows = logits[texts[tuple(ask.ids + tail[:-1])]][start : start + len(tail)]
            forms.append(tuple(value for (value,) in shared.picked(rows, [[token] for token in tail])))
        found.append(Told(logprobs=tuple(forms)))
    return found


def generate(
    engine: Transformers, asks: Sequence[Ask], wanted: Container[int], how: How
) -> Iterator[tuple[int, tuple[str, ...]]]:
    loaded, device = engine.loaded, shared.device_of(engine.loaded)
    for place, ask in enumerate(asks):
        if place not in wanted:
            continue
        made = []
        for number in range(how.n):
            row = sampling.Row(ask, number, how, loaded)
            ids, past = torch.tensor([ask.ids], device=device), None
            while not row.done:
                out = loaded.model(input_ids=ids, past_key_values=past, use_cache=True)
                engine.work.tokens += ids.numel()
                row.take(sampling.choose(out.logits[:, -1], [row])[0])
                past, ids = out.past_key_values, torch.tensor([row.ids[-1:]], device=device)
            made.append(row.text())
        yield place, tuple(made)
