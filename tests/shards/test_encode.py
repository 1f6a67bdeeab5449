"""Encoding, fast and exact: the reference's ids whatever engine, block or worker made them, and what is replaced."""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.shards.conftest import NASTY, invented_texts, write_rows
from tests.test_tokenizer_json import make as make_llama3
from toolkit import tokenizer as tokenizers
from toolkit.errors import DataError
from toolkit.shards import encode, fast, probe, rows
from toolkit.tokenizer import Tags, formats

TAGS = tokenizers.MEDITRON_TOKENS[5:]
HARD = [
    *NASTY,
    *(text for tag in TAGS for text in (tag, f"{tag} a", f"a {tag}", f"a{tag}b", f" {tag} ", tag * 3, tag[:-1])),
    *("</s>", "<s>a</s>", "a</s>", " <unk>", "<0x0A>\n<0x0A>", "<EOD>", "<|im_end|>", "<CLS> [bib_ref]<EOD>[/bib_ref]"),
    *("\t", "\t\t \t", " " * 40, "a" + " " * 33 + "b", "\n \n", "\r\n" * 5, "\u00a0\u2003 \u200b", "[[table]]"),
    *("\u2581", "\u2581\u2581 a", "e\u0301 é Å A\u030a ﬁ ½ ǆ", "\u1100\u1161\u11a8 각", "👩\u200d⚕️🏳️\u200d🌈🇨🇭"),
    *("हिन्दी ไทย العربية", "\U0010ffff\ufffe\ud7ff", "ACGT" * 500, "=" * 1000, "é" * 999, "1234567890" * 50, "x\0y\0"),
]  # fmt: skip


@pytest.fixture(scope="session")
def llama3(tmp_path_factory) -> Path:
    """A tokenizer.json as Llama 3's, with the paper's tokens."""
    pytest.importorskip("tokenizers")
    plain = make_llama3(tmp_path_factory.mktemp("llama3"))
    return tokenizers.extend(plain, plain.parent / "llama3-meditron").folder


def reference(folder: Path, text: str) -> list[int]:
    """Ids by the reference library alone; cut by hand, so that nothing of the toolkit's encoding is in it."""
    import sentencepiece
    from tokenizers import Tokenizer

    if (folder / "tokenizer.model").is_file():
        added = json.loads((folder / "added_tokens.json").read_text())
        plain = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode
    else:
        told = json.loads((folder / "tokenizer.json").read_text())
        added = {entry["content"]: entry["id"] for entry in told["added_tokens"]}
        bare = Tokenizer.from_str(json.dumps({**told, "added_tokens": [], "post_processor": None}))
        plain = lambda stretch: bare.encode(stretch, add_special_tokens=False).ids  # noqa: E731
    ids, begin, at = [], 0, 0
    while at < len(text):
        tag = next((tag for tag in TAGS if tag in added and text.startswith(tag, at)), None)
        if tag is None:
            at += 1
            continue
        ids += plain(text[begin:at]) if begin < at else []
        ids.append(added[tag])
        begin = at = at + len(tag)
    return ids + (plain(text[begin:]) if begin < len(text) else [])


def plan_for(folder: Path, **more) -> encode.Settings:
    loaded = tokenizers.load(folder)
    return encode.Settings(
        tokenizer=folder, text_field="text", dtype="int32", **{"eod_id": loaded.eod_id, **more}
    )  # fmt: skip


def run(paths: list[Path], plan: encode.Settings, workers: int = 1) -> tuple[fast.Engine, list[encode.Encoded]]:
    with encode.Encoder(paths, plan, workers) as encoder:
        return encoder.engine, list(encoder)


def documents(chunks: list[encode.Encoded]) -> list[list[int]]:
    made = []
    for chunk in chunks:
        ids = np.frombuffer(chunk.ids, dtype="<i4").tolist()
        ends = np.cumsum(chunk.lengths).tolist()
        assert len(ids) == (ends[-1] if ends else 0)
        made += [ids[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    return made


@pytest.mark.parametrize("which", ["meditron", "llama3"])
def test_hard_text_has_the_references_ids(request, tmp_path, which):
    folder = request.getfixturevalue(which)
    plan = plan_for(folder)
    engine, made = run([write_rows(tmp_path / "a.jsonl", HARD)], plan)
    assert (engine.name, engine.why) == ("gigatoken", "") and engine.compared > 1000
    assert documents(made) == [[*reference(folder, text), plan.eod_id] for text in HARD]
    control = {number for name, number in tokenizers.load(folder).added.items() if name not in TAGS}
    assert not control & {number for document in documents(made) for number in document[:-1]}


pieces = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from([*TAGS, "</s>", "<s>", "<0x0A>", "\u2581", "  ", "\n\n", "a dose", "[", "bib_ref]", "e\u0301"]),
        st.text(alphabet="ab \u2581\n1", max_size=30),
    ),
    max_size=8,
)


@pytest.fixture(scope="session")
def engines(meditron, llama3):
    found = {}
    for folder in (meditron, llama3):
        loaded = tokenizers.load(folder)
        engine, encoded = fast.prove(fast.candidate(loaded), loaded, [], loaded.tags)
        assert engine.name == "gigatoken"
        found[folder] = (loaded, encoded)
    return found


@settings(max_examples=150, deadline=None)
@given(pieces)
@example([" " * 100, "a"])
def test_any_text_has_the_references_ids(engines, parts):
    text = "".join(parts)
    for folder, (loaded, encoded) in engines.items():
        expected = reference(folder, text)
        assert loaded.encode(text) == expected
        assert loaded.tags.encode(text, lambda stretch: encoded(stretch).tolist()) == expected  # noqa: B023


def varint(number: int) -> bytes:
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def test_whitespace_pieces_with_equal_scores_are_merged_as_sentencepiece_does(base, tmp_path):
    """Llama-2's own model gives all runs of spaces one very low score, so that their order is the question."""
    fields = list(formats._fields((base / "tokenizer.model").read_bytes()))
    long = [n for n, (number, value) in enumerate(fields) if number == 1 and value[1] > 8][-15:]
    for count, n in enumerate(long, 2):
        spaces = "\u2581".encode() * count
        fields[n] = (1, b"\x0a" + bytes([len(spaces)]) + spaces + b"\x15" + struct.pack("<f", -1e9))
    model = b"".join(bytes([number << 3 | 2]) + varint(len(value)) + value for number, value in fields)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "tokenizer.model").write_bytes(model)
    (tmp_path / "t" / "added_tokens.json").write_text("{}")
    loaded = tokenizers.load(tmp_path / "t")
    engine, encoded = fast.prove(fast.candidate(loaded), loaded, [], loaded.tags)
    assert engine.name == "gigatoken"
    assert {len(piece) for _, piece, score in tokenizers.load(tmp_path / "t").mergeable() if score < -1e8} == {
        *range(2, 17)
    }
    for count in range(60):
        for text in (" " * count, f"a{' ' * count}b", f"{' ' * count}ab \u2581{' ' * count}"):
            assert list(encoded(text)) == reference(tmp_path / "t", text), text


OTHERS = {
    "normalization_rule_name": ("nmt_nfkc", "changes characters"),
    "add_dummy_prefix": (False, "without a space mark"),
    "remove_extra_whitespaces": (True, "removes spaces"),
    "treat_whitespace_as_suffix": (True, "at a word's end"),
    "byte_fallback": (False, "no bytes"),
    "user_defined_symbols": (["dose"], "user-defined"),
}


@pytest.mark.parametrize("option", OTHERS)
def test_a_model_unlike_llamas_is_left_to_sentencepiece(tmp_path, option):
    import sentencepiece

    folder = tmp_path / "t"
    folder.mkdir()
    value, why = OTHERS[option]
    as_llama = {"normalization_rule_name": "identity", "add_dummy_prefix": True, "remove_extra_whitespaces": False}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(invented_texts(200)),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=500,
        model_type="bpe",
        minloglevel=2,
        **{**as_llama, "byte_fallback": True, option: value},
    )
    (folder / "added_tokens.json").write_text("{}")
    texts = [*invented_texts(20, seed=3), *(text for text in NASTY if "\0" not in text)]
    engine, made = run([write_rows(tmp_path / "a.jsonl", texts)], plan_for(folder, eod_id=None))
    assert engine.name == "sentencepiece" and why in engine.why and why in encode.log_line(engine)
    assert documents(made) == [ids for ids in (reference(folder, text) for text in texts) if ids]


def test_an_engine_that_gives_other_ids_is_not_used(meditron, tmp_path, monkeypatch):
    """The real engine with merges less: caught by the sample, and the bytes are the reference's, with workers too."""
    texts = invented_texts(300)
    source = write_rows(tmp_path / "a.jsonl", texts)
    whole = tokenizers.Tokenizer.definition

    def less(tokenizer):
        told = json.loads(whole(tokenizer)[0])
        return json.dumps({**told, "model": {**told["model"], "merges": told["model"]["merges"][20:]}}).encode(), ""

    _, expected = run([source], plan_for(meditron))
    monkeypatch.setattr(tokenizers.Tokenizer, "definition", less)
    for workers in (1, 2):  # the workers have begun with the wrong engine when it is found out
        engine, made = run([source], plan_for(meditron), workers)
        assert engine.name == "sentencepiece" and "gigatoken gives other ids than sentencepiece for" in engine.why
        assert documents(made) == documents(expected)


def test_an_engine_that_cannot_load_the_tokenizer_is_not_used(meditron, tmp_path, monkeypatch):
    source = write_rows(tmp_path / "a.jsonl", HARD)
    _, expected = run([source], plan_for(meditron))
    monkeypatch.setattr(tokenizers.Tokenizer, "definition", lambda self: (b'{"model": {"type": "none"}}', ""))
    for workers in (1, 2):
        engine, made = run([source], plan_for(meditron), workers)
        assert engine.name == "sentencepiece" and "gigatoken cannot load the tokenizer" in engine.why
        assert documents(made) == documents(expected)


def test_without_the_fast_packages_the_reference_does_it(meditron, llama3, tmp_path, monkeypatch):
    source = write_rows(tmp_path / "a.jsonl", HARD)
    before = {folder: documents(run([source], plan_for(folder))[1]) for folder in (meditron, llama3)}
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    monkeypatch.setitem(sys.modules, "orjson", None)
    for folder, name in ((meditron, "sentencepiece"), (llama3, "tokenizers")):
        engine, made = run([source], plan_for(folder))
        assert (engine.name, engine.why) == (name, "gigatoken is not installed") and engine.version
        assert documents(made) == before[folder]


def test_the_cache_may_go_at_any_time_and_a_text_may_fail(meditron, tmp_path, monkeypatch):
    source = write_rows(tmp_path / "a.jsonl", [*HARD, *invented_texts(3000)])
    monkeypatch.setattr(rows, "_BLOCK", 1 << 16)
    _, expected = run([source], plan_for(meditron))
    assert len(expected) > 5
    monkeypatch.setattr(fast, "_CACHE_BYTES", -1)
    _, made = run([source], plan_for(meditron))
    assert documents(made) == documents(expected)
    encoded = fast.load(fast.candidate(tokenizers.load(meditron)), meditron)
    monkeypatch.setattr(encoded, "_encode", lambda text: 1 / 0)
    assert list(encoded("a dose")) == reference(meditron, "a dose")


def test_what_no_text_can_hold_is_replaced_and_counted(meditron, tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_bytes(
        b'{"text": "caf\xe9 \xf0\x9f \xff"}\n{"text": "lone \\ud800 and \\udfff"}\n{"text": "pair \\ud83d\\ude00"}\n'
        b'{"id": "\xff", "text": "sound"}\n{"text": ""}\n{"text": NaN}\n{"n": NaN, "text": "as json reads it"}\n'
    )
    texts = ["caf\ufffd \ufffd \ufffd", "lone \ufffd and \ufffd", "pair 😀", "sound", "as json reads it"]
    _, (made,) = run([source], plan_for(meditron, eod_id=None))
    assert documents([made]) == [reference(meditron, text) for text in texts]
    assert (made.rows, made.empty, made.replaced) == (7, 1, 3)
    assert [(row.line, row.why) for row, _ in made.bad] == [(6, "field 'text' is not a string but a float")]


@pytest.mark.parametrize("workers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_blocks_and_workers_change_nothing(meditron, tmp_path, monkeypatch, workers):
    rng = random.Random(2)
    texts = ["", *HARD, *(" ".join(invented_texts(rng.randint(1, 40), seed=n)) for n in range(300)), "y" * 300_000]
    source = write_rows(tmp_path / "a.jsonl", texts)
    lines = source.read_bytes().splitlines()
    lines[5:5] = [b"no json", b"  ", b""]
    source.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    other = write_rows(tmp_path / "b.jsonl", texts[:50])
    plan = plan_for(meditron)
    expected = [[*reference(meditron, text), plan.eod_id] for text in texts if text]
    for size in (1 << 20, 4096, 70_001) if workers == 1 else (70_001,):
        monkeypatch.setattr(rows, "_BLOCK", size)
        _, made = run([source, other], plan, workers)
        assert [chunk.input for chunk in made] == sorted(chunk.input for chunk in made)
        assert documents([chunk for chunk in made if chunk.input == 0]) == expected
        assert documents([chunk for chunk in made if chunk.input == 1]) == expected[:49]
        assert [(Path(row.file).name, row.line) for chunk in made for row, _ in chunk.bad] == [("a.jsonl", 6)]
        assert sum(chunk.rows for chunk in made) == len(texts) + 1 + 50
        assert sum(chunk.read for chunk in made if chunk.input == 0) == source.stat().st_size


@pytest.mark.parametrize("block", [64, 1000, 1 << 20])
def test_a_row_that_is_too_long_is_one_bad_row(meditron, tmp_path, monkeypatch, block):
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 500)
    monkeypatch.setattr(rows, "_BLOCK", block)
    source = write_rows(tmp_path / "a.jsonl", ["a", "b" * 488, "c", "d" * 489, "e", "f" * 9000, "g", "h" * 9000])
    _, made = run([source], plan_for(meditron, eod_id=None))
    assert documents(made) == [reference(meditron, text) for text in ("a", "b" * 488, "c", "e", "g")]
    assert [row.line for chunk in made for row, _ in chunk.bad] == [4, 6, 8]
    assert {row.why for chunk in made for row, _ in chunk.bad} == {"longer than 0 MiB"}
    assert sum(chunk.read for chunk in made) == source.stat().st_size


def test_only_the_named_tokens_are_cut(meditron, tmp_path):
    source = write_rows(tmp_path / "a.jsonl", ["[bib_ref]a[fig]", "<EOD>b"])
    added = tokenizers.load(meditron).added
    _, made = run([source], plan_for(meditron, eod_id=None, tags=("[fig]", "<EOD>")))
    first, second = documents(made)
    assert first[-1] == added["[fig]"] and added["[bib_ref]"] not in first and second[0] == added["<EOD>"]
    with pytest.raises(DataError, match=r"no added token '\[bibref\]'") as caught:
        run([source], plan_for(meditron, tags=("[bibref]",)))
    assert "did you mean '[bib_ref]'?" in str(caught.value)


def test_the_sample_is_of_the_input_and_the_same_each_time(meditron, tmp_path):
    import zstandard

    texts = invented_texts(2000)
    plain = write_rows(tmp_path / "a.jsonl", texts)
    packed = tmp_path / "b.jsonl.zst"
    packed.write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
    broken = tmp_path / "c.jsonl.zst"
    broken.write_bytes(b"\x28\xb5\x2f\xfdnothing")
    for paths in ([plain], [packed], [plain, packed, broken, tmp_path / "gone.jsonl"]):
        found = probe.sample(paths, "text")
        assert 10 < len(found) < 40 and set(found) <= set(texts) and len(set(found)) > 10
        assert found == probe.sample(paths, "text")
    assert probe.sample([], "text") == []


@pytest.mark.slow
def test_fifty_megabytes_are_the_bytes_of_megatrons_builder(meditron, tmp_path):
    """Pure sentencepiece and megatron-core's writer; documents of 5 MB without a space among them."""
    import sentencepiece

    from toolkit import shards

    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    rng = random.Random(4)
    alphabet = "abcdefghijklmnop" * 20 + "0123456789.,;-" + "éß漢😀\u0301"
    texts = ["".join(rng.choices(alphabet, k=5_000_000)) for _ in range(2)]
    made = invented_texts(4000, seed=9)
    while sum(map(len, texts)) < 50_000_000:
        texts.append(f"{rng.choice(HARD)}{rng.choice(TAGS)} ".join(rng.choices(made, k=rng.randint(1, 200))))
    texts[5:5] = [*HARD, ""]
    source = write_rows(tmp_path / "a.jsonl", texts)
    with open(source, "ab") as out:
        out.write(b'{"text": "caf\xe9"}\r\n')
    shards.build([source], tmp_path / "ours", tokenizer=meditron, workers=2)
    plain = sentencepiece.SentencePieceProcessor(model_file=str(meditron / "tokenizer.model"))
    cut = Tags(ids=json.loads((meditron / "added_tokens.json").read_text()))  # only to cut; checked above
    tags = {tag: cut.ids[tag] for tag in TAGS}
    builder = indexed.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.uint16)
    for text in [*texts, "caf\ufffd"]:
        ids = []
        for n, stretch in enumerate(Tags(ids=tags).split(text)):
            ids += [tags[stretch]] if n % 2 else plain.encode(stretch)
        if ids:
            builder.add_document([*ids, cut.ids["<EOD>"]], [len(ids) + 1])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()
