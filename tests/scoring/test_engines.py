"""Shared beginnings, batches and generated texts against the plain way: one text at a time, no cache, no batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scoring.conftest import LETTERS, make_items, save_llama
from toolkit.errors import CheckpointError, DataError, UsageError
from toolkit.scoring import Item, LoadedModel, Score, engines, load_model, score
from toolkit.scoring.engines import Ask, tree
from toolkit.scoring.engines.hf import Transformers

pytest.importorskip("transformers")

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


# --- the order of the work


@given(prompts=PROMPTS, repeat=st.sampled_from([1, 90]), worth=st.sampled_from([1, 32, 256]))
@settings(max_examples=60, deadline=None)
def test_every_prompt_goes_on_from_a_beginning_of_its_own(prompts: list[list[int]], repeat: int, worth: int):
    prompts = [[token for token in prompt for _ in range(repeat)] for prompt in prompts]
    seen, processed = [], 0

    def visit(node: tree.Node, at: int) -> None:
        nonlocal processed
        processed += node.end - at
        for i in node.rows:
            assert prompts[i][: node.end] == prompts[node.first][: node.end]
            assert len(prompts[i]) > node.end >= at
            processed += len(prompts[i]) - node.end
            seen.append(i)
        for child in node.children:
            assert prompts[child.first][: node.end] == prompts[node.first][: node.end]
            visit(child, node.end)

    root = tree.plan(prompts, worth)
    visit(root, 0)
    assert sorted(seen) == list(range(len(prompts))) and sorted(root.all()) == sorted(seen)
    assert tree.unique(prompts) == len({tuple(p[: n + 1]) for p in prompts for n in range(len(p))})
    assert tree.unique(prompts) <= processed <= sum(map(len, prompts))


@given(lengths=st.lists(st.integers(1, 60), max_size=40), past=st.integers(0, 50), copies=st.integers(1, 4))
def test_batches_hold_every_row_once_and_little_padding(lengths: list[int], past: int, copies: int):
    made = list(tree.batches(lengths, past=past, copies=copies, tokens=200))
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    for batch in made:
        own, wide = sum(lengths[i] for i in batch), max(lengths[i] for i in batch) * len(batch)
        assert wide <= own * 33 / 32
        assert len(batch) == 1 or wide * copies <= 200


def test_unique_tokens_count_what_follows_prompts():
    assert tree.unique([[1, 2, 3], [1, 2, 4]], [[[5], [6]], [[5, 6, 7], [5, 6, 8], [9]]]) == 4 + 2


# --- the same numbers, each token once


def few(loaded: LoadedModel, **options: object) -> Score:
    """Five-shot letters on a window that holds them."""
    pool = [dataclasses.replace(item, id=f"p{item.id}", question=f"{item.question} Why?") for item in make_items(9, 5)]
    items = [dataclasses.replace(item, question=f"{i}. {item.question}") for i, item in enumerate(make_items(40))]
    return score(model=loaded, items=items, benchmark=LETTERS, pool=pool, shots=5, **options)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> LoadedModel:
    folder = save_llama(tmp_path_factory.mktemp("wide"), tokenizer_folder, max_position_embeddings=1024)
    return load_model(folder)


def test_demonstrations_go_through_the_model_once(wide: LoadedModel):
    got = few(wide, seed=1)
    assert got.unique_tokens <= got.tokens <= 1.1 * got.unique_tokens
    import torch

    from toolkit.scoring import demonstrations, prompts

    pool = [dataclasses.replace(item, id=f"p{item.id}", question=f"{item.question} Why?") for item in make_items(9, 5)]
    items = [dataclasses.replace(item, question=f"{i}. {item.question}") for i, item in enumerate(make_items(40))]
    drawn = demonstrations.by_group(LETTERS, items, pool, shots=5, seed=1)
    longest = 0
    for item, prediction in zip(items, got.predictions, strict=True):
        instruction = LETTERS.instruction
        prompt = prompts.build(item, mode="letter", instruction=instruction, demonstrations=drawn[item.group])
        ids = wide.encode(prompt.text)
        longest += len(ids)
        with torch.no_grad():
            told = wide.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        for forms, values in zip(prediction.form_texts, prediction.forms, strict=True):
            want = [told[wide.encode(prompt.text + form)[-1]].item() for form in forms]
            assert values == pytest.approx(want, abs=1e-5)
    assert got.tokens < longest / 3, "prompts one by one would take many times as much"


def test_seeds_draw_other_demonstrations_and_batches_do_not_matter(wide: LoadedModel):
    one, other, small = few(wide, seed=1), few(wide, seed=2), few(wide, seed=1, batch_tokens=64)
    assert one.benchmark_sha256 == small.benchmark_sha256 != other.benchmark_sha256
    assert [p.prompt_sha256 for p in one.predictions] == [p.prompt_sha256 for p in small.predictions]
    for a, b in zip(one.predictions, small.predictions, strict=True):
        assert a.prediction == b.prediction and a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
    assert one.predictions[0].prompt_sha256 != other.predictions[0].prompt_sha256


def test_a_window_that_is_too_small_loses_demonstrations_first(llama: Path):
    got = few(load_model(llama), seed=1)  # 256 positions
    assert got.cut_shots == 40 and (got.cut_contexts, got.cut_prompts) == (0, 0)
    note = next(n for n in got.notes if "lost demonstrations" in n)
    assert "window of 256 tokens" in note and note.endswith(": 40")
    pool = make_items(3, 5)
    with pytest.raises(DataError, match="too few questions"):
        score(model=llama, items=make_items(4), benchmark=LETTERS, pool=pool, shots=9)


# --- generated texts


def asks_of(loaded: LoadedModel, n: int = 7) -> list[Ask]:
    shared = "After a meal and with water, as the leaflet says. " * 3
    texts = [f"{shared if i % 3 else ''}What may {item.options[0]} cause?" for i, item in enumerate(make_items(n))]
    return [Ask(key=f"q{i}", text=text, ids=loaded.encode(text)) for i, text in enumerate(texts)]


def run(engine: engines.Engine, asks: list[Ask], **options: object) -> list[tuple[str, ...]]:
    how = engines.How(**{"max_tokens": 12} | options)
    found = dict(engine.generate(asks, range(len(asks)), how))
    return [found[i] for i in range(len(asks))]


def plain_texts(loaded: LoadedModel, ask: Ask, tokens: int, penalty: float = 0.0) -> str:
    import torch

    ids: list[int] = []
    for _ in range(tokens):
        with torch.no_grad():
            logits = loaded.model(torch.tensor([ask.ids + ids])).logits[0, -1]
        for token in set(ids):
            logits[token] -= penalty * ids.count(token)
        token = int(logits.argmax())
        if token == loaded.model.config.eos_token_id:
            break
        ids.append(token)
    return loaded.decode(ids)


@pytest.mark.parametrize("penalty", [0.0, 3.0])
def test_greedy_texts_equal_the_plain_way(llama: Path, penalty: float):
    loaded = load_model(llama)
    asks = asks_of(loaded)
    for batch_tokens in (40, 8192):
        got = run(Transformers(loaded, batch_tokens=batch_tokens), asks, penalty=penalty)
        assert got == [(plain_texts(loaded, ask, 12, penalty),) for ask in asks]


def test_samples_depend_on_the_item_and_the_seed_alone(llama: Path):
    loaded = load_model(llama)
    asks, drawn = asks_of(loaded), {"n": 4, "temperature": 0.8}
    whole = run(Transformers(loaded), asks, seed=3, **drawn)
    alone = [run(Transformers(loaded, batch_tokens=1), [ask], seed=3, **drawn)[0] for ask in reversed(asks)]
    assert whole == alone[::-1]
    assert whole != run(Transformers(loaded), asks, seed=4, **drawn)
    texts = {text for several in whole for text in several}
    assert len(texts) > 20
    half = dict(Transformers(loaded).generate(asks, {2, 5}, engines.How(max_tokens=12, seed=3, **drawn)))
    assert half == {2: whole[2], 5: whole[5]}


def test_samples_are_drawn_as_the_model_says(llama: Path):
    """First tokens of many texts of one prompt, against the model's own probabilities."""
    import torch

    loaded = load_model(llama)
    (ask,) = asks_of(loaded, 1)
    with torch.no_grad():
        chances = (loaded.model(torch.tensor([ask.ids])).logits[0, -1] / 0.8).softmax(-1)
    texts = run(Transformers(loaded), [ask], n=600, temperature=0.8, max_tokens=1)[0]
    by_text: dict[str, float] = {}
    for token, chance in enumerate(chances.tolist()):
        text = loaded.decode([token]) if token != loaded.model.config.eos_token_id else ""
        by_text[text] = by_text.get(text, 0.0) + chance
    for text, chance in sorted(by_text.items(), key=lambda pair: -pair[1])[:3]:
        assert abs(texts.count(text) / 600 - chance) < 0.09
    assert len(set(texts)) > 20


def test_texts_end_where_they_should(llama: Path):
    loaded = load_model(llama)
    asks = asks_of(loaded, 3)
    free = [text for (text,) in run(Transformers(loaded), asks, max_tokens=20)]
    stop = free[0][6:8]
    cut = [text for (text,) in run(Transformers(loaded), asks, max_tokens=20, stop=(stop, "\x00"))]
    assert cut == [text.split(stop)[0] for text in free]
    short = dataclasses.replace(loaded, window=max(len(ask.ids) for ask in asks) + 2)
    for ask, (text,) in zip(asks, run(Transformers(short), asks, max_tokens=20), strict=True):
        room = short.window - len(ask.ids)
        assert text == plain_texts(loaded, ask, min(room, 20))


def test_models_whose_cache_is_their_own(tmp_path: Path, tokenizer_folder: Path):
    import shutil

    import torch
    import transformers

    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=420, n_embd=32, n_layer=2, n_head=2, initializer_range=0.2, eos_token_id=2
    )
    shutil.copytree(tokenizer_folder, tmp_path / "m")
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    asks = asks_of(loaded, 4)
    assert run(Transformers(loaded), asks) == [(plain_texts(loaded, ask, 12),) for ask in asks]
    drawn = run(Transformers(loaded), asks, n=2, temperature=0.8)
    assert drawn[1] == run(Transformers(loaded), asks[1:2], n=2, temperature=0.8)[0]


# --- answers with reasoning


def tell(folder: Path, tokenizer_folder: Path, said: dict[str, str]) -> Path:
    """A model that goes on after the reasoning prompt of some items as it is told."""
    import torch
    import transformers

    from toolkit import tokenizer

    save_llama(folder, tokenizer_folder, max_position_embeddings=512)
    tok, model = tokenizer.load(folder), transformers.AutoModelForCausalLM.from_pretrained(folder)
    rows = [tok.encode(prompt + answer) for prompt, answer in said.items()]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
    for i, prompt in enumerate(said):
        labels[i, : len(tok.encode(prompt))] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_reasoning_is_read_and_voted_on(tmp_path: Path, tokenizer_folder: Path):
    from toolkit.scoring import prompts

    items = [dataclasses.replace(item, gold=1) for item in make_items(4)]
    answers = ["B", "B", "C", None]
    texts = [f" It is cough. So the answer is {x}. ###" if x else " It is cough or tremor. ###" for x in answers]
    asked = [prompts.build(item, mode="cot", instruction=LETTERS.instruction).text for item in items]
    folder = tell(tmp_path / "m", tokenizer_folder, dict(zip(asked, texts, strict=True)))
    got = score(model=folder, items=items, benchmark=LETTERS, mode="cot", max_tokens=60)
    assert [p.prediction for p in got.predictions] == answers
    assert (got.correct, got.invalid, got.accuracy) == (2, 1, 0.5)
    assert [p.valid for p in got.predictions] == [True, True, True, False]
    assert all(len(p.texts) == 1 and "###" not in p.texts[0] for p in got.predictions)
    assert got.predictions[3].why and "items without a valid answer, counted as wrong: 1" in got.notes
    row = got.predictions[3].as_dict()
    assert row["prediction"] is None and row["valid"] is False and "logprobs" not in row
    voted = score(model=folder, items=items, benchmark=LETTERS, mode="sc_cot", samples=7, max_tokens=60, seed=5)
    assert [p.prediction for p in voted.predictions][:3] == answers[:3]
    first = voted.predictions[0]
    assert len(first.texts) == len(first.answers) == 7
    assert first.agreement == pytest.approx(first.answers.count("B") / 7) and 0 < voted.agreement <= 1
    assert (voted.samples, voted.temperature, voted.max_tokens) == (7, 0.8, 60)
    compat = score(model=folder, items=items, benchmark=LETTERS, mode="cot", max_tokens=60, compat=True)
    assert compat.compat and compat.benchmark_sha256 != got.benchmark_sha256


def test_a_model_with_a_template_is_asked_in_messages(tmp_path: Path, tokenizer_folder: Path):
    import torch
    import transformers

    from toolkit import tokenizer
    from toolkit.scoring import chat, prompts

    tokenizer.extend(tokenizer_folder, tmp_path / "words", tokenizer.CHAT_TOKENS)
    folder = save_llama(tmp_path / "m", tmp_path / "words", vocab_size=432, max_position_embeddings=512)
    (folder / chat.TEMPLATE).write_text(chat.MESSAGES)
    items, solved = make_items(5), [dataclasses.replace(make_items(1, 3)[0], id="s", question="What else?")]
    got = score(model=folder, items=items, benchmark=LETTERS, pool=solved, shots=1)
    assert got.chat == "messages" and got.predictions[0].form_texts[0] == ("A", " A")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    loaded = load_model(folder)
    for item, prediction in zip(items, got.predictions, strict=True):
        how = {"demonstrations": solved, "chat": chat.of(folder)}
        text = prompts.build(item, mode="letter", instruction=LETTERS.instruction, **how).text
        assert text.count("<|im_start|>") == 4
        ids = theirs.encode(text, add_special_tokens=False)
        assert ids.count(theirs.convert_tokens_to_ids("<|im_start|>")) == 4
        with torch.no_grad():
            told = loaded.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        want = [told[theirs.encode(text + x, add_special_tokens=False)[-1]].item() for x in "ABCD"]
        assert [forms[0] for forms in prediction.forms] == pytest.approx(want, abs=1e-5)
    plain = score(model=folder, items=items, benchmark=LETTERS, pool=solved, shots=1, chat=None)
    assert plain.chat == "" and plain.benchmark_sha256 != got.benchmark_sha256
    spoken = score(model=folder, items=items[:2], benchmark=LETTERS, mode="cot", max_tokens=6)
    assert all(len(p.texts) == 1 for p in spoken.predictions)  # rows of padding are never a text's token


def test_the_released_scorer_never_takes_maybe(llama: Path):
    item = Item(id="1", question="Does it?", context="It may.", options=("yes", "no", "maybe"), gold=2, listed=False)
    ours = score(model=llama, items=[item], benchmark=LETTERS).predictions[0]
    theirs = score(model=llama, items=[item], benchmark=LETTERS, compat=True)
    best = theirs.predictions[0].logprobs.index(max(theirs.predictions[0].logprobs))
    assert ours.valid and theirs.predictions[0].valid == (best != 2)
    assert theirs.predictions[0].prediction == (None if best == 2 else item.options[best])


def test_what_cannot_be_asked(llama: Path, llama_copy: Path):
    items = make_items(2)
    for bad, message in (
        ({"samples": 3}, "draws no samples"), ({"mode": "sc_cot", "samples": 0}, "at least 1"),
        ({"mode": "sc_cot", "temperature": -1.0}, "0 to 10"), ({"shots": -1}, "at least 0"),
        ({"chat": "yes"}, "unknown"), ({"max_tokens": 0}, "at least 1"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            score(model=llama, items=items, benchmark=LETTERS, **bad)
    for bad in ({"engine": "vlm"}, {"engine": "server"}, {"url": "http://x"}, {"tokenizer": llama}):
        with pytest.raises(UsageError):
            engines.load(llama, **bad)
    from safetensors.torch import load_file, save_file

    tensors = load_file(llama_copy / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, llama_copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="'q0' appears twice"):
        score(model=llama, items=[*items, items[0]], benchmark=LETTERS)
    with pytest.raises(CheckpointError, match="logits that are not finite"):
        score(model=llama_copy, items=items, benchmark=LETTERS, mode="cot")
