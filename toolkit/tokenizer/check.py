"""Whether the files of a tokenizer folder say the same: its own, and those that transformers reads.

Decides what is compared; leaves what a damaged file is to the loaders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.tokenizer import JsonTokenizer, Tokenizer, byte_level

TEXTS = (
    "The dose is 12.5 mg/kg  twice\tdaily\r\n(n = 1,234).\n",
    " e\u0301 é ﬁ β-blocker 😀👩\u200d⚕️ 漢字 \u00a0\u200b" + " " * 20 + "aaaaaaaaaaaaaaaaaaaa",
)


def faults(tokenizer: Tokenizer | JsonTokenizer) -> list[str]:
    """What in the folder contradicts the tokenizer, which has been loaded from it."""
    folder = tokenizer.folder
    found: list[str] = []
    config = _read(folder / byte_level.CONFIG, found)
    for number, entry in sorted(config.get("added_tokens_decoder", {}).items()):
        found += _same(f"{byte_level.CONFIG}: id {number}", _piece(tokenizer, int(number)), entry.get("content"))
    for name in ("bos_token", "eos_token", "pad_token"):
        told = config.get(name)
        told = told.get("content") if isinstance(told, dict) else told
        if told is not None:
            own = getattr(tokenizer, name.replace("token", "id"))
            found += _same(f"{byte_level.CONFIG}: {name}", _piece(tokenizer, own), told)
    if (folder / byte_level.FILE).is_file():
        found += _with_tokenizers(tokenizer)
    return found


def _with_tokenizers(tokenizer: Tokenizer | JsonTokenizer) -> list[str]:
    """What Hugging Face's `tokenizers` makes of the folder's tokenizer.json: ids of names and of text."""
    try:
        import tokenizers
    except ImportError:
        return []
    try:
        theirs = tokenizers.Tokenizer.from_file(str(tokenizer.folder / byte_level.FILE))
    except Exception as err:  # the package raises nothing narrower
        return [f"{byte_level.FILE} cannot be read: {str(err)[:200]}"]
    found = _same(f"{byte_level.FILE}: size", tokenizer.vocab_size, theirs.get_vocab_size())
    for name, number in tokenizer.added.items():
        found += _same(f"{byte_level.FILE}: {name}", number, theirs.token_to_id(name))
    for text in (*TEXTS, *(f"a {tag} b{tag}" for tag in tokenizer.tags.ids)):
        ids = theirs.encode(text, add_special_tokens=False).ids
        found += _same(f"{byte_level.FILE}: ids of {text[:40]!r}", tokenizer.encode(text), ids)
    return found


def _same(what: str, own: Any, told: Any) -> list[str]:
    return [] if own == told else [f"{what} is {told!r}, expected {own!r}"]


def _piece(tokenizer: Tokenizer | JsonTokenizer, number: int) -> str | None:
    return tokenizer.piece(number) if 0 <= number < tokenizer.vocab_size else None


def _read(path: Path, found: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(told, dict):
            return told
        found.append(f"{path.name} is no JSON object")
    except (OSError, ValueError, RecursionError) as err:
        found.append(f"{path.name} cannot be read: {err}")
    return {}
