"""A folder with tokenizer.json alone, as Llama 3's: the same ids as transformers, no control token from text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import tokenizer
from toolkit.errors import DataError
from toolkit.tokenizer import JsonTokenizer

SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(6))]
# Llama 3's pattern for what is never merged across (tokenizer.json of the published model).
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = "The dose of 250 mg was given twice a day; résumé, naïve, 東京, 🙂🙂. It's 12345 <b>.\n\n" * 40


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("llama3"))


def make(out: Path) -> Path:
    """As Llama 3's is made: byte-level BPE, special tokens after the vocabulary, a template that adds the first."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE(ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens(SPECIAL)
    first = made.token_to_id(SPECIAL[0])
    made.post_processor = processors.TemplateProcessing(single=f"{SPECIAL[0]} $A", special_tokens=[(SPECIAL[0], first)])
    made.save(str(out / "tokenizer.json"))
    end = {"__type": "AddedToken", "content": SPECIAL[1], "special": True}  # a form that transformers writes, too
    end |= {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    config = {"bos_token": SPECIAL[0], "eos_token": end, "tokenizer_class": "PreTrainedTokenizerFast"}
    (out / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return out


@pytest.fixture(scope="session")
def own(folder: Path) -> JsonTokenizer:
    loaded = tokenizer.load(folder)
    assert isinstance(loaded, JsonTokenizer)
    return loaded


def test_ids_are_those_of_transformers(folder: Path, own: JsonTokenizer) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    assert own.vocab_size == len(own) == len(theirs)
    assert (own.bos_id, own.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert own.eod_id == own.pad_id == own.eos_id
    for text in (TEXT, "", " ", "A dose", "  two  spaces ", "\n", "日本語 123456"):
        assert own.encode(text) == theirs.encode(text, add_special_tokens=False), text
        assert own.decode(own.encode(text)) == text


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=100)
def test_any_text_comes_back(own: JsonTokenizer, text: str) -> None:
    ids = own.encode(text)
    assert own.decode(ids) == text
    assert all(0 <= number < own.base_size for number in ids), "no string becomes a control token"


def test_a_control_name_in_a_text_is_text(own: JsonTokenizer) -> None:
    text = "before <|end_of_text|> after"
    ids = own.encode(text)
    assert own.eos_id not in ids and own.decode(ids) == text
    both = [own.bos_id, *ids, own.eos_id]
    assert own.decode(both) == text
    assert own.decode(both, control=True) == f"<|begin_of_text|>{text}<|end_of_text|>"
    assert own.is_control(own.eos_id) and not own.is_control(ids[0])
    assert own.id("<|end_of_text|>") == own.eos_id and own.piece(own.eos_id) == "<|end_of_text|>"
    assert all(own.id(own.piece(number)) == number for number in range(own.vocab_size))
    with pytest.raises(KeyError):
        own.id("no such piece at all")


def test_what_cannot_be_encoded_or_decoded(own: JsonTokenizer) -> None:
    with pytest.raises(DataError, match="lone surrogate at character 1"):
        own.encode("a\ud800")
    for number in (-1, own.vocab_size):
        with pytest.raises(DataError, match="outside the vocabulary"):
            own.decode([number])


def test_it_is_carried_along_as_it_is(folder: Path, own: JsonTokenizer, tmp_path: Path) -> None:
    copied = tokenizer.extend(folder, tmp_path / "out", ())
    assert copied.vocab_size == own.vocab_size and copied.encode(TEXT) == own.encode(TEXT)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_extended_it_has_the_papers_tokens_in_transformers_too(
    folder: Path, own: JsonTokenizer, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    tokenizer.extend(folder, base, ())
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}[table]")
    tokens = (*tokenizer.MEDITRON_TOKENS, *tokenizer.CHAT_TOKENS)
    made = tokenizer.extend(base, tmp_path / "out", tokens)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    first = own.vocab_size
    assert [made.id(token) for token in tokens] == list(range(first, first + 19))
    assert theirs.convert_tokens_to_ids(list(tokens)) == list(range(first, first + 19))
    assert made.vocab_size == len(theirs) == first + 19 and made.eod_id == first + 2 and made.pad_id == first + 4
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (made.pad_id, made.bos_id, made.eos_id)
    text = " A [bib_ref]1[/bib_ref][table]\n dose"
    ids = made.encode(text)
    assert ids == theirs.encode(text, add_special_tokens=False) and made.decode(ids) == text
    assert [number for number in ids if number >= first] == [first + 5, first + 6, first + 13]
    assert theirs.decode(ids, skip_special_tokens=True) == text
    assert made.encode("<EOD>") == own.encode("<EOD>") and made.is_control(made.eod_id) and not made.is_control(ids[0])
    chat = theirs.apply_chat_template([{"role": "user", "content": "a"}])
    assert chat == theirs.encode("a[table]", add_special_tokens=False)
    again = tokenizer.extend(made.folder, tmp_path / "again", tokens)
    assert again.added == made.added
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "out" / "tokenizer.json").read_bytes()
    with pytest.raises(DataError, match="the vocabulary has it already"):
        tokenizer.extend(folder, tmp_path / "bad", ["dose" if "dose" in own._bpe.get_vocab() else "a"])
    assert not (tmp_path / "bad").exists()


def _with(**changed: Any) -> Callable[[dict[str, Any]], str]:
    return lambda told: json.dumps({**told, **changed})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda told: "", "not a tokenizer.json"),
        (lambda told: json.dumps(told)[:-50], "not a tokenizer.json"),
        (lambda told: "[]", "not a tokenizer.json"),
        (lambda told: "[" * 100_000, "not a tokenizer.json"),
        (lambda told: "\udcff", "not a tokenizer.json"),
        (_with(model={"type": "WordPiece", "vocab": {"a": 0}}), "another kind (WordPiece)"),
        (_with(pre_tokenizer=None), "another kind (BPE)"),
        (lambda told: _with(added_tokens=told["added_tokens"][1:])(told), "gaps or stand twice"),
        (lambda told: _with(added_tokens=told["added_tokens"][:1])(told), "'eos_token' is '<|end_of_text|>'"),
        (lambda told: _with(model={**told["model"], "merges": [["a", "no such"]]})(told), "cannot be read"),
        (_with(added_tokens=[{"content": 1}]), "not a tokenizer.json"),
    ],
)
def test_damage_is_one_message(
    folder: Path, tmp_path: Path, damage: Callable[[dict[str, Any]], str], said: str
) -> None:
    told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer_config.json").write_bytes((folder / "tokenizer_config.json").read_bytes())
    (tmp_path / "tokenizer.json").write_bytes(damage(told).encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        tokenizer.load(tmp_path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_without_its_config_it_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(DataError, match="tokenizer_config.json"):
        tokenizer.load(tmp_path)
