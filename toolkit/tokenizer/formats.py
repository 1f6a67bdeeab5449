"""The formats of a tokenizer folder: the protobuf of a SentencePiece model, and the JSON files of Hugging Face.

Decides whether a model file is whole and writes `tokenizer.json` and its companions from it; leaves encoding to
`pieces`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toolkit import files
from toolkit.errors import DataError

if TYPE_CHECKING:
    from toolkit.tokenizer.pieces import Tokenizer

HF_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
TEMPLATE = "chat_template.jinja"

# sentencepiece_model.proto: TrainerSpec.ModelType, and the field numbers of ModelProto, its TrainerSpec, NormalizerSpec
# and SentencePiece.
_BPE = 2
_PIECES, _TRAINER, _NORMALIZER, _MODEL_TYPE = 1, 2, 3, 3
_SUFFIX, _BYTE_FALLBACK = 24, 35
_CHARSMAP, _DUMMY_PREFIX, _REMOVE_SPACES, _ESCAPE = 2, 3, 4, 5
_SHORT = _PIECES << 3 | 2  # the key of a text in field 1
_SPECIAL = (b"\x18\4", b"\x18\5")  # a SentencePiece's last field, number 3, its type: user-defined, unused


def model_fault(model: bytes) -> str:
    """Why these bytes cannot be used as a tokenizer model; empty if they can.

    SentencePiece itself accepts a file that was cut between two pieces, and has a smaller vocabulary then.
    """
    try:
        told = _told(model)
        if not {_PIECES, _TRAINER, _NORMALIZER} <= told.fields:
            raise ValueError
        kind = dict(_fields(told.specs[_TRAINER])).get(_MODEL_TYPE, 1)
    except (IndexError, ValueError, TypeError, KeyError):
        return "it is truncated, or another kind of file (a Git LFS pointer, a download page)"
    return "" if kind == _BPE else "it is not a BPE model as Llama's is"


def unlike_llama(model: bytes) -> str:
    """What of a whole BPE model is not as Llama-2's, so that `encoding_json` would not say it; empty if all is."""
    told = _told(model)
    if told.special:
        return "it has user-defined or unused pieces"
    trainer, normalizer = (dict(_fields(told.specs.get(number, b""))) for number in (_TRAINER, _NORMALIZER))
    said = {
        "it changes characters before it encodes": normalizer.get(_CHARSMAP, b"") != b"",
        "it begins without a space mark": not normalizer.get(_DUMMY_PREFIX, 1),
        "it removes spaces": bool(normalizer.get(_REMOVE_SPACES, 1)),
        "it marks no spaces": not normalizer.get(_ESCAPE, 1),
        "it marks spaces at a word's end": bool(trainer.get(_SUFFIX, 0)),
        "it has no bytes for unknown characters": not trainer.get(_BYTE_FALLBACK, 0),
    }
    return next((why for why, is_so in said.items() if is_so), "")


class _Told(NamedTuple):
    """The numbers of a model's fields, its trainer's and its normalizer's specs, and whether a piece is special."""

    fields: frozenset[int]
    specs: dict[int, bytes]
    special: bool


@functools.lru_cache(maxsize=2)
def _told(model: bytes) -> _Told:
    """Raises `ValueError` or `IndexError` if its end is within a field."""
    numbers, specs, special = set(), {}, False
    for number, value in _fields(model):
        numbers.add(number)
        if number in (_TRAINER, _NORMALIZER) and isinstance(value, bytes):
            specs[number] = value
        elif number == _PIECES and isinstance(value, bytes) and value.endswith(_SPECIAL):
            special = True
    return _Told(frozenset(numbers), specs, special)


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The (number, value) fields of one protobuf message; `ValueError` or `IndexError` if its end is within a field."""
    at, end = 0, len(data)
    while at < end:
        if data[at] == _SHORT and at + 1 < end and data[at + 1] < 128:  # nearly all of a model: a piece
            stop = at + 2 + data[at + 1]
            if stop > end:
                raise ValueError("cut")
            yield _PIECES, data[at + 2 : stop]
            at = stop
            continue
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 2, 5):
            length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(kind)
        if at > end:
            raise ValueError("cut")
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    raise ValueError("varint")


def write_hf(folder: Path, tokenizer: Tokenizer, model_max_length: int) -> None:
    """Write the JSON files with which transformers and tokenizers make the same ids.

    They take a literal control name in a text (`</s>`, `<EOD>`) for the token; `toolkit.tokenizer` does not.
    `tokenizer.json` spares them the conversion of the model, which needs a protobuf package of a matching version.
    """
    special = {
        f"{name}_token": tokenizer.piece(getattr(tokenizer, f"{name}_id")) for name in ("bos", "eos", "unk", "pad")
    }
    entries = _added_tokens(tokenizer)
    more = [e["content"] for e in entries if e["special"] and e["content"] not in special.values()]
    special = {**special, "additional_special_tokens": more} if more else special
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(e["id"]): {k: v for k, v in e.items() if k != "id"} for e in entries},
        **special,
        "clean_up_tokenization_spaces": False,
        "legacy": True,  # a space mark at the start of each stretch, also after an added token, as Megatron-LLM has it
        "model_max_length": model_max_length,
        "sp_model_kwargs": {},
        "use_default_system_prompt": False,
    }
    files.write_json(folder / "special_tokens_map.json", special)
    files.write_json(folder / "tokenizer_config.json", config)
    files.write_json(folder / "tokenizer.json", _tokenizer_json(tokenizer, entries))


def encoding_json(tokenizer: Tokenizer) -> dict[str, object]:
    """A tokenizer.json that encodes a stretch of text as the SentencePiece model does, and knows no control token."""
    return {**_tokenizer_json(tokenizer, []), "post_processor": None}


def chat_template(folder: Path) -> str | None:
    """How a folder's model wants a conversation written, from a file of its own or the older place, or None."""
    try:
        if (folder / TEMPLATE).is_file():
            return (folder / TEMPLATE).read_text(encoding="utf-8")
        told = json.loads((folder / HF_FILES[1]).read_text(encoding="utf-8")).get("chat_template")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, RecursionError) as err:
        raise DataError(
            "the chat template cannot be read", where=folder, why=str(err), do="get or remove the file"
        ) from err
    return told if isinstance(told, str) else None


def _added_tokens(tokenizer: Tokenizer) -> list[dict[str, object]]:
    own = {number: tokenizer.piece(number) for number in (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id)}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        # Tags are not "special": decoding with skip_special_tokens keeps them.
        {"id": number, "content": name, **plain, "special": number in own or tokenizer.is_control(number)}
        for number, name in sorted({**own, **{number: name for name, number in tokenizer.added.items()}}.items())
    ]


def _tokenizer_json(tokenizer: Tokenizer, entries: list[dict[str, object]]) -> dict[str, object]:
    bos = tokenizer.piece(tokenizer.bos_id)
    begin, first, second = (
        {"SpecialToken": {"id": bos, "type_id": 0}},
        *({"Sequence": {"id": x, "type_id": i}} for i, x in enumerate("AB")),
    )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": entries,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first],
            "pair": [begin, first, {"SpecialToken": {"id": bos, "type_id": 1}}, second],
            "special_tokens": {bos: {"id": bos, "ids": [tokenizer.bos_id], "tokens": [bos]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": tokenizer.piece(tokenizer.unk_id),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: i for i, piece in enumerate(tokenizer.base_pieces())},
            "merges": _merges(tokenizer),
        },
    }


def _merges(tokenizer: Tokenizer) -> list[str]:
    """Every way to make a piece of two others, the best piece first: SentencePiece merges by score, tokenizers by rank.

    Among the ways to make one piece the longer left part comes first, as in the converter of transformers.
    """
    pieces = {piece: (number, score) for number, piece, score in tokenizer.mergeable()}
    ways = [
        (-score, -cut, number, piece[:cut], piece[cut:])
        for piece, (number, score) in pieces.items()
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    ]
    return [f"{left} {right}" for *_, left, right in sorted(ways)]
