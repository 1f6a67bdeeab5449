"""Finetuning on real tensors: which tokens carry loss, packed as padded, going on after a stop, adapters, export."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.conftest import Start, Trained
from toolkit import checkpoint
from toolkit.recipe.schema import Finetune
from toolkit.runs import Run
from toolkit.scoring import Item, targets
from toolkit.stages import tuning_rows
from toolkit.train import answers

pytestmark = pytest.mark.slow
TRAIN = {
    "steps": 4, "warmup_steps": 1, "lr": 1e-3, "min_lr": 1e-4, "micro_batch": 4, "global_batch": 8,
    "save_every": 2, "valid_every": 2, "valid_batches": 1, "seq_length": 256, "keep": 9,
}  # fmt: skip
CLOSE = 2e-5


@dataclass(frozen=True, kw_only=True)
class Made:
    """Rows on disk, the tokenizer for them, and what each is: ids and where the answer begins."""

    folder: Path
    way: targets.Way
    new_tokens: int
    rows: dict[str, list[targets.Row]]

    @property
    def spec(self) -> dict[str, Any]:
        return {
            "rows": str(self.folder), "tokenizer": str(self.folder / "tokenizer"), "new_tokens": self.new_tokens,
            "train": TRAIN,
        }  # fmt: skip


def items(name: str, count: int) -> list[Item]:
    """Questions and explanations of many lengths."""
    return [
        Item(
            id=f"{name}-{n}",
            question=f"Question {n}: " + "which drug relieves it, " * (n % 5) + "which one?",
            options=("Flokat", "Drubodol", "Branul", "Flubron"),
            gold=n % 4,
            explanation=f"It is number {n}" + ", as was said before" * (n % 3) + ".",
        )
        for n in range(count)
    ]


def make(prepared: Run, folder: Path, **asked: Any) -> Made:
    base = prepared.stage("shards") / "shards" / "tokenizer"
    wanted = Finetune(benchmark="demo_letters_trained", seq_length=TRAIN["seq_length"], **asked)
    way, new = tuning_rows.prepare(wanted, base, folder / "tokenizer")
    rows = {}
    for name, count in (("training", 20), ("validation", 11)):
        rows[name] = [row for row in targets.rows(items(name, count), way) if isinstance(row, targets.Row)]
        assert len(rows[name]) == count
        answers.write(folder / name, [(row.ids, row.answer) for row in rows[name]])
    return Made(folder=folder, way=way, new_tokens=new, rows=rows)


@pytest.fixture(scope="module", params=["plain", "messages"])
def made(request: pytest.FixtureRequest, prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(prepared, tmp_path_factory.mktemp(request.param), format=request.param, target="cot")


@pytest.fixture(scope="module")
def padded(made: Made, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return start(tmp_path_factory.mktemp("padded"), **made.spec, dump=True)


@pytest.fixture(scope="module")
def packed(made: Made, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return start(tmp_path_factory.mktemp("packed"), **made.spec, dump=True, pack_rows=True)


def examples(trained: Trained, kind: str = "train") -> list[tuple[tuple[int, ...], int, float]]:
    """(ids, where the loss begins, its sum) of every example that a loss was computed of, in order."""
    found = []
    for path in sorted(trained.folder.glob(f"{kind}-0-*.npz")):
        batch = np.load(path)
        for row in range(len(batch["tokens"])):
            starts = [*np.flatnonzero(batch["position_ids"][row] == 0), batch["tokens"].shape[1]]
            for begin, end in zip(starts, starts[1:], strict=False):
                mask = batch["loss_mask"][row, begin:end]
                if not mask.any():
                    continue
                first, last = np.flatnonzero(mask)[[0, -1]]
                assert mask[first : last + 1].all() and set(np.unique(mask)) <= {0.0, 1.0}
                ids = (*batch["tokens"][row, begin : begin + last + 1], batch["labels"][row, begin + last])
                loss = float((batch["losses"][row, begin:end] * mask).sum())
                found.append((tuple(map(int, ids)), int(first) + 1, loss))
    return found


def test_exactly_the_answers_carry_loss(made: Made, padded: Trained, packed: Trained) -> None:
    """Of the tensors that the loss was computed with: every row, its whole answer and nothing else."""
    wanted = {row.ids: row.answer for row in made.rows["training"]}
    for trained in (padded, packed):
        seen = examples(trained)
        assert len(seen) == TRAIN["steps"] * TRAIN["global_batch"] and {ids for ids, _, _ in seen} == set(wanted)
        assert all(begin == wanted[ids] for ids, begin, _ in seen)
        counts = Counter(ids for ids, _, _ in seen)  # 32 of 20 rows: one epoch and the beginning of the next
        assert set(counts.values()) == {1, 2}
        assert {ids for ids, _, _ in seen[:16]} | {ids for ids, _, _ in seen[16:24]} == set(wanted)
    said = {row.ids: made.way.tokenizer.decode(row.ids[row.answer :], control=True) for row in made.rows["training"]}
    one = said[made.rows["training"][1].ids]
    if made.way.chat is None:
        assert one == "It is number 1, as was said before.\n\nSo the answer is B. ###</s>"
    else:
        text = "It is number 1, as was said before.\n\nSo the answer is B. ###"
        assert one == f"<|im_start|>answer\n{text}<|im_end|>\n"
        ids = {made.way.tokenizer.id(name) for name in ("<|im_start|>", "<|im_end|>")}
        assert ids == {4113, 4114} and all(ids <= set(row.ids) for row in made.rows["training"])


def test_no_example_sees_another_that_is_packed_with_it(padded: Trained, packed: Trained) -> None:
    """The loss of each example in the first step, before any update; and of all steps after it."""
    first = [{ids: loss for ids, _, loss in examples(trained)[: TRAIN["global_batch"]]} for trained in (padded, packed)]
    assert first[0].keys() == first[1].keys()
    assert max(abs(first[0][ids] - first[1][ids]) / first[0][ids] for ids in first[0]) <= CLOSE
    shapes = [np.load(sorted(t.folder.glob("train-0-*.npz"))[0])["tokens"].shape for t in (padded, packed)]
    assert shapes[0][0] == 4 and shapes[1][0] == 1 and shapes[1][1] < shapes[0][0] * shapes[0][1]
    assert all(length % 16 == 0 for _, length in shapes)
    for step in range(1, TRAIN["steps"] + 1):
        assert padded.losses[step] == pytest.approx(packed.losses[step], rel=1e-4)
    assert padded.valid_losses[4] == pytest.approx(packed.valid_losses[4], rel=1e-4)


def test_the_last_validation_is_of_every_row_once(made: Made, packed: Trained) -> None:
    """11 rows make one batch of 8 and three of another; what fills it up has no loss."""
    seen = examples(packed, "Sums")
    assert sorted(ids for ids, _, _ in seen) == sorted(row.ids for row in made.rows["validation"])
    tokens = sum(len(row.ids) - row.answer for row in made.rows["validation"])
    told = next(row["valid_loss"] for row in packed.rows if row.get("full"))
    assert told == pytest.approx(sum(loss for _, _, loss in seen) / tokens, rel=1e-5)


@pytest.mark.parametrize("made", ["messages"], indirect=True)
def test_a_finetuning_that_was_stopped_goes_on_with_the_next_row(
    made: Made, packed: Trained, start: Start, tmp_path: Path
) -> None:
    """As if nothing had happened; and in another layout, where packed rows go through a pipeline and attention is cut
    over two ranks, packed as on a GPU: attention is told where examples begin, instead of by a mask.
    """
    same = start(tmp_path / "same", **made.spec, pack_rows=True, resume=packed.checkpoint(2))
    assert sorted(same.losses) == [3, 4]
    assert max(abs(same.losses[step] - packed.losses[step]) for step in (3, 4)) <= 1e-6
    on = start(
        tmp_path / "on", **made.spec, pack_rows=True, pack=True, resume=packed.checkpoint(2), tp=2, pp=2,
        parallel={"sequence": True},
    )  # fmt: skip
    assert sorted(on.losses) == [3, 4]
    for step in (3, 4):
        assert on.losses[step] == pytest.approx(packed.losses[step], rel=1e-4)


@pytest.fixture(scope="module")
def chatty(prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(prepared, tmp_path_factory.mktemp("chatty"), format="messages", target="cot")


def test_adapters_alone_are_trained_and_the_export_holds_them(
    prepared: Run, chatty: Made, start: Start, tmp_path: Path
) -> None:
    """At tp=2, stopped and gone on with; the exported model has the loss on the validation rows that training had."""
    whole = start(tmp_path / "whole", **chatty.spec, lora={"rank": 4, "alpha": 8}, tp=2, parallel={"sequence": True})
    base = prepared.stage("import") / "checkpoint"
    saved = [tensor for tensor in checkpoint.inspect(whole.checkpoint(2)).tensors if "optimizer" not in tensor.name]
    assert saved and all(".adapter." in tensor.name for tensor in saved)
    assert len({t.name.split(".adapter.")[0].split(".")[-1] for t in saved}) == 4
    on = start(tmp_path / "on", **chatty.spec, lora={"rank": 4, "alpha": 8}, resume=whole.checkpoint(2))  # at tp=1
    assert sorted(on.losses) == [3, 4]
    assert [on.losses[step] for step in (3, 4)] == pytest.approx([whole.losses[step] for step in (3, 4)], rel=1e-4)
    folders = {}
    for name, source in (("whole", whole.folder / "merged"), ("on", on.folder / "merged"), ("base", base)):
        folders[name] = tmp_path / name / "hf"
        checkpoint.export_hf(
            source, folders[name], config=prepared.stage("base") / "hf", tokenizer=chatty.folder / "tokenizer",
            vocab_size=4352, progress=False,  # with the padding, which a training's softmax knows as well
        )  # fmt: skip
    changed = {d.name for d in checkpoint.diff(folders["base"], folders["whole"]).differing}
    kinds = {name.split(".")[-2] for name in changed}
    projections = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert kinds == projections | {"embed_tokens", "lm_head"}  # of these the two new rows
    assert_new_rows(folders["base"], folders["whole"])
    told = next(row["valid_loss"] for row in whole.rows if row.get("full"))
    assert hf_loss(folders["whole"], chatty) == pytest.approx(told, rel=2e-4)
    assert hf_loss(folders["on"], chatty) == pytest.approx(told, rel=1e-3)
    assert hf_loss(folders["base"], chatty) > told * 1.02, "the adapters have learned nothing to be lost"


def assert_new_rows(before: Path, after: Path) -> None:
    from safetensors.numpy import load_file

    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        a, b = (load_file(folder / "model.safetensors")[name] for folder in (before, after))
        assert np.array_equal(a[:4113], b[:4113]) and np.array_equal(a[4115:], b[4115:])
        assert np.abs(b[4113:4115] - a[:4113].mean(axis=0)).max() <= 1e-6


def hf_loss(folder: Path, made: Made) -> float:
    """The mean loss of an answer's token over the validation rows, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total, count = 0.0, 0
    with torch.no_grad():
        for row in made.rows["validation"]:
            ids = torch.tensor([row.ids])
            losses = torch.nn.functional.cross_entropy(model(ids[:, :-1]).logits[0], ids[0, 1:], reduction="none")
            total, count = total + float(losses[row.answer - 1 :].sum()), count + len(row.ids) - row.answer
    return total / count


def test_the_exported_folder_speaks_as_the_training_did(chatty: Made) -> None:
    from transformers import AutoTokenizer

    hf = AutoTokenizer.from_pretrained(chatty.folder / "tokenizer")
    item = items("training", 3)[2]
    words = [
        {"role": "user", "content": targets.prompts.question(item, mode="cot")},
        {"role": "assistant", "content": targets.answer(item, "cot")},
    ]
    ids = hf.apply_chat_template(words)
    assert tuple(ids) == chatty.rows["training"][2].ids
    assert json.loads(json.dumps(hf.decode(ids))).count("<|im_end|>") == 2


@pytest.mark.parametrize("made", ["messages"], indirect=True)
def test_new_tokens_begin_as_the_mean_of_the_others_and_are_trained(
    prepared: Run, made: Made, padded: Trained, tmp_path: Path
) -> None:
    """Four steps of Adam move no number by more than four times the rate; what stood there before is far from it."""
    from safetensors.numpy import load_file

    embeddings = {}
    for name, source in (("before", prepared.stage("import") / "checkpoint"), ("after", padded.checkpoint(4))):
        out = tmp_path / name
        checkpoint.export_hf(source, out, config=prepared.stage("base") / "hf", vocab_size=4115, progress=False)
        embeddings[name] = load_file(out / "model.safetensors")["model.embed_tokens.weight"]
    mean, rows = embeddings["before"][:4113].mean(axis=0), embeddings["after"][4113:]
    moved = np.abs(rows - mean).max(axis=1)
    assert ((moved > 0) & (moved <= 4 * TRAIN["lr"] * 1.01)).all()
    assert np.abs(rows - embeddings["before"][4113:]).max() > 0.05
