"""Text to token ids and back for a folder that has a `tokenizer.json` alone, as Llama 3's: byte-level BPE.

Decides which entry begins, ends and pads; the merges are those of Hugging Face's `tokenizers`. Takes the place of
`pieces.Tokenizer`, with its names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import DataError, MissingPackage
from toolkit.tokenizer.tags import Tags, tags_of, utf8

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
FILES = (FILE, CONFIG, "special_tokens_map.json", "chat_template.jinja")


class JsonTokenizer:
    """Ids below `base_size` are the vocabulary's, then come the added tokens: control tokens, and tags of a corpus.

    No string of a text becomes a control token, and no method adds a beginning or an end.
    """

    package = "tokenizers"

    def __init__(
        self,
        folder: Path,
        bpe: Any,
        base_size: int,
        added: dict[str, int],
        named: dict[str, str],
        *,
        tags: Tags,
        bare: str,
    ) -> None:
        self.folder, self.added, self.base_size = folder, added, base_size
        self.vocab_size = base_size + len(added)
        self.bos_id, self.eos_id = added[named["bos_token"]], added[named["eos_token"]]
        self.unk_id = -1  # every byte has an id
        self.eod_id = added.get("<EOD>", self.eos_id)
        self.pad_id = added.get(named.get("pad_token", "<PAD>"), self.eos_id)
        self.tags, self._bare = tags, bare
        self._bpe, self._names = bpe, {number: name for name, number in added.items()}

    def __len__(self) -> int:
        return self.vocab_size

    def encode(self, text: str) -> list[int]:
        """Ids of `text`: tags become their ids, each stretch of text between them is encoded by itself.

        Raises `DataError` for text that no UTF-8 can hold (a lone surrogate).
        """
        return self.tags.encode(text, self.encode_stretch)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in order; in this thread alone, for the workers are processes."""
        return [self.encode(text) for text in texts]

    def encode_stretch(self, text: str) -> list[int]:
        """Ids of `text` without a look for tags in it. Raises as `encode`."""
        utf8(text)
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def definition(self) -> tuple[bytes, str]:
        """A tokenizer.json that encodes stretches of text as this does and knows no added token, and no why not."""
        return self._bare.encode(), ""

    def decode(self, ids: Iterable[int], *, control: bool = False) -> str:
        """Text of `ids`, the inverse of `encode`. Control tokens are dropped, or shown by name if `control`.

        Raises `DataError` for an id outside the vocabulary.
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
            if number < self.base_size:
                stretch.append(number)
            elif control or not self.is_control(number):
                parts += [self._bpe.decode(stretch), self.piece(number)]
                stretch = []
        return "".join(parts) + self._bpe.decode(stretch)

    def is_control(self, number: int) -> bool:
        """Whether an id is a control token, which no text becomes."""
        return number >= self.base_size and self._names.get(number) not in self.tags.ids

    def piece(self, number: int) -> str:
        """The vocabulary entry of an id, as written in the vocabulary (`Ġdose`)."""
        return self._names[number] if number >= self.base_size else self._bpe.id_to_token(number)

    def id(self, piece: str) -> int:
        """The id of a vocabulary entry, control tokens included. Raises `KeyError` if there is none."""
        number = self.added.get(piece, self._bpe.token_to_id(piece))
        if number is None:
            raise KeyError(piece)
        return int(number)


def load(folder: Path) -> JsonTokenizer:
    """Load a folder's `tokenizer.json`. Raises `DataError` for one that is damaged or of another kind."""
    path = folder / FILE
    form = "expected byte-level BPE, with added tokens whose ids follow the vocabulary's, as Llama 3 has it"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        vocab, entries = told["model"]["vocab"], told["added_tokens"]
        kind, size = told["model"]["type"], len(vocab)
        added = {entry["content"]: entry["id"] for entry in sorted(entries, key=lambda entry: entry["id"])}
        named = _named(folder)
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as err:
        raise DataError("not a tokenizer.json in UTF-8", where=path, why=str(err), do="get the file again") from err
    if kind != "BPE" or "ByteLevel" not in json.dumps(told.get("pre_tokenizer")):
        raise DataError(f"a tokenizer of another kind ({kind})", where=path, do=form)
    if set(vocab.values()) != set(range(size)) or list(added.values()) != list(range(size, size + len(added))):
        raise DataError("ids that leave gaps or stand twice", where=path, do=form)
    for name in ("bos_token", "eos_token"):
        if named.get(name) not in added:
            raise DataError(f"'{name}' is {named.get(name)!r}, which is no added token", where=folder / CONFIG, do=form)
    # Without the added tokens, so that no text becomes one; who makes documents and prompts adds them by id.
    bare = json.dumps({**told, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None})
    try:
        bpe = _package().Tokenizer.from_str(bare)
    except MissingPackage:
        raise
    except Exception as err:  # the package raises nothing narrower
        raise DataError("a tokenizer.json that cannot be read", where=path, why=str(err)[:300], do=form) from err
    # A tag is told by its name and by its entry: Qwen has entries that are not special and yet no words of a text.
    tags = tags_of({entry["content"]: entry["id"] for entry in entries if entry.get("special") is False})
    return JsonTokenizer(folder, bpe, size, added, named, tags=tags, bare=bare)


def write_extended(base: JsonTokenizer, out: Path, added: Mapping[str, int]) -> JsonTokenizer:
    """Write `base`'s files to the new folder `out`, with those of `added` that it has not yet behind its added tokens.

    Transformers reads the folder too, with the same ids. The first `<PAD>` pads where nothing did.
    """
    told = json.loads((base.folder / FILE).read_text(encoding="utf-8"))
    config = json.loads((base.folder / CONFIG).read_text(encoding="utf-8"))
    tags = tags_of(added).ids
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    new = {name: number for name, number in added.items() if name not in base.added}
    # Tags are not "special": decoding with skip_special_tokens keeps them.
    entries = {number: {"content": name, **plain, "special": name not in tags} for name, number in new.items()}
    told["added_tokens"] += [{"id": number, **entry} for number, entry in entries.items()]
    if isinstance(config.get("added_tokens_decoder"), dict):
        config["added_tokens_decoder"] |= {str(number): entry for number, entry in entries.items()}
    if "<PAD>" in new and not config.get("pad_token"):
        config["pad_token"] = "<PAD>"
    with files.atomic_folder(out) as part:
        for name in FILES:
            if (base.folder / name).is_file():
                (part / name).write_bytes((base.folder / name).read_bytes())
        if new:
            (part / FILE).write_text(json.dumps(told, ensure_ascii=False, indent=2), encoding="utf-8")
            files.write_json(part / CONFIG, config)
    return load(out)


def _named(folder: Path) -> dict[str, str]:
    """Which token begins, ends and pads; an entry is its text, or an object with it."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    found = {name: config.get(name) for name in ("bos_token", "eos_token", "pad_token")}
    texts = {name: value["content"] if isinstance(value, dict) else value for name, value in found.items()}
    return {name: value for name, value in texts.items() if isinstance(value, str)}


def _package() -> Any:
    try:
        import tokenizers
    except ImportError as err:
        raise MissingPackage("tokenizers is not installed", do="install the toolkit's 'train' extra") from err
    return tokenizers
