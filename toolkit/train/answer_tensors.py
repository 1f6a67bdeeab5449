"""The tensors of a finetuning's batch: padded, or packed, where a micro-batch's examples stand in one row, one behind
the other, and none sees another. The batch, and so its loss and the number of steps, is the same either way.

Decides what stands where and what has loss; knows neither NeMo nor Megatron.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

MULTIPLE = 16  # of tokens that rows are padded to; the released code's

Example = tuple[np.ndarray, int]
"""(ids, where the answer begins); an answer that begins behind the last id is none."""


def deal(examples: Sequence[Example], piles: int) -> list[list[Example]]:
    """As many examples to each pile, longest first and to and fro, so that no pile is much longer than another."""
    order = sorted(range(len(examples)), key=lambda n: (-len(examples[n][0]), n))
    dealt: list[list[Example]] = [[] for _ in range(piles)]
    for place, number in enumerate(order):
        lap, at = divmod(place, piles)
        dealt[at if lap % 2 == 0 else piles - 1 - at].append(examples[number])
    return dealt


def padded(examples: Sequence[Example], *, pad: int, multiple: int) -> dict[str, torch.Tensor]:
    """Tensors [examples, length] of tokens, labels, loss_mask and position_ids; length is that of the longest."""
    return _tensors([[one] for one in examples], pad=pad, multiple=multiple)


def packed(piles: Sequence[Sequence[Example]], *, pad: int, multiple: int) -> dict[str, torch.Tensor]:
    """The same, [piles, length], with the examples of a pile one behind the other and position ids that begin at 0 in
    each and in the padding.
    """
    return _tensors(piles, pad=pad, multiple=multiple)


def apart(position_ids: torch.Tensor) -> torch.Tensor:
    """The attention mask [rows, 1, length, length] of packed rows, true where none may look: behind itself, and into
    what begins at another 0 of `position_ids` [rows, length].
    """
    number = (position_ids == 0).cumsum(1)
    length = number.shape[1]
    other = number[:, None, :, None] != number[:, None, None, :]
    return other | torch.ones(length, length, dtype=torch.bool, device=number.device).triu(1)


def _tensors(piles: Sequence[Sequence[Example]], *, pad: int, multiple: int) -> dict[str, torch.Tensor]:
    longest = max(sum(len(ids) - 1 for ids, _ in pile) for pile in piles)
    shape = (len(piles), math.ceil(longest / multiple) * multiple)
    tokens, labels = (np.full(shape, pad, dtype=np.int64) for _ in range(2))
    weights, positions = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.int64)
    for row, pile in enumerate(piles):
        at = 0
        for ids, answer in pile:
            end = at + len(ids) - 1
            tokens[row, at:end], labels[row, at:end] = ids[:-1], ids[1:]
            weights[row, at + answer - 1 : end] = 1.0  # the token before an answer is what predicts its first
            positions[row, at:end] = np.arange(end - at)
            at = end
        positions[row, at:] = np.arange(shape[1] - at)
    arrays = {"tokens": tokens, "labels": labels, "loss_mask": weights, "position_ids": positions}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
