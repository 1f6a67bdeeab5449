"""Text to token ids and back: folders with a SentencePiece model (Llama 2) or a tokenizer.json (Llama 3).

Decides which kind a folder is and extends either; leaves documents, batches and padding to its users.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from toolkit import files
from toolkit.errors import DataError
from toolkit.tokenizer import byte_level, formats, pieces
from toolkit.tokenizer.byte_level import JsonTokenizer
from toolkit.tokenizer.pieces import ADDED, DEFAULT_MAX_LENGTH, MODEL, Tokenizer
from toolkit.tokenizer.tags import Tags, chosen
from toolkit.tokenizer.training import train

__all__ = [
    "ADDED",
    "CHAT_TOKENS",
    "DEFAULT_MAX_LENGTH",
    "FILES",
    "MEDITRON_TOKENS",
    "MODEL",
    "JsonTokenizer",
    "Tags",
    "Tokenizer",
    "chosen",
    "extend",
    "folder_of",
    "ids_sha256",
    "load",
    "model_file",
    "train",
]

FILES = tuple(dict.fromkeys((*pieces.FILES, *byte_level.FILES)))
"""All that a tokenizer folder can hold; copy those that exist to carry a tokenizer elsewhere."""

MEDITRON_TOKENS = (
    *("<CLS>", "<SEP>", "<EOD>", "<MASK>", "<PAD>"),
    *("[bib_ref]", "[/bib_ref]", "[fig_ref]", "[/fig_ref]", "[bib]", "[/bib]"),
    *("[fig]", "[/fig]", "[table]", "[/table]", "[formula]", "[/formula]"),
)
"""MEDITRON's 17 after Llama-2's 32,000, in their order: ids 32000 to 32016 (epfLLM/Megatron-LLM, tokenizer.py)."""

CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
"""The two that finetuning adds after them (epfLLM/meditron, finetuning/sft.py)."""


def folder_of(path: str | Path) -> Path:
    """The folder that is meant, where people name the file in it."""
    path = Path(path)
    return path.parent if path.name in (MODEL, byte_level.FILE) and path.is_file() else path


def model_file(folder: str | Path) -> Path:
    """The file that ids follow from: a folder's SentencePiece model, or where there is none its tokenizer.json."""
    folder = Path(folder)
    other = folder / byte_level.FILE
    return other if other.is_file() and not (folder / MODEL).is_file() else folder / MODEL


def ids_sha256(folder: str | Path) -> str:
    """A hash of all that decides which ids a text gets: the model and the tokens added to it. Raises as `load`."""
    added = json.dumps(load(folder).added, sort_keys=True)
    return hashlib.sha256((files.sha256_file(model_file(folder)) + added).encode()).hexdigest()


def load(folder: str | Path) -> Tokenizer | JsonTokenizer:
    """Load a tokenizer folder: its SentencePiece model, or where there is none its tokenizer.json.

    Raises `DataError` for a missing or damaged model and added tokens of the wrong form.
    """
    folder = Path(folder)
    path = model_file(folder)
    if path.name == byte_level.FILE:
        return byte_level.load(folder)
    if not path.is_file():
        raise DataError(
            f"no {MODEL} in this folder" if folder.is_dir() else "no such tokenizer folder",
            where=folder,
            do=f"give the folder that holds {MODEL} or {byte_level.FILE} (of the Hugging Face model, for instance)",
        )
    return pieces.load(folder)


def extend(
    folder: str | Path,
    out: str | Path,
    tokens: Sequence[str] = MEDITRON_TOKENS,
    *,
    model_max_length: int = DEFAULT_MAX_LENGTH,
) -> Tokenizer | JsonTokenizer:
    """Write `folder`'s tokenizer, with `tokens` added after its vocabulary in their order, to the new folder `out`.

    Tokens that it has added already stay, and so does a chat template. Transformers reads the folder too, with the same
    ids. Raises `DataError` for a token that the base vocabulary has, for a repeated or empty one, and for an `out` that
    holds other files.
    """
    base = load(folder)
    added = _with_new(base, tokens)
    if isinstance(base, JsonTokenizer):
        pieces.check_out(Path(out), byte_level.FILES)
        return byte_level.write_extended(base, Path(out), added)
    model = (base.folder / MODEL).read_bytes()
    return pieces.write(Path(out), model, added, model_max_length, formats.chat_template(base.folder))


def _with_new(base: Tokenizer | JsonTokenizer, tokens: Sequence[str]) -> dict[str, int]:
    """The added tokens of `base`, then those of `tokens` that are new."""
    added = dict(base.added)
    if len(set(tokens)) < len(tokens):
        raise DataError("a token to add is given twice", where=base.folder)
    for token in tokens:
        if not token or token != token.strip():
            raise DataError(f"cannot add {token!r}: it is empty or has spaces around it", where=base.folder)
        if token in added:
            continue
        if _in_vocabulary(base, token):
            raise DataError(
                f"cannot add {token!r}: the vocabulary has it already as id {base.id(token)}", where=base.folder
            )
        added[token] = base.base_size + len(added)
    return added


def _in_vocabulary(tokenizer: Tokenizer | JsonTokenizer, token: str) -> bool:
    try:
        tokenizer.id(token)
    except KeyError:
        return False
    return True
