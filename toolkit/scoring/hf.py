"""A Hugging Face folder on disk, checked and loaded: every tensor there, nothing unpickled, nothing fetched.

Decides whether a folder is a whole model; leaves what is computed with it to `engine`.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import CheckpointError, DataError, MissingPackage

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_AGAIN = "export or copy the model again"
_LONGEST_HEADER = 100 * 2**20  # the limit that the safetensors format sets


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A causal language model in memory. `window` is its number of positions (None: it states none)."""

    name: str
    model: Any
    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    bos_id: int | None
    vocab_size: int
    window: int | None
    device: str
    dtype: str
    notes: tuple[str, ...] = ()


def check_hf(folder: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in an HF folder, from the files' headers alone.

    Raises CheckpointError: not a folder, no or bad config.json, no safetensors, an index that names a file or tensor
    that is not there, a file cut short.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError("no such model folder", where=folder, do="give a Hugging Face folder on this disk")
    config = _json_object(folder / "config.json", "the folder is no Hugging Face model: config.json is missing")
    if (folder / INDEX).is_file():
        tensors = _indexed(folder)
    elif (folder / WEIGHTS).is_file():
        tensors = _header(folder / WEIGHTS)
    else:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        why = "pickled weights (*.bin) are never loaded" if pickled else ""
        do = "convert them to safetensors" if pickled else _AGAIN
        raise CheckpointError(f"no weights: neither {WEIGHTS} nor {INDEX}", where=folder, why=why, do=do)
    layers = config.get("num_hidden_layers", 1)
    if not isinstance(layers, int) or layers > len(tensors):
        why = f"the weights hold only {len(tensors)} tensors"
        raise CheckpointError(f"num_hidden_layers is {layers!r}", where=folder / "config.json", why=why, do=_AGAIN)
    return tensors


def _json_object(path: Path, absent: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(absent, where=path.parent, do=_AGAIN) from None
    except (ValueError, RecursionError) as err:
        raise CheckpointError("is not valid JSON", where=path, why=str(err), do=_AGAIN) from None
    if not isinstance(value, dict):
        raise CheckpointError("must hold a JSON object", where=path, do=_AGAIN)
    return value


def _indexed(folder: Path) -> dict[str, tuple[int, ...]]:
    index = _json_object(folder / INDEX, "no index")
    names = index.get("weight_map") if isinstance(index.get("metadata"), dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(file, str) for file in names.values()):
        raise CheckpointError("has no metadata and weight_map", where=folder / INDEX, do=_AGAIN)
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, file in names.items():
        if file != Path(file).name:
            raise CheckpointError(f"names the file '{file}' outside its folder", where=folder / INDEX)
        if file not in found:
            if not (folder / file).is_file():
                raise CheckpointError(f"the index names {file}, which is missing", where=folder, do=_AGAIN)
            found[file] = _header(folder / file)
        if name not in found[file]:
            raise CheckpointError(f"{file} lacks the tensor '{name}' that the index promises", where=folder, do=_AGAIN)
    return {name: found[file][name] for name, file in names.items()}


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes in one safetensors file; its size must be what the header promises."""
    size = path.stat().st_size
    with open(path, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            why = f"{size} bytes, and a header said to be {length} bytes long"
            raise CheckpointError("is cut short or no safetensors file", where=path, why=why, do=_AGAIN)
        try:
            header = json.loads(handle.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
            shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
            expected = 8 + length + end
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError):
            raise CheckpointError("has a damaged safetensors header", where=path, do=_AGAIN) from None
    if size != expected:
        why = f"{size} bytes found, {expected} expected"
        raise CheckpointError("is cut short" if size < expected else "is too long", where=path, why=why, do=_AGAIN)
    return shapes


def load_model(folder: str | Path, *, name: str | None = None) -> LoadedModel:
    """Load model and tokenizer from `folder` alone: fp32 on the CPU, bf16 on CUDA when there is one.

    Raises CheckpointError where `check_hf` does, and for a missing or misshapen tensor, an architecture that this
    transformers version does not hold, and a vocabulary smaller than its tokenizer.
    """
    folder = Path(folder)
    check_hf(folder)
    try:
        import torch
        import transformers
    except ImportError as err:
        raise MissingPackage(f"scoring needs {err.name}", do="install the extra 'score'") from err
    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda else torch.float32
    safe = {"local_files_only": True, "trust_remote_code": False}
    place = {"device_map": "auto"} if cuda and torch.cuda.device_count() > 1 else {}
    with _quiet(transformers):
        try:
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                **safe,
                **place,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as err:
            why = " ".join(str(err).split())[:500]
            raise CheckpointError("the model cannot be loaded", where=folder, why=why, do=_AGAIN) from err
        # transformers has filled these with random numbers
        for fault, keys in (("is missing", info["missing_keys"]), ("has another shape", info["mismatched_keys"])):
            if keys:
                first = sorted(key if isinstance(key, str) else key[0] for key in keys)[0]
                more = f" ({len(keys)} in all)" if len(keys) > 1 else ""
                raise CheckpointError(f"the tensor '{first}' {fault}{more}", where=folder, do=_AGAIN)
        encode, decode, bos_id, pieces = _tokenizer(folder, transformers, safe)
    rows = model.get_input_embeddings().weight.shape[0]
    if pieces > rows:
        why = f"{pieces} tokens, and {rows} rows of embeddings"
        raise CheckpointError("the tokenizer does not belong to this model", where=folder, why=why)
    if cuda and not place:
        model = model.to("cuda")
    unused = len(info["unexpected_keys"])
    return LoadedModel(
        name=name or folder.resolve().name,
        model=model.eval(),
        encode=encode,
        decode=decode,
        bos_id=bos_id,
        vocab_size=rows,
        window=getattr(model.config, "max_position_embeddings", None),
        device="cuda" if cuda else "cpu",
        dtype=str(dtype).removeprefix("torch."),
        notes=(f"tensors in the files that are no part of the model: {unused}",) if unused else (),
    )


def _tokenizer(folder: Path, transformers: Any, safe: dict[str, bool]) -> tuple[Any, Any, int | None, int]:
    """(encode, decode, bos id, number of tokens); encode adds no special tokens."""
    if (folder / "tokenizer.model").is_file():
        from toolkit import tokenizer

        own = tokenizer.load(folder)
        return own.encode, own.decode, own.bos_id if own.bos_id >= 0 else None, own.vocab_size
    try:
        hf = transformers.AutoTokenizer.from_pretrained(folder, **safe)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as err:
        why = " ".join(str(err).split())[:300]
        raise DataError("no tokenizer in the model's folder", where=folder, why=why, do=_AGAIN) from err
    return (
        lambda text: hf.encode(text, add_special_tokens=False),
        lambda ids: hf.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False),
        hf.bos_token_id,
        len(hf),
    )


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """What transformers warns of while loading is checked and said in our own words."""
    log = logging.getLogger("transformers")
    level, bars = log.level, transformers.utils.logging.is_progress_bar_enabled()
    log.setLevel(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        log.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
