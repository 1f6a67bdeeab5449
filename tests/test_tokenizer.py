"""Tokenizer folders: training, added tokens, what text can become, agreement with transformers, damaged files."""

from __future__ import annotations

import io
import json
import random
import re
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolkit import tokenizer as tokenizers
from toolkit.errors import DataError
from toolkit.tokenizer import CHAT_TOKENS, MEDITRON_TOKENS

sentencepiece = pytest.importorskip("sentencepiece")

CONTROL_NAMES = ["</s>", "<s>", "<unk>", "<EOD>", "<CLS>", "<SEP>", "<MASK>", "<PAD>", "<0x0A>", *CHAT_TOKENS]
TAGS = [token for token in MEDITRON_TOKENS if token.startswith("[")]
NASTY = [
    "",
    " ",
    "  two  spaces \n\n\tand a tab ",
    "The dose is 12.5 mg/kg.\r\n",
    "é e\u0301 ﬁ \u00a0 \u200b \ufeff β-blocker 😀👩‍⚕️ 漢字",
    "nul \0 inside",
    "aaaaaaaaaaaaaaaaaaaaaaaa aaa aa",
    "[bib_ref] Dose of it, Smith [/bib_ref] and [table][table]\n[fig",
]


def texts() -> list[str]:
    """A few thousand lines of invented words with Zipf's frequencies."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(1, 8))) for _ in range(2000)]
    weights = [1 / (i + 1) for i in range(len(words))]
    return [
        f"The dose of {' '.join(rng.choices(words, weights, k=12))}: {rng.randint(1, 999)} mg.\n  Avoid  in\taaa aaaa."
        for _ in range(1000)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tokenizers.train(texts(), tmp_path_factory.mktemp("base") / "tokenizer", vocab_size=600)


@pytest.fixture(scope="module")
def extended(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("extended") / "tokenizer"
    tokenizers.extend(base.folder, out)
    return tokenizers.load(out)


def test_trained_model_has_llamas_ids_and_no_normalisation(base):
    assert (base.unk_id, base.bos_id, base.eos_id, base.vocab_size) == (0, 1, 2, 600)
    assert (base.eod_id, base.pad_id, base.base_size, base.added) == (2, 2, 600, {})
    assert base.piece(3) == "<0x00>" and base.piece(258) == "<0xFF>"
    assert [base.piece(i) for i in base.encode("5\n")] == ["▁", "5", "<0x0A>"]
    assert base.encode("ﬁ") != base.encode("fi")
    digits = [piece for _, piece, _ in base.mergeable() if re.search(r"\d", piece)]
    assert digits and all(len(piece) == 1 for piece in digits)


def test_training_is_deterministic_and_samples_with_its_seed(base, tmp_path):
    again = tokenizers.train(texts(), tmp_path / "again", vocab_size=600)
    for name in tokenizers.FILES:
        assert (
            not (base.folder / name).exists() or (base.folder / name).read_bytes() == (again.folder / name).read_bytes()
        )
    models = [
        (tokenizers.train(texts(), tmp_path / f"{i}", vocab_size=400, seed=s, max_lines=300).folder / "tokenizer.model")
        for i, s in enumerate((1, 1, 2))
    ]
    assert models[0].read_bytes() == models[1].read_bytes() != models[2].read_bytes()


def test_too_large_a_vocabulary_names_the_largest_and_that_one_works(tmp_path):
    with pytest.raises(DataError, match="largest possible is") as caught:
        tokenizers.train(texts()[:20], tmp_path / "t", vocab_size=50_000)
    largest = int(re.search(r"possible is (\d+)", str(caught.value))[1])
    assert not (tmp_path / "t").exists()
    assert tokenizers.train(texts()[:20], tmp_path / "t", vocab_size=largest).vocab_size == largest
    with pytest.raises(DataError, match=f"largest possible is {largest}"):
        tokenizers.train(texts()[:20], tmp_path / "u", vocab_size=largest + 1)


def test_too_small_a_vocabulary_and_no_text(tmp_path):
    with pytest.raises(DataError, match=r"too small.*alone take (\d+)") as caught:
        tokenizers.train(texts(), tmp_path / "t", vocab_size=100)
    least = int(re.search(r"alone take (\d+)", str(caught.value))[1])
    assert tokenizers.train(texts(), tmp_path / "t", vocab_size=least + 1).vocab_size == least + 1
    for nothing in ([], ["", " \n\n"]):
        with pytest.raises(DataError, match="no text"):
            tokenizers.train(nothing, tmp_path / "u", vocab_size=400)


def test_lines_with_nul_and_surrogates_do_not_spoil_training(tmp_path):
    lines = ["a\0b word"] * 50 + ["\ud800 word"] * 50 + texts()
    assert tokenizers.train(lines, tmp_path / "t", vocab_size=400).vocab_size == 400


def test_long_lines_are_trained_on(tmp_path):
    word = "quizzaciously"
    lines = [*texts(), " ".join([word] * 2000)]  # 28 kB in one line
    assert len(tokenizers.train(lines, tmp_path / "t", vocab_size=600).encode(word)) == 1


def test_added_tokens_follow_the_base_in_the_papers_order(base, extended):
    assert len(MEDITRON_TOKENS) == 17
    assert [extended.id(token) for token in MEDITRON_TOKENS] == list(range(600, 617))
    assert (extended.base_size, extended.vocab_size, len(extended)) == (600, 617, 617)
    assert (extended.eod_id, extended.pad_id, extended.bos_id, extended.eos_id) == (602, 604, 1, 2)
    assert [extended.piece(i) for i in (602, 605, 616)] == ["<EOD>", "[bib_ref]", "[/formula]"]
    assert (extended.folder / "tokenizer.model").read_bytes() == (base.folder / "tokenizer.model").read_bytes()
    with pytest.raises(KeyError):
        extended.id("no such piece")


def test_extending_again_keeps_ids_and_appends(extended, tmp_path):
    chat = tokenizers.extend(extended.folder, tmp_path / "chat", (*MEDITRON_TOKENS, *CHAT_TOKENS))
    assert [chat.id(token) for token in (*MEDITRON_TOKENS, *CHAT_TOKENS)] == list(range(600, 619))
    assert chat.added == tokenizers.load(tmp_path / "chat").added
    assert chat.is_control(617) and chat.is_control(602) and chat.is_control(2) and not chat.is_control(605)


@pytest.mark.parametrize("tokens", [["[a]", "[a]"], [""], [" [a]"], ["</s>"], ["<0x0A>"], ["▁"]])
def test_tokens_that_cannot_be_added(base, tmp_path, tokens):
    with pytest.raises(DataError):
        tokenizers.extend(base.folder, tmp_path / "out", tokens)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_with_other_files_is_left_alone(base, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(DataError, match="other files"):
        tokenizers.extend(base.folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("name", CONTROL_NAMES)
def test_literal_control_names_stay_text(extended, tmp_path, name):
    chat = tokenizers.extend(extended.folder, tmp_path / "chat", CHAT_TOKENS)
    for text in (name, f"a {name} b", f"[fig]{name}[/fig]", name * 3):
        ids = chat.encode(text)
        assert not any(chat.is_control(i) for i in ids)
        assert chat.decode(ids) == text


@pytest.mark.parametrize("tag", TAGS)
def test_tags_are_cut_at_every_position(base, extended, tag):
    number = extended.id(tag)
    for left, right in (("", ""), ("ab", ""), ("", "ab"), ("a ", " b"), ("a", "b"), ("\n", "[unknown]")):
        assert extended.encode(left + tag + right) == [*base.encode(left), number, *base.encode(right)]
    assert extended.encode(tag * 2) == [number, number]
    assert number not in extended.encode(tag[:-1] + " ]")


def test_plain_text_is_sentencepieces(base, extended):
    reference = sentencepiece.SentencePieceProcessor(model_file=str(base.folder / "tokenizer.model"))
    for text in [*NASTY[:-1], *texts()[:50]]:
        assert base.encode(text) == extended.encode(text) == reference.encode(text)
    assert extended.encode_batch(NASTY) == [extended.encode(text) for text in NASTY]
    assert extended.encode_batch([]) == base.encode_batch([]) == []


stretches = st.one_of(st.text(), st.sampled_from([*CONTROL_NAMES, *TAGS, "  ", "\n", "▁"]))


@given(st.lists(stretches, max_size=8).map("".join))
@example("\0[fig]\0")
@example("[fig][fig] ")
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back(base, extended, text):
    for tokenizer in (base, extended):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text.replace("▁", " ")
        assert not any(tokenizer.is_control(i) for i in ids)
        assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_control_tokens_in_ids_are_dropped_or_shown(extended):
    ids = [1, *extended.encode("one"), 602, *extended.encode("two"), 2]
    assert extended.decode(ids) == "onetwo"
    assert extended.decode(ids, control=True) == "<s>one<EOD>two</s>"
    for outside in (-1, 617):
        with pytest.raises(DataError, match="outside the vocabulary of 617"):
            extended.decode([5, outside])


def test_text_that_is_not_unicode(base, extended):
    for tokenizer in (base, extended):
        with pytest.raises(DataError, match="lone surrogate"):
            tokenizer.encode("a\ud800")


@pytest.fixture(scope="module")
def hugging_face():
    return pytest.importorskip("transformers").AutoTokenizer


@pytest.mark.slow
@pytest.mark.parametrize("fast", [True, False])
def test_transformers_makes_the_same_ids(hugging_face, base, extended, fast):
    for ours in (base, extended):
        theirs = hugging_face.from_pretrained(ours.folder, use_fast=fast, local_files_only=True)
        assert len(theirs) == ours.vocab_size and theirs.model_max_length == tokenizers.DEFAULT_MAX_LENGTH
        assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, ours.pad_id)
        assert theirs("a").input_ids == [1, *ours.encode("a")]
        for text in [*NASTY, *texts()[:100]]:
            assert theirs.encode(text, add_special_tokens=False) == ours.encode(text), text
        for token, number in ours.added.items():
            assert theirs.convert_tokens_to_ids(token) == number
            assert theirs.convert_ids_to_tokens(number) == token
            assert theirs.encode(token, add_special_tokens=False) == [number]
            assert theirs.decode([number]) == token
            assert theirs.decode([number], skip_special_tokens=True) == ("" if token.startswith("<") else token)


def test_tokenizers_reads_the_json_with_the_same_ids(extended):
    library = pytest.importorskip("tokenizers")
    theirs = library.Tokenizer.from_file(str(extended.folder / "tokenizer.json"))
    assert theirs.encode("a").ids == [1, *extended.encode("a")]
    rng = random.Random(3)
    runs = ["".join(rng.choices("aab  ▁\n[fig]de1", k=rng.randint(1, 60))) for _ in range(2000)]
    for text in [*NASTY, *texts(), *runs]:
        assert theirs.encode(text, add_special_tokens=False).ids == extended.encode(text), text


def test_missing_folder_and_missing_model(tmp_path):
    with pytest.raises(DataError, match="no such tokenizer folder"):
        tokenizers.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no tokenizer\.model"):
        tokenizers.load(tmp_path)


def test_every_truncation_of_a_model_is_refused(base, tmp_path):
    model = (base.folder / "tokenizer.model").read_bytes()
    reference = [base.encode(text) for text in texts()[:5]]
    cuts = sorted({*range(0, len(model), 37), *range(len(model) - 60, len(model))})
    refused = 0
    for cut in cuts:
        (tmp_path / "tokenizer.model").write_bytes(model[:cut])
        try:
            loaded = tokenizers.load(tmp_path)
        except DataError as err:
            assert "tokenizer.model" in str(err)
            refused += 1
        else:  # only a field after all that decides the ids can be gone
            assert len(model) - cut < 40 and [loaded.encode(text) for text in texts()[:5]] == reference
    assert refused >= len(cuts) - 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 499723\n",
        b"<!doctype html>",
        b"\xff" * 99,
    ],
)
def test_other_files_in_the_models_place(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(DataError, match="not a SentencePiece BPE model"):
        tokenizers.load(tmp_path)


def test_unigram_models_are_refused(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()), model_writer=model, model_type="unigram", vocab_size=100, minloglevel=2
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    with pytest.raises(DataError, match="not a BPE model"):
        tokenizers.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "not a JSON file"),
        (b"\xff\xfe{", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ('["[fig]"]', "wrong form"),
        ('{"[fig]": "600"}', "wrong form"),
        ('{"[fig]": true}', "wrong form"),
        ('{"": 600}', "wrong form"),
        ('{"[fig]": 601}', "leaves a gap"),
        ('{"[fig]": 600, "[bib]": 600}', "collides"),
        ('{"[fig]": 7}', "collides"),
        ('{"[fig]": -1}', "collides"),
    ],
)
def test_added_tokens_of_the_wrong_form(base, tmp_path, content, fault):
    (tmp_path / "tokenizer.model").write_bytes((base.folder / "tokenizer.model").read_bytes())
    path = tmp_path / "added_tokens.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=fault) as caught:
        tokenizers.load(tmp_path)
    assert "added_tokens.json" in str(caught.value)


def test_base_tokens_listed_again_are_ignored(base, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes((base.folder / "tokenizer.model").read_bytes())
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<s>": 1, "</s>": 2, "<pad>": 600}))
    loaded = tokenizers.load(tmp_path)
    assert (loaded.added, loaded.pad_id, loaded.vocab_size) == ({"<pad>": 600}, 600, 601)


def test_importing_it_loads_nothing_heavy():
    code = "import sys, toolkit.tokenizer, toolkit.shards; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "sentencepiece", "transformers"} & set(loaded)
