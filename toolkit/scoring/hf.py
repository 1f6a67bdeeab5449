"""A Hugging Face model made ready to score: checked, loaded, nothing unpickled, nothing fetched.

Decides whether transformers gets all that it asks for; leaves the files themselves to `toolkit.hf_folder` and what is
computed with the model to `engines`.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import hf_folder
from toolkit.errors import CheckpointError, DataError, MissingPackage
from toolkit.hf_folder import AGAIN, CONFIG, INDEX, Stored


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A causal language model in memory. `vocab_size` are the rows of its embeddings, of which the first `pieces` are
    tokens; `window` is its number of positions (None: it states none)."""

    name: str
    model: Any
    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    bos_id: int | None
    vocab_size: int
    pieces: int
    window: int | None
    device: str
    dtype: str
    folder: Path
    notes: tuple[str, ...] = ()


def named(folder: Path) -> str:
    """What a model is called that has no other name: its folder, or the one above where that is plain `hf`."""
    whole = folder.resolve()
    return whole.parent.name if whole.name == "hf" and whole.parent.name else whole.name


def check_hf(folder: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in an HF folder, from the files' headers alone.

    Raises CheckpointError: not a folder, no or bad config.json, no safetensors, an index that names a file or tensor
    that is not there, a file cut short.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError("no such model folder", where=folder, do="give a Hugging Face folder on this disk")
    config = hf_folder.read_json_object(hf_folder.config_file(folder))
    index = hf_folder.read_index(folder)
    stored = hf_folder.read_tensors(folder)
    if index is not None:
        stored = _promised(folder, index, stored)
    layers = config.get("num_hidden_layers", 1)
    if not isinstance(layers, int) or layers > len(stored):
        why = f"the weights hold only {len(stored)} tensors"
        raise CheckpointError(f"num_hidden_layers is {layers!r}", where=folder / CONFIG, why=why, do=AGAIN)
    return {name: tensor.dims for name, tensor in stored.items()}


def _promised(folder: Path, index: Mapping[str, Any], stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors that the index names: transformers takes its word for what is where, and needs its metadata."""
    if not isinstance(index.get("metadata"), dict):
        raise CheckpointError("has no metadata", where=folder / INDEX, do=AGAIN)
    for name, file in index["weight_map"].items():
        if name not in stored or stored[name].file.name != file:
            raise CheckpointError(f"{file} lacks the tensor {name!r} that the index promises", where=folder, do=AGAIN)
    return {name: stored[name] for name in index["weight_map"]}


def load_model(folder: str | Path, *, name: str | None = None) -> LoadedModel:
    """Load model and tokenizer from `folder` alone: fp32 on the CPU, bf16 on CUDA when there is one.

    Raises CheckpointError where `check_hf` does, and for a missing or misshapen tensor, an architecture that this
    transformers version does not hold, and a vocabulary smaller than its tokenizer.
    """
    folder = Path(folder)
    check_hf(folder)
    # torch says it while it is imported, and nobody who scores can do anything about it.
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated", category=FutureWarning)
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
            raise CheckpointError("the model cannot be loaded", where=folder, why=why, do=AGAIN) from err
        # transformers has filled these with random numbers
        for fault, keys in (("is missing", info["missing_keys"]), ("has another shape", info["mismatched_keys"])):
            if keys:
                first = sorted(key if isinstance(key, str) else key[0] for key in keys)[0]
                more = f" ({len(keys)} in all)" if len(keys) > 1 else ""
                raise CheckpointError(f"the tensor '{first}' {fault}{more}", where=folder, do=AGAIN)
        encode, decode, bos_id, pieces = tokenizer_of(folder)
    rows = model.get_input_embeddings().weight.shape[0]
    if pieces > rows:
        why = f"{pieces} tokens, and {rows} rows of embeddings"
        raise CheckpointError("the tokenizer does not belong to this model", where=folder, why=why)
    if cuda and not place:
        model = model.to("cuda")
    unused = len(info["unexpected_keys"])
    return LoadedModel(
        name=name or named(folder),
        model=model.eval(),
        encode=encode,
        decode=decode,
        bos_id=bos_id,
        vocab_size=rows,
        pieces=pieces,
        window=getattr(model.config, "max_position_embeddings", None),
        device="cuda" if cuda else "cpu",
        dtype=str(dtype).removeprefix("torch."),
        folder=folder,
        notes=(f"tensors in the files that are no part of the model: {unused}",) if unused else (),
    )


def tokenizer_of(folder: str | Path) -> tuple[Any, Any, int | None, int]:
    """(encode, decode, bos id, number of tokens); encode adds no special tokens. Raises DataError."""
    folder = Path(folder)
    if (folder / "tokenizer.model").is_file():
        from toolkit import tokenizer

        own = tokenizer.load(folder)
        return own.encode, own.decode, own.bos_id if own.bos_id >= 0 else None, own.vocab_size
    import transformers

    try:
        hf = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as err:
        why = " ".join(str(err).split())[:300]
        raise DataError("no tokenizer in the model's folder", where=folder, why=why, do=AGAIN) from err
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
