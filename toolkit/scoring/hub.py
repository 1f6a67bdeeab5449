"""A benchmark's files from huggingface.co or a mirror (HF_ENDPOINT), at the revision that its own file names.

Decides what is fetched and where it lies then; leaves the files' form to `rows`. Nothing calls this unless a user asked
for the hub: scores never depend on what a network gave unasked.
"""

from __future__ import annotations

import os
from pathlib import Path

from toolkit.errors import DataError, MissingPackage, UsageError
from toolkit.scoring.benchmarks import Benchmark


def files(spec: Benchmark, split: str = "test") -> tuple[str, ...]:
    """The paths in the data set that hold `split`. Raises UsageError for a benchmark without them."""
    hub = spec.hub
    if hub is None:
        do = "give its original file with --path"
        raise UsageError(f"benchmark '{spec.name}' names no copy on the hub", why=spec.notes, do=do)
    wanted = {"test": hub.files, "train": hub.train, "demonstrations": hub.demonstrations or hub.train}[split]
    if split != "test" and spec.format == "truthfulqa":
        wanted = hub.files
    if not wanted:
        raise UsageError(f"benchmark '{spec.name}' has no {split} files on the hub", do="give them with --train")
    return tuple(
        name.replace("{group}", group) for name in wanted for group in (spec.groups if "{group}" in name else ("",))
    )


def fetch(spec: Benchmark, split: str = "test", cache: Path | None = None) -> Path:
    """The folder that holds the files of `split` now: what `benchmarks.load` takes as its path.

    Fetched files stay in `cache` (default: huggingface_hub's own) under their commit. HF_ENDPOINT and HF_TOKEN count
    as everywhere. Raises UsageError (no copy on the hub), DataError (not to be had) and MissingPackage.
    """
    names = files(spec, split)
    assert spec.hub is not None
    try:
        import huggingface_hub
    except ImportError as err:
        raise MissingPackage("the hub needs huggingface_hub", do="install the extra 'score', or give --path") from err
    endpoint = os.environ.get("HF_ENDPOINT") or None
    place = f"{endpoint or 'the hub'}: {spec.hub.path} at {spec.hub.revision}"
    for name in names:
        try:
            got = huggingface_hub.hf_hub_download(
                spec.hub.path,
                name,
                repo_type="dataset",
                revision=spec.hub.revision,
                endpoint=endpoint,
                cache_dir=cache,
            )
        except Exception as err:  # its errors are of many libraries: HTTP, the disk, its own
            why = " ".join(f"{type(err).__name__}: {err}".split())[:300]
            do = "check HF_ENDPOINT, or give the original file with --path"
            raise DataError(
                f"{name} of benchmark '{spec.name}' cannot be fetched", where=place, why=why, do=do
            ) from None
    folder = Path(got)
    for _ in Path(name).parts:
        folder = folder.parent
    return folder
