"""Which beginnings prompts share, and which prompts go through the model together.

Decides the order of the work by token ids alone; leaves the model to `shared`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

# A shared part is encoded by a call of its own when that saves so many tokens: what a call costs besides them.
WORTH = {"cpu": 32, "cuda": 256}
_DEEPEST = 100  # parts within parts; beyond it prompts are encoded from there on, each by itself
_PADDING = 1 / 32  # of a batch's own tokens


@dataclass(kw_only=True)
class Node:
    """A beginning of `end` tokens that all prompts of this branch share; `rows` go on from it by themselves."""

    first: int  # a prompt that has it
    end: int
    rows: list[int] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    size: int = 0

    def all(self) -> Iterator[int]:
        yield from self.rows
        for child in self.children:
            yield from child.all()


def shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    least = min(len(a), len(b))
    if a[:least] == b[:least]:
        return least
    low, high = 0, least
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def plan(prompts: Sequence[Sequence[int]], worth: int = 0) -> Node:
    """The tree of all prompts, in which each part saves at least `worth` tokens.

    Each prompt keeps its last token to itself: what follows it is asked of the model.
    """
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])
    return _grow(prompts, order, 0, 0, worth)


def _grow(prompts: Sequence[Sequence[int]], order: Sequence[int], known: int, deep: int, worth: int) -> Node:
    """The branch of the prompts in `order` (sorted), which share at least `known` tokens."""
    first, last = prompts[order[0]], prompts[order[-1]]
    end = min(known + shared(first[known:], last[known:]), min(len(prompts[i]) for i in order) - 1)
    node = Node(first=order[0], end=end, size=len(order))
    if deep == _DEEPEST:
        node.rows = list(order)
        return node
    at = 0
    while at < len(order):
        token, until = prompts[order[at]][end], at + 1
        while until < len(order) and prompts[order[until]][end] == token:
            until += 1
        run, at = order[at:until], until
        if len(run) == 1 or len(prompts[run[0]]) == end + 1:  # the shortest comes first
            node.rows += run
            continue
        child = _grow(prompts, run, end, deep + 1, worth)
        if (child.size - 1) * (child.end - end) >= worth:
            node.children.append(child)
        else:
            node.rows += child.rows
            node.children += child.children
    return node


def batches(lengths: Sequence[int], *, past: int, copies: int, tokens: int) -> Iterator[list[int]]:
    """Places in `lengths` in batches of similar length, longest first, so that memory runs out at once or never.

    `past` tokens stand before each row, and a row becomes `copies`. `tokens` bounds a batch's own tokens; with those
    before them there may be four times as many.
    """
    batch: list[int] = []
    longest = own = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        rows = len(batch) + 1
        wide = longest * rows * copies > tokens or (longest + past) * rows * copies > 4 * tokens
        if batch and (wide or longest * rows - (own + lengths[i]) > _PADDING * (own + lengths[i])):
            yield batch
            batch, longest, own = [], 0, 0
        batch.append(i)
        longest, own = max(longest, lengths[i]), own + lengths[i]
    if batch:
        yield batch


def unique(prompts: Sequence[Sequence[int]], tails: Sequence[Sequence[Sequence[int]]] = ()) -> int:
    """How many tokens any engine must process at least: the nodes of the tree of all prompts, each with its tails but
    for their last tokens, whose log-probabilities are made before them."""
    whole = sorted(prompts)
    count = sum(len(text) - (shared(whole[i - 1], text) if i else 0) for i, text in enumerate(whole))
    for several in tails:
        parts = sorted(tail[:-1] for tail in several)
        count += sum(len(part) - (shared(parts[i - 1], part) if i else 0) for i, part in enumerate(parts))
    return count
