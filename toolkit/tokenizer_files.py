"""The formats of a tokenizer folder: the protobuf of a SentencePiece model, and the JSON files of Hugging Face.

Decides whether a model file is whole and writes `tokenizer.json` and its companions from it; leaves encoding to
`toolkit.tokenizer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import files

if TYPE_CHECKING:
    from toolkit.tokenizer import Tokenizer

HF_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

_BPE = 2  # TrainerSpec.ModelType (sentencepiece_model.proto)
_PIECES, _TRAINER, _NORMALIZER, _MODEL_TYPE = 1, 2, 3, 3  # field numbers of ModelProto, and of its TrainerSpec


def model_fault(model: bytes) -> str:
    """Why these bytes cannot be used as a tokenizer model; empty if they can.

    SentencePiece itself accepts a file that was cut between two pieces, and has a smaller vocabulary then.
    """
    try:
        fields = dict(_fields(model))
        if not {_PIECES, _TRAINER, _NORMALIZER} <= set(fields):
            raise ValueError
        kind = dict(_fields(fields[_TRAINER])).get(_MODEL_TYPE, 1)
    except (IndexError, ValueError, TypeError):
        return "it is truncated, or another kind of file (a Git LFS pointer, a download page)"
    return "" if kind == _BPE else "it is not a BPE model as Llama's is"


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The (number, value) fields of one protobuf message; `ValueError` or `IndexError` if its end is within a field."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 2, 5):
            length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(kind)
        if at > len(data):
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
            "vocab": {tokenizer.piece(i): i for i in range(tokenizer.base_size)},
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
