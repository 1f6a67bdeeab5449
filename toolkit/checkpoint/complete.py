"""Which checkpoint folders are whole, and which of them is the newest.

Decides by names, markers and file sizes, as NeMo leaves them; reads no tensor.
"""

from __future__ import annotations

import re
from pathlib import Path

from toolkit.checkpoint import distcp
from toolkit.checkpoint.metadata import read_metadata
from toolkit.errors import CheckpointError

UNFINISHED = "-unfinished"  # NeMo puts a file of this suffix beside a checkpoint while it is being saved
_STEP = re.compile(r"(?:^|[-_])step=(\d+)|^iter_(\d+)$")  # NeMo's and Megatron-LM's names


def step_of(path: Path) -> int | None:
    """The step in a checkpoint's folder name (`step=9`, `step=9-last`, `name--loss=1.2-step=9`, Megatron-LM's
    `iter_0000010`), None when it has none.

    NeMo counts from 0: `step=9` was saved after ten steps."""
    match = _STEP.search(Path(path).resolve().name if Path(path).name in ("", ".", "..") else Path(path).name)
    if match is None and Path(path).name == distcp.WEIGHTS:
        match = _STEP.search(Path(path).parent.name)
    return int(match[1] or match[2]) if match else None


def incomplete_reason(path: Path) -> str | None:
    """Why a checkpoint cannot be used, or None when it is whole: no unfinished marker, all files there and long
    enough.
    """
    path = Path(path)
    owner = path.parent if path.name == distcp.WEIGHTS else path
    marker = owner.with_name(owner.name + UNFINISHED)
    if marker.exists():
        return f"the marker {marker.name} says that saving it did not end"
    try:
        folder = distcp.weights_folder(path)
        metadata = read_metadata(folder)
    except CheckpointError as err:
        return str(err).rstrip(".")
    for name in (distcp.FORMAT, distcp.COMMON):
        if not (folder / name).is_file():
            return f"its file {name} is missing"
    for name, nbytes in metadata.file_bytes.items():
        file = folder / name
        if not file.is_file():
            return f"its file {name} is missing"
        if file.stat().st_size < nbytes:
            return f"its file {name} has {file.stat().st_size} bytes of at least {nbytes}"
    return None


def is_complete(path: Path) -> bool:
    return incomplete_reason(path) is None


def latest(folder: Path) -> Path:
    """The newest complete checkpoint of a folder: the highest step, and at equal steps the `-last` one.

    Raises `CheckpointError` when there is none, with the reason for each that was set aside.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError("no such folder", where=folder, do="give a run's checkpoints folder")
    found = [
        (step, path.name.endswith("-last"), path.name, path)
        for path in folder.iterdir()
        if path.is_dir() and (step := step_of(path)) is not None
    ]
    reasons = []
    for _, _, name, path in sorted(found, key=lambda item: item[:3], reverse=True):
        reason = incomplete_reason(path)
        if reason is None:
            return path
        reasons.append(f"{name}: {reason}")
    raise CheckpointError(
        "no complete checkpoint",
        where=folder,
        why="; ".join(reasons) or "no folder there is named step=<number>",
        do="train until one is saved",
    )
