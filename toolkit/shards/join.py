"""Several pairs as one, for who wants a single file; a training takes them as they are.

Decides what may be joined; leaves the bytes to `format`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from toolkit import files
from toolkit.errors import ShardError, UsageError
from toolkit.progress import progress
from toolkit.shards import blend, check, format


def merge(prefixes: Sequence[str | Path], prefix: str | Path) -> check.ShardInfo:
    """Write `<prefix>.bin` and `.idx` with the documents of all pairs, in order, and `<prefix>.json` if each has one.

    Raises `ShardError` for a pair that is damaged, or made with another tokenizer than the first, `UsageError` for
    fewer than two or for one that would be overwritten, and `DiskFull`; what stood at `prefix` is still there then.
    """
    if len(prefixes) < 2:
        raise UsageError("fewer than two shards to merge", do="give their prefixes, without .bin and .idx")
    if Path(prefix).resolve() in [Path(each).resolve() for each in prefixes]:
        raise UsageError("a shard cannot be merged into itself", where=prefix, do="choose another output")
    found = [check.verify(each) for each in prefixes]
    for one in found:
        if one.dtype != found[0].dtype:
            raise ShardError(
                f"its ids are {one.dtype}, and those of {found[0].prefix} {found[0].dtype}",
                where=one.prefix,
                do="merge shards of one tokenizer",
            )
    told = [blend.read_pair(each) for each in prefixes if blend.sidecar(each).is_file()]
    for (made, _), each in zip(told, prefixes, strict=False):
        if not made.same(told[0][0]):
            raise ShardError(
                f"was made otherwise than {prefixes[0]}",
                where=each,
                why="another tokenizer, end of documents or version",
                do="merge shards that were made alike",
            )
    total = sum(one.documents for one in found)
    with format.writer(prefix, found[0].dtype) as shard, progress("merge", total=total, unit="docs") as bar:
        for one in found:
            for lengths, ids in format.documents(one.prefix, one.dtype, one.documents):
                shard.add(lengths, ids)
                bar.advance(len(lengths))
        blend.sidecar(prefix).unlink(missing_ok=True)
    if len(told) == len(prefixes):
        _tell(prefix, shard, [pair for _, pair in told], told[0][0])
    return check.info(prefix)


def _tell(prefix: str | Path, shard: format.Writer, pairs: Sequence[blend.Shard], made: blend.Made) -> None:
    data, index = format.pair(prefix)
    inputs = [pair.input for pair in pairs]
    given = blend.Input(
        name=f"{inputs[0].name} and {len(inputs) - 1} more",
        sha256=hashlib.sha256("".join(one.sha256 for one in inputs).encode()).hexdigest(),
        bytes=sum(one.bytes for one in inputs),
    )
    subsets = {pair.subset for pair in pairs}
    entry = replace(
        pairs[0],
        prefix=Path(prefix).name,
        subset=subsets.pop() if len(subsets) == 1 else blend.subset_of(Path(prefix).name),
        documents=len(shard.lengths),
        tokens=shard.tokens,
        bin_bytes=data.stat().st_size,
        idx_bytes=index.stat().st_size,
        bin_sha256=shard.sha256,
        idx_sha256=files.sha256_file(index),
        input=given,
        rows=sum(pair.rows for pair in pairs),
        empty=sum(pair.empty for pair in pairs),
        replaced=sum(pair.replaced for pair in pairs),
        bad_rows=sum(pair.bad_rows for pair in pairs),
    )
    blend.write_pair(prefix, made, entry)
