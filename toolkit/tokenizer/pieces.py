"""Text to token ids and back for a folder with a SentencePiece model and added tokens whose ids follow its own.

Decides what an id is and which of them no text becomes; leaves the making of such folders to the package.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import DataError, MissingPackage
from toolkit.tokenizer import formats
from toolkit.tokenizer.tags import tags_of, utf8

MODEL, ADDED = "tokenizer.model", "added_tokens.json"
FILES = (MODEL, ADDED, *formats.HF_FILES, formats.TEMPLATE)
DEFAULT_MAX_LENGTH = 4096


class Tokenizer:
    """A loaded tokenizer; make one with `load`. Ids below `base_size` are SentencePiece's, then come the added tokens.

    No method adds a beginning or an end: who makes documents or prompts does, with `bos_id`, `eos_id`, `eod_id`.
    """

    package = "sentencepiece"

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
        self.tags = tags_of(added)

    def __len__(self) -> int:
        return self.vocab_size

    @functools.cached_property
    def _control(self) -> frozenset[int]:
        own = (i for i in range(self.base_size) if self._sp.is_control(i))
        return frozenset(own) | {number for name, number in self.added.items() if name not in self.tags.ids}

    def encode(self, text: str) -> list[int]:
        """Ids of `text`: corpus tags become their ids, each stretch of text between them is encoded by itself.

        Each stretch gets SentencePiece's leading space mark, as in Megatron-LLM. No string becomes a control token.
        Raises `DataError` for text that no UTF-8 can hold (a lone surrogate).
        """
        return self.tags.encode(text, self.encode_stretch)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in order."""
        return [self.encode(text) for text in texts]

    def encode_stretch(self, text: str) -> list[int]:
        """Ids of `text` without a look for tags in it. Raises as `encode`."""
        # As bytes: what SentencePiece's Python layer does with a lone surrogate differs between its versions.
        ids: list[int] = self._sp.encode(utf8(text))
        return ids

    def definition(self) -> tuple[bytes, str]:
        """A tokenizer.json that encodes stretches of text as this does and knows no added token, or b"" and why not."""
        why = formats.unlike_llama((self.folder / MODEL).read_bytes())
        if why:
            return b"", f"the tokenizer is not as Llama's: {why}"
        return json.dumps(formats.encoding_json(self), ensure_ascii=False).encode(), ""

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

    def base_pieces(self) -> list[str]:
        """`piece` of each id of the base vocabulary, in their order."""
        return self._sp.id_to_piece(list(range(self.base_size)))

    def mergeable(self) -> Iterable[tuple[int, str, float]]:
        """(id, piece, score) of each entry that merging can make: the base vocabulary without bytes and controls."""
        sp, ids = self._sp, list(range(self.base_size))
        kinds = zip(sp.is_control(ids), sp.is_unknown(ids), sp.is_byte(ids), sp.is_unused(ids), strict=True)
        for i, piece, score, kind in zip(ids, sp.id_to_piece(ids), sp.get_score(ids), kinds, strict=True):
            if not any(kind):
                yield i, piece, score

    def id(self, piece: str) -> int:
        """The id of a vocabulary entry, control tokens included. Raises `KeyError` if there is none."""
        if piece in self.added:
            return self.added[piece]
        number = self._sp.piece_to_id(piece)
        if number == self.unk_id and piece != self._sp.id_to_piece(number):
            raise KeyError(piece)
        return number


def load(folder: Path) -> Tokenizer:
    """Load a folder's SentencePiece model and its added tokens. Raises `DataError` for damaged ones."""
    path = folder / MODEL
    processor = _processor(path.read_bytes(), path)
    return Tokenizer(processor, _read_added(folder / ADDED, processor), folder)


def write(
    out: Path, model: bytes, added: dict[str, int], model_max_length: int, chat_template: str | None = None
) -> Tokenizer:
    """Write the folder `out` of a model and its added tokens, with the files that transformers reads."""
    check_out(out, FILES)
    processor = _processor(model, out / MODEL)
    loaded = Tokenizer(processor, added, out)
    with files.atomic_folder(out) as part:
        (part / MODEL).write_bytes(model)
        if added:
            files.write_json(part / ADDED, added)
        formats.write_hf(part, loaded, model_max_length)
        if chat_template is not None:
            (part / formats.TEMPLATE).write_text(chat_template, encoding="utf-8")
    return loaded


def check_out(out: Path, names: Sequence[str]) -> None:
    """Raise `DataError` for a folder that holds other files than `names`: it is to be replaced as a whole."""
    if out.exists() and (not out.is_dir() or any(path.name not in names for path in out.iterdir())):
        raise DataError("holds other files than a tokenizer's", where=out, do="choose a new folder")


def sentencepiece() -> Any:
    """The package, or `MissingPackage`."""
    try:
        import sentencepiece
    except ImportError as err:
        raise MissingPackage("sentencepiece is not installed", do="install the toolkit's 'data' extra") from err
    return sentencepiece


def _processor(model: bytes, path: Path):
    fault = formats.model_fault(model)
    processor = sentencepiece().SentencePieceProcessor()
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
