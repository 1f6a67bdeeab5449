"""Scores against the plain way: one forward of transformers per answer, all logits, no cache, no batch."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.scoring.conftest import CLOZE, EFFECTS, LETTERS, make_items, save_llama
from toolkit import files
from toolkit.errors import CheckpointError, DataError, DiskFull, UsageError
from toolkit.scoring import Item, LoadedModel, benchmarks, load_model, score, write
from toolkit.scoring.encode import Request, request
from toolkit.scoring.engines import Words
from toolkit.scoring.prompts import Prompt, build, question
from toolkit.stats import wilson

pytest.importorskip("transformers")


def plain_logprobs(folder: Path, prompt: str, answer: str, bos: bool = False) -> list[float]:
    """Log-probabilities of the answer's tokens after the prompt: one forward of the whole text."""
    import torch
    import transformers

    from toolkit import tokenizer

    tok = tokenizer.load(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    head = [tok.bos_id] if bos else []
    start, ids = len(head) + len(tok.encode(prompt)), head + tok.encode(prompt + answer)
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [logprobs[t - 1, ids[t]].item() for t in range(start, len(ids))]


def summed(values: Sequence[float]) -> float:
    return math.log(math.fsum(math.exp(value) for value in values))


def asked(loaded: LoadedModel, item: Item, mode: str, **options: object) -> Request:
    """The request of an item, its window and its words those of the model."""
    words = Words(encode=loaded.encode, decode=loaded.decode, bos_id=loaded.bos_id)

    def made(part: Item, shown: Sequence[Item]) -> Prompt:
        instruction = LETTERS.instruction if mode == "letter" else ""
        return build(part, mode=mode, instruction=instruction, demonstrations=shown)

    return request(words, loaded.window, item, made, letters=mode == "letter", **options)


# --- the same numbers


@pytest.mark.parametrize("bos", [False, True])
def test_letters_equal_the_plain_way(llama: Path, bos: bool):
    items = make_items(12)
    got = score(model=llama, items=items, benchmark=LETTERS, bos=bos)
    for item, prediction in zip(items, got.predictions, strict=True):
        prompt = question(item, instruction=LETTERS.instruction)
        assert prediction.form_texts == ((" A", "A"), (" B", "B"), (" C", "C"), (" D", "D"))
        want = [[plain_logprobs(llama, prompt, form, bos) for form in forms] for forms in prediction.form_texts]
        assert all(len(tokens) == 1 for forms in want for tokens in forms)
        for forms, told in zip(want, prediction.forms, strict=True):
            assert told == pytest.approx([tokens[0] for tokens in forms], abs=1e-5)
        sums = [summed([tokens[0] for tokens in forms]) for forms in want]
        assert prediction.logprobs == pytest.approx(sums, abs=1e-5)
        assert prediction.prediction == "ABCD"[sums.index(max(sums))]
        assert prediction.correct == (sums.index(max(sums)) == item.gold)
    assert got.correct == sum(p.correct for p in got.predictions)
    assert got.model_calls == 12 and got.invalid == 0


@pytest.mark.parametrize("norm", ["mean", "sum"])
def test_cloze_equals_the_plain_way(llama: Path, norm: str):
    items = make_items(12)
    got = score(model=llama, items=items, benchmark=dataclasses.replace(CLOZE, cloze=norm))
    right, lengths = {"mean": 0, "sum": 0}, set()
    for item, prediction in zip(items, got.predictions, strict=True):
        tokens = [plain_logprobs(llama, question(item, mode="cloze"), f" {option}") for option in item.options]
        lengths |= {len(t) for t in tokens}
        want = {"mean": [sum(t) / len(t) for t in tokens], "sum": [sum(t) for t in tokens]}
        assert prediction.logprobs == pytest.approx(want[norm], abs=1e-5)
        assert prediction.sums == pytest.approx(want["sum"], abs=1e-5)
        for name, values in want.items():
            right[name] += values.index(max(values)) == item.gold
    assert len(lengths) > 1, "options of one length would not tell mean from sum"
    other = {"mean": "sum", "sum": "mean"}[norm]
    assert (got.correct, got.also) == (right[norm], {other: right[other] / 12})
    golds = [p.logprobs["ABCD".index(p.gold)] for p in got.predictions]
    assert got.mean_gold_logprob == pytest.approx(sum(golds) / 12)


@pytest.mark.parametrize("benchmark", [LETTERS, CLOZE], ids=lambda b: b.name)
def test_the_batch_changes_nothing(llama: Path, benchmark: benchmarks.Benchmark):
    items, loaded = make_items(40), load_model(llama)
    runs = [score(model=loaded, items=items, benchmark=benchmark, batch_tokens=n) for n in (1, 300, 100_000)]
    for other in runs[1:]:
        assert other.correct == runs[0].correct
        for a, b in zip(runs[0].predictions, other.predictions, strict=True):
            assert (a.id, a.prediction) == (b.id, b.prediction)
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
@pytest.mark.parametrize("benchmark", [LETTERS, CLOZE], ids=lambda b: b.name)
def test_models_whose_cache_is_not_shared(tmp_path: Path, tokenizer_folder: Path, kind: str, benchmark):
    """Learned positions, and a sliding window shorter than the text: whole texts go through, same numbers."""
    import torch
    import transformers

    torch.manual_seed(1)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=420, n_embd=32, n_layer=2, n_head=2, initializer_range=0.2)
    else:
        config = transformers.MistralConfig(
            vocab_size=420, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, sliding_window=8, initializer_range=0.2,
        )  # fmt: skip
    shutil.copytree(tokenizer_folder, tmp_path / "m")
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    items = make_items(6)
    got = score(model=tmp_path / "m", items=items, benchmark=benchmark, batch_tokens=600)
    for item, prediction in zip(items, got.predictions, strict=True):
        if benchmark is LETTERS:
            prompt = question(item, instruction=LETTERS.instruction)
            want = [summed([sum(plain_logprobs(tmp_path / "m", prompt, f)) for f in (f" {x}", x)]) for x in "ABCD"]
        else:
            tokens = [
                plain_logprobs(tmp_path / "m", question(item, mode="cloze"), f" {option}") for option in item.options
            ]
            want = [sum(t) / len(t) for t in tokens]
        assert prediction.logprobs == pytest.approx(want, abs=1e-5)


def test_word_answers_by_their_first_token(llama: Path):
    item = Item(id="1", question="Does it?", context="It may.", options=("yes", "no", "maybe"), gold=2, listed=False)
    got = score(model=llama, items=[item], benchmark=LETTERS)
    prompt, prediction = question(item, instruction=LETTERS.instruction), got.predictions[0]
    for word, texts, told in zip(item.options, prediction.form_texts, prediction.forms, strict=True):
        assert texts[0] == f" {word}"
        tokens = [plain_logprobs(llama, prompt, text) for text in texts]
        assert told == pytest.approx([values[0] for values in tokens], abs=1e-5)
        assert all(len(values) == 1 for values in tokens[1:]), "other forms count as one token alone"
    assert prediction.logprobs == pytest.approx([summed(values) for values in prediction.forms])
    assert (got.predictions[0].gold, got.chance) == ("maybe", pytest.approx(1 / 3))


def test_split_answers_are_judged_whole_and_noted(llama: Path):
    """Words that share their first token cannot be told by it."""
    item = Item(id="1", question="Which?", options=("yes yes", "yes no"), gold=1, listed=False)
    got = score(model=llama, items=[item], benchmark=LETTERS)
    prompt = question(item, instruction=LETTERS.instruction)
    prediction = got.predictions[0]
    for word, texts, told in zip(item.options, prediction.form_texts, prediction.forms, strict=True):
        assert texts == (f" {word}", f" {word.capitalize()}", word, word.capitalize())
        assert told == pytest.approx([sum(plain_logprobs(llama, prompt, text)) for text in texts], abs=1e-5)
    assert prediction.logprobs == pytest.approx([summed(values) for values in prediction.forms])
    assert got.notes == ("items whose answers share their first token, judged by all of their tokens: 1",)


def test_answers_that_merge_with_the_prompts_end(llama: Path):
    """A tokenizer whose pieces cross the boundary: what is shared by all is the prompt, the rest is scored."""
    loaded = load_model(llama)

    def encode(text: str) -> list[int]:
        return [sum(map(ord, text[i : i + 2])) for i in range(0, len(text), 2)]

    item = Item(id="1", prompt="abc", options=("s", "tt"), gold=0)
    got = asked(dataclasses.replace(loaded, encode=encode), item, "cloze").ask
    assert got.ids == encode("ab") and got.tails == (encode("c s"), encode("c tt"))


# --- a known right answer


def test_a_trained_model_is_right_and_an_untrained_one_is_not(tmp_path: Path, tokenizer_folder: Path):
    import torch
    import transformers

    from toolkit import tokenizer

    facts = {
        drug: EFFECTS[i % 6] for i, drug in enumerate(("Brolax", "Kimoden", "Taprine", "Velusor", "Zandril", "Moprex"))
    }
    items = []
    for i, (drug, effect) in enumerate(facts.items()):
        wrong = [e for e in EFFECTS if e != effect][:3]
        options = (*wrong[: i % 4], effect, *wrong[i % 4 :])
        items.append(
            Item(id=drug, prompt=f"{drug} may cause", question=f"What may {drug} cause?", options=options, gold=i % 4)
        )
    folder = save_llama(tmp_path / "m", tokenizer_folder)
    before = score(model=folder, items=items, benchmark=CLOZE)

    tok = tokenizer.load(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    texts = [tok.encode(f"{drug} may cause {effect}") for drug, effect in facts.items()]
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    labels = torch.tensor([text + [-100] * (longest - len(text)) for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    after = score(model=folder, items=items, benchmark=CLOZE)
    assert (after.accuracy, after.correct, after.also["sum"]) == (1.0, 6, 1.0)
    assert before.accuracy < 1 and after.mean_gold_logprob > before.mean_gold_logprob + 1


def test_a_letter_planted_in_the_output_is_chosen(tmp_path: Path, tokenizer_folder: Path):
    """Only the output rows of the letters are changed: C gets what the last state of any prompt points to."""
    import torch
    import transformers

    from toolkit import tokenizer

    folder = save_llama(tmp_path / "m", tokenizer_folder)
    model, tok = transformers.AutoModelForCausalLM.from_pretrained(folder), tokenizer.load(folder)
    ids = {x: tok.encode(f"Answer: {x}")[-1] for x in "ABCD"}
    assert len(set(ids.values())) == 4
    items = [dataclasses.replace(item, gold=i % 4) for i, item in enumerate(make_items(8))]
    with torch.no_grad():
        text = question(items[0], instruction=LETTERS.instruction)
        state = model.model(torch.tensor([tok.encode(text)])).last_hidden_state[0, -1]
        for letter, number in ids.items():
            model.lm_head.weight[number] = state if letter == "C" else -state
    model.save_pretrained(folder)
    got = score(model=folder, items=items[:1], benchmark=LETTERS)
    assert got.predictions[0].prediction == "C"
    assert score(model=folder, items=[dataclasses.replace(items[0], gold=2)], benchmark=LETTERS).accuracy == 1.0


def test_equal_answers_are_counted(tmp_path: Path, tokenizer_folder: Path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = save_llama(tmp_path / "m", tokenizer_folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"lm_head.weight": torch.zeros(420, 32)}, folder / "model.safetensors", {"format": "pt"})
    got = score(model=folder, items=make_items(10), benchmark=LETTERS)
    assert {p.prediction for p in got.predictions} == {"A"}
    assert got.notes == ("items with several equally likely answers, the first taken: 10",)


# --- the window


def test_a_long_context_loses_its_middle_and_the_score_says_so(llama: Path):
    loaded = load_model(llama)
    middle = "After a meal and with water, as the leaflet says. " * 40
    item = Item(
        id="1", question="Does Brolax help?", context=f"Brolax first. {middle}Kimoden last.", options=("yes", "no"),
        gold=0, listed=False,
    )  # fmt: skip
    made = asked(loaded, item, "letter")
    text = loaded.decode(made.ask.ids)
    assert made.cut == "context" and 200 < len(made.ask.ids) <= 256
    assert text.startswith(LETTERS.instruction) and text.endswith("Question: Does Brolax help?\nAnswer:")
    assert "Context: Brolax first." in text and " ... " in text and "Kimoden last." in text
    got = score(model=loaded, items=[item, make_items(1)[0]], benchmark=LETTERS)
    assert (got.cut_contexts, got.cut_prompts) == (1, 0)
    assert got.notes == ("contexts longer than the model's window of 256 tokens, their middle left out: 1",)
    same = dataclasses.replace(item, context=text.split("Context: ")[1].split("\n\nQuestion")[0])
    again = score(model=loaded, items=[same], benchmark=LETTERS)
    assert again.predictions[0].logprobs == pytest.approx(got.predictions[0].logprobs, abs=1e-5)


def test_a_question_longer_than_the_window_loses_its_beginning(llama: Path):
    loaded = load_model(llama)
    item = dataclasses.replace(
        make_items(1)[0], question="Kimoden and water. " * 80 + "What may Brolax cause?", context="x " * 99
    )
    made = asked(loaded, item, "letter")
    assert made.cut == "prompt" and len(made.ask.ids) == 256
    assert loaded.decode(made.ask.ids).endswith(question(item)[-80:])
    got = score(model=loaded, items=[item], benchmark=LETTERS, bos=True)
    assert got.cut_prompts == 1 and "their beginning cut: 1" in got.notes[0]


def test_positions_are_used_to_the_last(llama: Path):
    """A prompt and option that fill the window exactly are not cut."""
    loaded = load_model(llama)
    item = Item(id="1", prompt="water", options=("tremor", "cough"), gold=0)
    need = len(loaded.encode("water tremor cough"))
    longer = dataclasses.replace(item, options=("tremor cough", "cough"))
    full = dataclasses.replace(loaded, window=need - 1)
    assert asked(full, longer, "cloze").cut == ""
    tight = dataclasses.replace(loaded, window=need - 2)
    tails = asked(loaded, longer, "cloze").ask.tails
    if len(loaded.encode("water")) > 1:
        assert asked(tight, longer, "cloze").cut == "prompt"
    tiny = dataclasses.replace(loaded, window=max(map(len, tails)) - 1)
    with pytest.raises(DataError, match="longer than the model's window"):
        asked(tiny, longer, "cloze")


# --- what the score says


def test_groups_interval_and_limit(llama: Path):
    items, loaded = make_items(30), load_model(llama, name="mine")
    got = score(
        model=loaded,
        items=items,
        benchmark=dataclasses.replace(LETTERS, size=99, paper="MedQA-4"),
        limit=20,
        limit_seed=3,
    )
    assert (got.n, got.model, got.paper, got.chance) == (20, "mine", "MedQA-4", 0.25)
    assert got.accuracy == got.correct / 20
    low, high = got.ci95
    assert 0 <= low <= got.accuracy <= high <= 1 and got.ci95 == wilson(got.correct, 20)
    assert set(got.groups) == {"common", "rare"}
    assert (
        sum(g["n"] for g in got.groups.values()) == 20 and sum(g["correct"] for g in got.groups.values()) == got.correct
    )
    assert "30 items, where the whole test split of Letters has 99" in got.notes[0]
    assert "20 of 30 items, drawn at random with seed 3" in got.notes[1]
    again = score(model=loaded, items=items, benchmark=LETTERS, limit=20, limit_seed=3)
    other = score(model=loaded, items=items, benchmark=LETTERS, limit=20, limit_seed=4)
    ids = [[p.id for p in s.predictions] for s in (got, again, other)]
    assert ids[0] == ids[1] != ids[2]
    assert [i.id for i in items if i.id in ids[0]] == ids[0]


def test_written_files(llama: Path, tmp_path: Path):
    scores = [score(model=llama, items=make_items(5), benchmark=b) for b in (LETTERS, CLOZE)]
    write(tmp_path / "out", scores)
    stored = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert stored == json.loads(json.dumps([s.as_dict() for s in scores]))
    assert {
        "model",
        "benchmark",
        "title",
        "mode",
        "accuracy",
        "correct",
        "n",
        "chance",
        "ci95",
        "groups",
        "paper",
        "notes",
    } <= set(stored[0])
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 10 and [r["benchmark"] for r in rows] == ["letters"] * 5 + ["cloze"] * 5
    assert rows[0]["logprobs"] == list(scores[0].predictions[0].logprobs)
    assert (rows[0]["shots"], rows[0]["seed"], rows[0]["valid"]) == (0, 0, True)
    assert [len(r["prompt_sha256"]) for r in rows] == [64] * 10
    assert "sums" in rows[-1] and "sums" not in rows[0]


# --- refusals


def test_bad_arguments(llama: Path):
    items = make_items(2)
    with pytest.raises(UsageError, match="Did you mean 'letter'"):
        score(model=llama, items=items, benchmark=LETTERS, mode="leter")
    for bad in ({"limit": 0}, {"batch_tokens": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            score(model=llama, items=items, benchmark=LETTERS, **bad)
    with pytest.raises(DataError, match="no items"):
        score(model=llama, items=[], benchmark=LETTERS)
    with pytest.raises(UsageError, match="mode cloze"):
        score(model=llama, items=[dataclasses.replace(items[0], question="")], benchmark=LETTERS)
    with pytest.raises(DataError, match="'q0' has an option without text"):
        score(model=llama, items=[dataclasses.replace(items[0], options=("a", " "), gold=0)], benchmark=CLOZE)
    with pytest.raises(UsageError, match="beginning-of-sequence"):
        score(model=dataclasses.replace(load_model(llama), bos_id=None), items=items, benchmark=LETTERS, bos=True)


@pytest.mark.parametrize("benchmark", [LETTERS, CLOZE], ids=lambda b: b.name)
def test_weights_that_are_not_numbers(llama_copy: Path, benchmark):
    from safetensors.torch import load_file, save_file

    tensors = load_file(llama_copy / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, llama_copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="not finite numbers at item 'q[012]'"):
        score(model=llama_copy, items=make_items(3), benchmark=benchmark)


def test_full_disk_leaves_the_old_scores(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scores = [score(model=llama, items=make_items(3), benchmark=LETTERS)]
    write(tmp_path, scores)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFull):
        write(tmp_path, [dataclasses.replace(scores[0], model="other")])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_disk_that_is_really_full(llama: Path, tmp_path: Path):
    """A file system of 64 KiB in a mount namespace of its own; the predictions do not fit in it."""
    code = """if True:
        import sys
        from pathlib import Path
        from toolkit.errors import DiskFull
        from toolkit.scoring import Prediction, Score, write
        rows = tuple(Prediction(id=str(i), group="", logprobs=(0.5,) * 4, prediction="A", gold="B", correct=False)
                     for i in range(5000))
        score = Score(model="m", benchmark="b", title="t", mode="letter", accuracy=0.0, correct=0, n=5000, chance=0.25,
                      ci95=(0.0, 1.0), mean_gold_logprob=-1.0, predictions=rows)
        try:
            write(sys.argv[1], [score])
        except DiskFull as err:
            print("DiskFull", sorted(p.name for p in Path(sys.argv[1]).iterdir()))
    """
    mount = 'mount -t tmpfs -o size=64k none "$0" && exec "$1" -c "$2" "$0"'
    inside = ["unshare", "--mount", "sh", "-c", mount, str(tmp_path), sys.executable, code]
    try:
        done = subprocess.run(inside, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare on this machine")
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")
    assert done.stdout == "DiskFull []\n", done.stderr
