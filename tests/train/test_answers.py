"""Rows of a finetuning: their files, their order, and the tensors that batches are made of."""

from __future__ import annotations

import resource
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import DataError, DiskFull
from toolkit.train import answers

ROWS = [((5, 6, 7, 8), 2), ((9, 10), 1), ((11, 12, 13), 1)]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    answers.write(tmp_path / "rows", ROWS)
    return tmp_path / "rows"


def test_rows_come_back_as_they_were(there: Path) -> None:
    found = answers.read(there)
    assert [(tuple(map(int, ids)), begin) for ids, begin in (found[n] for n in range(len(found)))] == ROWS


def test_no_rows_are_rows_too(tmp_path: Path) -> None:
    assert answers.write(tmp_path / "none", []) == 0
    assert len(answers.read(tmp_path / "none")) == 0


@pytest.mark.parametrize("damage", ["cut ids", "no ids", "cut table", "other table", "answer outside", "pickle"])
def test_damaged_files_are_refused(there: Path, damage: str) -> None:
    ids, table = Path(f"{there}.bin"), Path(f"{there}.npy")
    if damage == "cut ids":
        ids.write_bytes(ids.read_bytes()[:-1])
    elif damage == "no ids":
        ids.unlink()
    elif damage == "cut table":
        table.write_bytes(table.read_bytes()[:-4])
    elif damage == "other table":
        np.save(table, np.zeros((2, 2)))
    elif damage == "answer outside":
        np.save(table, np.array([[0, 4, 4]]))
    else:
        np.save(table, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        answers.read(there)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(DiskFull):
            answers.write(tmp_path / "rows", ((tuple(range(100)), 50) for _ in range(100)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(1, 5), st.integers(1, 9999))
def test_each_epoch_has_every_row_once_and_an_order_of_its_own(length: int, epochs: int, seed: int) -> None:
    taken = [answers.at(position, length, seed) for position in range(length * epochs)]
    for epoch in range(epochs):
        assert sorted(taken[epoch * length : (epoch + 1) * length]) == list(range(length))
    assert taken == [answers.at(position, length, seed) for position in range(length * epochs)]
    if length > 20 and epochs > 1:
        assert taken[:length] != taken[length : 2 * length]


@pytest.mark.parametrize(("weight", "counts"), [(1.0, {1: 40}), (2.0, {2: 40}), (0.5, {1: 20}), (1.25, {1: 30, 2: 10})])
def test_a_weight_is_how_often_a_row_comes(weight: float, counts: dict[int, int]) -> None:
    table = np.arange(120).reshape(40, 3)
    found = Counter(map(tuple, answers.repeated(table, weight, seed=3).tolist()))
    assert Counter(found.values()) == counts
    assert np.array_equal(answers.repeated(table, weight, seed=3), answers.repeated(table, weight, seed=3))


examples = st.lists(
    st.integers(2, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), min_size=1, max_size=12
)


def test_batches_hold_every_example_and_nothing_else() -> None:
    """Padded and packed tensors have the same tokens, labels and weights, example by example; and masks keep apart."""
    pytest.importorskip("torch")
    from toolkit.train import answer_tensors

    @settings(deadline=None, max_examples=25)
    @given(examples, st.integers(1, 4), st.sampled_from([16, 32]))
    def holds(made: list[tuple[int, int]], piles: int, multiple: int) -> None:
        given = [
            (np.arange(1000 * n + 1000, 1000 * n + 1000 + length), answer) for n, (length, answer) in enumerate(made)
        ]
        given = given * piles  # a number that can be dealt out
        dealt = answer_tensors.deal(given, piles)
        assert {len(pile) for pile in dealt} == {len(made)}
        lengths = [sum(len(ids) for ids, _ in pile) for pile in dealt]
        assert max(lengths) - min(lengths) <= max(length for length, _ in made)
        wanted = Counter((tuple(map(int, ids)), answer if answer < len(ids) else None) for ids, answer in given)
        for batch in (
            answer_tensors.padded(given, pad=7, multiple=multiple),
            answer_tensors.packed(dealt, pad=7, multiple=multiple),
        ):
            assert batch["tokens"].shape[1] % multiple == 0
            assert Counter(_examples(batch)) == wanted
            _apart(batch["position_ids"].numpy(), answer_tensors.apart(batch["position_ids"]).numpy())

    holds()


def _examples(batch: dict[str, Any]) -> list[tuple[tuple[int, ...], int | None]]:
    found = []
    for tokens, labels, weights, positions in zip(
        *(batch[name].numpy() for name in ("tokens", "labels", "loss_mask", "position_ids")), strict=True
    ):
        starts = [*np.flatnonzero(positions == 0), len(tokens)]
        for begin, end in zip(starts, starts[1:], strict=False):
            assert np.array_equal(positions[begin:end], np.arange(end - begin))
            ids = labels[begin:end]
            real = int((ids != 7).sum()) if 7 in ids else len(ids)
            if real == 0:
                assert not weights[begin:end].any()
                continue
            assert (ids[real:] == 7).all() and not weights[begin + real : end].any()
            assert np.array_equal(tokens[begin + 1 : begin + real], ids[: real - 1])
            loss = np.flatnonzero(weights[begin:end])
            assert np.array_equal(loss, np.arange(loss[0], real)) if len(loss) else True
            found.append(((int(tokens[begin]), *map(int, ids[:real])), int(loss[0]) + 1 if len(loss) else None))
    return found


def _apart(positions: Any, mask: Any) -> None:
    assert mask.shape == (len(positions), 1, positions.shape[1], positions.shape[1])
    for allowed, where in zip(~mask[:, 0], positions, strict=True):
        for at, position in enumerate(where):
            assert np.array_equal(np.flatnonzero(allowed[at]), np.arange(at - position, at + 1))
