"""Text to token ids and back, for a folder with a SentencePiece model and added tokens whose ids follow its own.

Decides which strings of a text become added tokens, trains and extends such folders; leaves documents, batches and
padding to its users.
"""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from toolkit import files, tokenizer_json
from toolkit.errors import DataError, MissingPackage
from toolkit.tokenizer_files import HF_FILES, model_fault, write_hf
from toolkit.tokenizer_json import JsonTokenizer

MODEL, ADDED = "tokenizer.model", "added_tokens.json"
FILES = (MODEL, ADDED, *HF_FILES)
"""All that a tokenizer folder can hold; copy those that exist to carry a tokenizer elsewhere."""

MEDITRON_TOKENS = (
    *("<CLS>", "<SEP>", "<EOD>", "<MASK>", "<PAD>"),
    *("[bib_ref]", "[/bib_ref]", "[fig_ref]", "[/fig_ref]", "[bib]", "[/bib]"),
    *("[fig]", "[/fig]", "[table]", "[/table]", "[formula]", "[/formula]"),
)
"""MEDITRON's 17 after Llama-2's 32,000, in their order: ids 32000 to 32016 (epfLLM/Megatron-LLM, tokenizer.py)."""

CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
"""The two that finetuning adds after them (epfLLM/meditron, finetuning/sft.py)."""

DEFAULT_MAX_LENGTH = 4096
_CONTROL_NAME = re.compile(r"<[^<>\s]+>")


class Tokenizer:
    """A loaded tokenizer; make one with `load`. Ids below `base_size` are SentencePiece's, then come the added tokens.

    No method adds a beginning or an end: who makes documents or prompts does, with `bos_id`, `eos_id`, `eod_id`.
    """

    def __init__(self, processor, added: dict[str, int], folder: Path) -> None:
        self.folder, self.added = folder, added
        self.base_size: int = processor.vocab_size()
        self.vocab_size: int = self.base_size + len(added)
        self.bos_id: int = processor.bos_id()
        self.eos_id: int = processor.eos_id()
        self.unk_id: int = processor.unk_id()
        self.eod_id: int = added.get("<EOD>", self.eos_id)
        own_pad = processor.pad_id() if processor.pad_id() >= 0 else self.eos_id
        self.pad_id: int = added.get("<PAD>", added.get("<pad>", own_pad))
        self._sp = processor
        self._names = {number: name for name, number in added.items()}
        # Only corpus tags are cut from text. A control name in an article (`<EOD>`, `</s>`) is text like any other:
        # as a token it would end the document in the middle.
        self._tags = {name: number for name, number in added.items() if not _CONTROL_NAME.fullmatch(name)}
        longest_first = sorted(self._tags, key=len, reverse=True)
        self._cut = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
        self._control = {i for i in range(self.base_size) if processor.is_control(i)}
        self._control |= {number for name, number in added.items() if name not in self._tags}

    def __len__(self) -> int:
        return self.vocab_size

    def encode(self, text: str) -> list[int]:
        """Ids of `text`: corpus tags become their ids, each stretch of text between them is encoded by itself.

        Each stretch gets SentencePiece's leading space mark, as in Megatron-LLM. No string becomes a control token.
        Raises `DataError` for text that no UTF-8 can hold (a lone surrogate).
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in order."""
        try:
            encode = self._sp_encode if self._cut is None else self._encode_cut
            return [encode(text) for text in texts]
        except UnicodeEncodeError as err:
            raise DataError(
                f"text that is not valid Unicode: a lone surrogate at character {err.start}",
                do="repair or remove the text",
            ) from err

    def _encode_cut(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, stretch in enumerate(self._cut.split(text)):  # text and tags alternate
            if i % 2:
                ids.append(self._tags[stretch])
            elif stretch:
                ids += self._sp_encode(stretch)
        return ids

    def _sp_encode(self, text: str) -> list[int]:
        # As bytes: what SentencePiece's Python layer does with a lone surrogate differs between its versions.
        return self._sp.encode(text.encode("utf-8"))

    def decode(self, ids: Iterable[int], *, control: bool = False) -> str:
        """Text of `ids`; the inverse of `encode`, but a literal U+2581 comes back as a space.

        Control tokens are dropped, or shown by name if `control`. Raises `DataError` for an id outside the vocabulary.
        """
        parts: list[str] = []
        stretch: list[int] = []
        for number in map(int, ids):
            if not 0 <= number < self.vocab_size:
                raise DataError(
                    f"token id {number} is outside the vocabulary of {self.vocab_size}",
                    where=self.folder,
                    do="use the tokenizer that made the ids",
                )
            if number < self.base_size and number not in self._control:
                stretch.append(number)
                continue
            # Tags and control tokens divide stretches, and each stretch had its own leading space mark.
            parts.append(self._sp.decode(stretch))
            stretch = []
            if control or number not in self._control:
                parts.append(self.piece(number))
        return "".join(parts) + self._sp.decode(stretch)

    def is_control(self, number: int) -> bool:
        """Whether an id is a control token (`<s>`, `</s>`, `<EOD>`, ...), which no text becomes."""
        return number in self._control

    def piece(self, number: int) -> str:
        """The vocabulary entry of an id, as written in the vocabulary (`▁dose`, `<0x0A>`, `[bib_ref]`)."""
        if number >= self.base_size:
            return self._names[number]
        return self._sp.id_to_piece(number)

    def mergeable(self) -> Iterable[tuple[int, str, float]]:
        """(id, piece, score) of each entry that merging can make: the base vocabulary without bytes and controls."""
        sp = self._sp
        for i in range(self.base_size):
            if not (sp.is_control(i) or sp.is_unknown(i) or sp.is_byte(i) or sp.is_unused(i)):
                yield i, sp.id_to_piece(i), sp.get_score(i)

    def id(self, piece: str) -> int:
        """The id of a vocabulary entry, control tokens included. Raises `KeyError` if there is none."""
        if piece in self.added:
            return self.added[piece]
        number = self._sp.piece_to_id(piece)
        if number == self.unk_id and piece != self._sp.id_to_piece(number):
            raise KeyError(piece)
        return number


def model_file(folder: str | Path) -> Path:
    """The file that ids follow from: a folder's SentencePiece model, or where there is none its tokenizer.json."""
    folder = Path(folder)
    other = folder / tokenizer_json.FILE
    return other if other.is_file() and not (folder / MODEL).is_file() else folder / MODEL


def load(folder: str | Path) -> Tokenizer | JsonTokenizer:
    """Load a tokenizer folder: its SentencePiece model, or where there is none its tokenizer.json.

    Raises `DataError` for a missing or damaged model and added tokens of the wrong form.
    """
    folder = Path(folder)
    path = model_file(folder)
    if path.name == tokenizer_json.FILE:
        return tokenizer_json.load(folder)
    if not path.is_file():
        raise DataError(
            f"no {MODEL} in this folder" if folder.is_dir() else "no such tokenizer folder",
            where=folder,
            do=f"give the folder that holds {MODEL} (of the Hugging Face model, for instance)",
        )
    processor = _processor(path.read_bytes(), path)
    return Tokenizer(processor, _read_added(folder / ADDED, processor), folder)


def extend(
    folder: str | Path,
    out: str | Path,
    tokens: Sequence[str] = MEDITRON_TOKENS,
    *,
    model_max_length: int = DEFAULT_MAX_LENGTH,
) -> Tokenizer | JsonTokenizer:
    """Write `folder`'s tokenizer, with `tokens` added after its vocabulary in their order, to the new folder `out`.

    Tokens that it has added already stay. Transformers reads the folder too, with the same ids. Raises `DataError` for
    a token that the base vocabulary has, for a repeated or empty one, and for an `out` that holds other files.
    """
    base = load(folder)
    if isinstance(base, JsonTokenizer):
        return _copied(base, Path(out), tokens)
    added = dict(base.added)
    if len(set(tokens)) < len(tokens):
        raise DataError("a token to add is given twice", where=folder)
    for token in tokens:
        if not token or token != token.strip():
            raise DataError(f"cannot add {token!r}: it is empty or has spaces around it", where=folder)
        if token in added:
            continue
        if _in_vocabulary(base, token):
            raise DataError(f"cannot add {token!r}: the vocabulary has it already as id {base.id(token)}", where=folder)
        added[token] = base.base_size + len(added)
    model = (base.folder / MODEL).read_bytes()
    return _write(Path(out), model, added, model_max_length)


def train(
    texts: Iterable[str],
    out: str | Path,
    *,
    vocab_size: int,
    seed: int = 0,
    max_lines: int = 1_000_000,
    character_coverage: float = 0.9999,
    model_max_length: int = DEFAULT_MAX_LENGTH,
) -> Tokenizer:
    """Train a BPE tokenizer with Llama-2's settings on `texts` and write it to the folder `out`.

    Those are: identity normalisation, a leading space mark, single digits, bytes for characters outside the vocabulary
    (newline is one), ids 0 `<unk>`, 1 `<s>`, 2 `</s>`, no padding token. The same input gives the same bytes; beyond
    `max_lines` lines, a sample drawn with `seed` is used. Raises `DataError` for no text, and for too little or too
    varied text for `vocab_size`, with the size that is possible.
    """
    lines = _sample_lines(texts, max_lines, seed)
    if not lines:
        raise DataError("no text to train a tokenizer on", where=out, do="check that the corpus is not empty")
    model = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            split_digits=True,
            byte_fallback=True,
            allow_whitespace_only_pieces=True,
            character_coverage=character_coverage,
            max_sentence_length=1 << 30,  # the default silently leaves out lines over 4 kB
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as err:
        raise _training_error(err, vocab_size, out) from err
    return _write(Path(out), model.getvalue(), {}, model_max_length)


def _sample_lines(texts: Iterable[str], max_lines: int, seed: int) -> list[str]:
    """At most `max_lines` of the non-empty lines, each with the same chance (reservoir sampling)."""
    rng, kept, seen = random.Random(seed), [], 0
    for text in texts:
        for line in text.split("\n"):
            # A NUL or a lone surrogate would make SentencePiece drop the line, or fail.
            line = line.replace("\0", " ").encode("utf-8", "ignore").decode("utf-8")
            if not line.strip():
                continue
            seen += 1
            if len(kept) < max_lines:
                kept.append(line)
            elif (slot := rng.randrange(seen)) < max_lines:
                kept[slot] = line
    return kept


def _training_error(err: RuntimeError, vocab_size: int, out: object) -> DataError:
    message = str(err)
    if largest := re.search(r"value <= (\d+)", message):
        return DataError(
            f"too little text for a vocabulary of {vocab_size}; the largest possible is {largest[1]}",
            where=out,
            do=f"set the vocabulary size to {largest[1]} or less, or give more text",
        )
    if needed := re.search(r"(\d+) vs (\d+)", message):
        least = max(map(int, needed.groups()))
        return DataError(
            f"a vocabulary of {vocab_size} is too small for this text",
            where=out,
            why=f"its single characters and the 256 bytes alone take {least}",
            do=f"set a vocabulary size above {least} or a lower character_coverage",
        )
    return DataError("the tokenizer could not be trained", where=out, why=message)


def _write(out: Path, model: bytes, added: dict[str, int], model_max_length: int) -> Tokenizer:
    if out.exists() and (not out.is_dir() or any(path.name not in FILES for path in out.iterdir())):
        raise DataError("holds other files than a tokenizer's", where=out, do="choose a new folder")
    processor = _processor(model, out / MODEL)
    loaded = Tokenizer(processor, added, out)
    with files.atomic_folder(out) as part:
        (part / MODEL).write_bytes(model)
        if added:
            files.write_json(part / ADDED, added)
        write_hf(part, loaded, model_max_length)
    return loaded


def _copied(base: JsonTokenizer, out: Path, tokens: Sequence[str]) -> JsonTokenizer:
    """A tokenizer.json keeps what it has: Llama 3's has room for new tokens among its own, under reserved names."""
    if tokens:
        raise DataError(
            f"no tokens are added to a {tokenizer_json.FILE}", where=base.folder, do="set model.extra_tokens=none"
        )
    with files.atomic_folder(out) as part:
        for name in tokenizer_json.FILES:
            if (base.folder / name).is_file():
                (part / name).write_bytes((base.folder / name).read_bytes())
    return tokenizer_json.load(out)


def _in_vocabulary(tokenizer: Tokenizer, token: str) -> bool:
    try:
        tokenizer.id(token)
    except KeyError:
        return False
    return True


def _sentencepiece():
    try:
        import sentencepiece
    except ImportError as err:
        raise MissingPackage("sentencepiece is not installed", do="install the toolkit's 'data' extra") from err
    return sentencepiece


def _processor(model: bytes, path: Path):
    fault = model_fault(model)
    processor = _sentencepiece().SentencePieceProcessor()
    try:
        if not fault:
            processor.LoadFromSerializedProto(model)
    except RuntimeError as err:
        fault = f"SentencePiece says: {err}"
    if fault:
        raise DataError(
            f"not a SentencePiece BPE model ({len(model):,} bytes)", where=path, why=fault, do="get the file again"
        )
    if processor.eos_id() < 0 or processor.bos_id() < 0:
        raise DataError("the vocabulary has no begin or no end token", where=path, do="use a Llama-like tokenizer")
    return processor


def _read_added(path: Path, processor) -> dict[str, int]:
    if not path.exists():
        return {}
    base = processor.vocab_size()
    form = f'expected {{"token": id, ...}} with ids {base}, {base + 1}, ... once each'
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise DataError("not a JSON file in UTF-8", where=path, why=str(err), do=form) from err
    if not isinstance(entries, dict) or not all(name and type(number) is int for name, number in entries.items()):
        raise DataError("added tokens of the wrong form", where=path, do=form)
    added: dict[str, int] = {}
    for name, number in sorted(entries.items(), key=lambda entry: entry[1]):
        if 0 <= number < base and processor.id_to_piece(number) == name:
            continue  # some published folders list <s> and </s> here too
        if number != base + len(added):
            kind = "collides with another id" if number < base + len(added) else "leaves a gap"
            raise DataError(f"added token {name!r} has id {number}, which {kind}", where=path, do=form)
        added[name] = number
    return added
