"""Whether a Hugging Face folder is the model of a checkpoint: every bit by stream, and the logits of both.

Decides what is compared and when a model is too large for its logits; leaves Megatron's own side to whoever hands it
in, since no Megatron is imported here.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.checkpoint import compare, complete, distcp, hf, look
from toolkit.checkpoint.model import MegatronModel
from toolkit.errors import CheckpointError
from toolkit.hf_folder import CONFIG

_ROWS, _LENGTH = 2, 32
_ROPES = ("default", "linear", "llama3")  # the scalings of rotary positions that megatron-core has
_TIMES_MODEL = 2.5  # float32 weights, what they are read into, and the logits
# (folder of the checkpoint's tensors, config.json, JSON of tokens, .npy to write, rows of the embedding)
MegatronLogits = Callable[[Path, Path, Path, Path, int], None]


@dataclass(frozen=True, kw_only=True)
class Logits:
    """Of `tokens` positions: the largest |HF - Megatron|, the largest |HF|, and at how many both prefer the same."""

    tokens: int
    max_abs: float
    largest: float
    top1_agreement: float


@dataclass(frozen=True, kw_only=True)
class Verified:
    """`bits` compares every tensor; `logits` is None where they were not compared, for the reason in `why`."""

    bits: compare.Diff
    logits: Logits | None
    why: str

    @property
    def equal(self) -> bool:
        return self.bits.equal


def verify(hf_folder: Path, checkpoint: Path, *, megatron: MegatronLogits | None, progress: bool = True) -> Verified:
    """Compare every tensor bit for bit (after rounding to the folder's type, where it was exported in another one), and
    on random tokens the logits by transformers with those by `megatron`; None leaves these out.

    Raises `CheckpointError` when either cannot be read or the checkpoint is not whole.
    """
    model = hf.check_hf(Path(hf_folder))
    checkpoint = look.require_checkpoint(Path(checkpoint))
    if reason := complete.incomplete_reason(checkpoint):
        raise CheckpointError("the checkpoint is not complete", where=checkpoint, why=reason, do="use another step")
    bits = compare.diff(Path(hf_folder), checkpoint, rounded=True, progress=progress)
    if megatron is None:
        return Verified(bits=bits, logits=None, why="not asked for")
    rope = (model.shape.scaling or {}).get("rope_type", "default")
    if rope not in _ROPES:
        return Verified(bits=bits, logits=None, why=f"Megatron has no rotary positions of type {rope!r}")
    parameters = sum(t.nbytes // 2 for t in model.tensors.values())
    need, free = int(parameters * 4 * _TIMES_MODEL), _available()
    if free is not None and need > free:
        why = f"they take about {need / 2**30:.0f} GiB of memory, and {free / 2**30:.0f} GiB are free"
        return Verified(bits=bits, logits=None, why=why)
    return Verified(bits=bits, logits=_logits(model, checkpoint, megatron), why="")


def _logits(model: hf.HfModel, checkpoint: Path, megatron: MegatronLogits) -> Logits:
    import numpy as np

    generator = np.random.default_rng(1)
    length = min(_LENGTH, model.shape.max_positions)
    tokens = generator.integers(0, model.shape.vocab_size, (_ROWS, length))
    rows = MegatronModel(checkpoint, model.shape).padded_vocab_size
    with tempfile.TemporaryDirectory() as folder:
        words, config, out = (Path(folder, name) for name in ("tokens.json", CONFIG, "logits.npy"))
        words.write_text(json.dumps(tokens.tolist()), encoding="utf-8")
        shape = model.shape  # in the one spelling of several that a config.json may have
        plain = {"rope_theta": shape.rope_theta, "rope_scaling": shape.scaling, "rms_norm_eps": shape.rms_norm_eps}
        config.write_text(json.dumps({**model.config, **plain}), encoding="utf-8")
        megatron(distcp.weights_folder(checkpoint), config, words, out, rows)
        theirs = np.load(out, allow_pickle=False)
    ours = _by_transformers(model.folder, tokens)
    return Logits(
        tokens=tokens.size,
        max_abs=float(np.abs(ours - theirs).max()),
        largest=float(np.abs(ours).max()),
        top1_agreement=float((ours.argmax(-1) == theirs.argmax(-1)).mean()),
    )


def _by_transformers(folder: Path, tokens: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, attn_implementation="eager"
    )
    with torch.no_grad():
        return model.eval()(torch.tensor(tokens)).logits.float().numpy()


def _available() -> int | None:
    """Bytes of memory that may be used; None where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + _cached()
    except (OSError, ValueError):
        return None


def _cached() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("Cached:"):
            return int(line.split()[1]) * 1024
    return 0


def as_dict(found: Verified) -> dict[str, Any]:
    logits = None if found.logits is None else asdict(found.logits)
    return {"equal": found.equal, "bits": compare.as_dict(found.bits), "logits": logits, "why": found.why}


def as_text(found: Verified) -> str:
    if found.logits is None:
        told = f"logits: not compared: {found.why}"
    else:
        each = found.logits
        told = f"logits of {each.tokens} tokens: max |HF - Megatron| {each.max_abs:.3g} (largest {each.largest:.3g}), "
        told += f"same first choice at {100 * each.top1_agreement:.1f} %"
    return f"{compare.as_text(found.bits)}\n{told}"
