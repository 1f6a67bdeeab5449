"""From files of documents to shards: every row is encoded, in order, by any number of processes, to the same bytes.

Decides what of an earlier build is kept and when shards count as made; leaves the bytes to `format`, the encoding to
`encode`, what is set aside to `tally`, and what is said of it all to `blend`.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from toolkit import __version__, files
from toolkit import tokenizer as tokenizers
from toolkit.errors import DataError, ShardError, UsageError
from toolkit.shards import blend, format, room, rows
from toolkit.shards.blend import Blend, Made, Shard
from toolkit.shards.check import ShardInfo
from toolkit.shards.encode import BadRow, Encoded, Encoder, Settings
from toolkit.shards.fast import Engine
from toolkit.shards.reading import Reading, progress_of
from toolkit.shards.sources import Source
from toolkit.shards.tally import BAD_SHOWN, SetAside, Tally, bad_file, bad_rows, set_aside


@dataclass(frozen=True, kw_only=True)
class Built(ShardInfo):
    """A shard just written. `bad` holds the first ten rows set aside; all `bad_rows` of them are in `bad_file`."""

    rows: int
    empty: int
    replaced: int
    bad_rows: int
    bad: tuple[BadRow, ...]
    bad_file: str
    vocab_size: int
    eod_id: int | None
    bin_sha256: str
    idx_sha256: str
    tokenizer_sha256: str


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a build of several files made: its manifest, and how many of the shards were there already."""

    blend: Blend
    kept: int
    bad: tuple[BadRow, ...]


def build(
    inputs: Sequence[str | Path],
    prefix: str | Path,
    *,
    tokenizer: str | Path,
    append_eod: bool = True,
    text_field: str = "text",
    special_tokens: Sequence[str] | None = None,
    max_bad_fraction: float = 0.01,
    workers: int = 1,
) -> Built:
    """Write `<prefix>.bin` and `.idx` from the documents of `inputs` (JSONL, compressed or not, or Parquet), in order.

    One sequence per document, no begin token, `<EOD>` (or else `</s>`) at its end if `append_eod`; empty documents are
    left out. Rows that are not JSON in UTF-8 with a text in `text_field` are set aside, into `<prefix>.bad.jsonl`.
    `special_tokens` are those of the tokenizer's added tokens that a text may name; None: all but control tokens.
    `<prefix>.json` says what was made of what. The bytes do not depend on `workers`. Raises `DataError` if more than
    `max_bad_fraction` of the rows are bad, if no document is left, or if an input is damaged, and `DiskFull`; then no
    shard is written.
    """
    inputs, folder = [Path(path) for path in inputs], Path(tokenizer)
    rows.check_inputs(inputs)
    _check_values(max_bad_fraction, workers)
    settings, made = settings_of(folder, append_eod=append_eod, text_field=text_field, special_tokens=special_tokens)
    room.check(Path(prefix).parent, inputs, settings.dtype)
    read = Reading(list(dict.fromkeys(inputs)))
    tally = Tally(inputs=inputs, max_bad_fraction=max_bad_fraction)
    with (
        Encoder(inputs, settings, workers) as encoder,
        progress_of(inputs, encoder.engine) as bar,
        set_aside(prefix) as bad,
        format.writer(prefix, settings.dtype) as shard,
    ):
        for encoded in encoder:
            _add(encoded, shard, bad, tally)
            bar.advance(encoded)
        tally.check(documents=len(shard.lengths))
        blend.sidecar(prefix).unlink(missing_ok=True)
    entry = _entry(Path(prefix).name, prefix, shard, tally, _together(read.told()))
    blend.write_pair(prefix, _by(made, encoder.engine), entry)
    return Built(
        prefix=str(prefix),
        documents=entry.documents,
        tokens=entry.tokens,
        dtype=settings.dtype,
        bytes=entry.bin_bytes + entry.idx_bytes,
        rows=tally.rows,
        empty=tally.empty,
        replaced=tally.replaced,
        bad_rows=tally.bad_rows,
        bad=tuple(tally.bad),
        bad_file=str(bad_file(prefix)) if tally.bad_rows else "",
        vocab_size=made.tokenizer.vocab_size,
        eod_id=settings.eod_id,
        bin_sha256=entry.bin_sha256,
        idx_sha256=entry.idx_sha256,
        tokenizer_sha256=made.tokenizer.model_sha256,
    )


def build_parts(
    sources: Sequence[Source],
    out: str | Path,
    *,
    tokenizer: str | Path,
    append_eod: bool = True,
    text_field: str = "text",
    special_tokens: Sequence[str] | None = None,
    max_bad_fraction: float = 0.01,
    workers: int = 1,
) -> Parts:
    """Write a pair for each of the sources below the folder `out`, and `blend.json` over them all.

    A pair that stands there already, of the same input by its content, the same tokenizer and settings, is checked by
    its hashes and kept: what was interrupted goes on. The tokenizer is copied beside the shards. Bad rows are judged
    over all sources, an input without any document has no shard. Raises as `build`; then there is no `blend.json`.
    """
    out, folder = Path(out), Path(tokenizer)
    made, kept, bad = encode_parts(
        sources, out, tokenizer=folder, append_eod=append_eod, text_field=text_field, workers=workers,
        max_bad_fraction=max_bad_fraction, special_tokens=special_tokens,
    )  # fmt: skip
    copy_tokenizer(folder, out / blend.TOKENIZER)
    return Parts(blend=gather(sources, out, made=made, max_bad_fraction=max_bad_fraction), kept=kept, bad=bad)


def encode_parts(
    sources: Sequence[Source],
    out: Path,
    *,
    tokenizer: Path,
    append_eod: bool,
    text_field: str = "text",
    special_tokens: Sequence[str] | None = None,
    max_bad_fraction: float,
    workers: int,
) -> tuple[Made, int, tuple[BadRow, ...]]:
    """The pairs alone, each with its `.json` beside it: how they were made, how many were kept, and some bad rows."""
    paths = [source.path for source in sources]
    rows.check_inputs(paths)
    _check_values(max_bad_fraction, workers)
    settings, made = settings_of(tokenizer, append_eod=append_eod, text_field=text_field, special_tokens=special_tokens)
    todo = [source for source in sources if not _stands(out / source.name, made, source.path)]
    kept, shown = len(sources) - len(todo), []
    if not todo:
        return made, kept, ()
    (out / blend.FILE).unlink(missing_ok=True)  # of what stood here before
    inputs = [source.path for source in todo]
    checker = room.Room(out, inputs, settings.dtype)
    with (
        Encoder(inputs, settings, workers) as encoder,
        progress_of(inputs, encoder.engine) as bar,
    ):
        chunks = iter(encoder)
        chunk = next(chunks, None)
        for number, source in enumerate(todo):
            prefix = out / source.name
            checker.before(number)
            blend.sidecar(prefix).unlink(missing_ok=True)
            for left in prefix.parent.glob(f".{glob.escape(prefix.name)}.*.part"):  # by a build that was killed
                left.unlink(missing_ok=True)
            tally, read = Tally(inputs=[source.path], max_bad_fraction=max_bad_fraction), Reading([source.path])
            with set_aside(prefix) as bad, format.writer(prefix, settings.dtype) as shard:
                while chunk is not None and chunk.input == number:
                    _add(chunk, shard, bad, tally)
                    bar.advance(chunk)
                    chunk = next(chunks, None)
            entry = _entry(source.name, prefix, shard, tally, read.told()[0])
            blend.write_pair(prefix, _by(made, encoder.engine), entry)
            checker.after(number, entry.bin_bytes)
            shown += tally.bad[: BAD_SHOWN - len(shown)]
    return made, kept, tuple(shown)


def gather(sources: Sequence[Source], out: Path, *, made: Made, max_bad_fraction: float) -> Blend:
    """Write `blend.json` over the pairs of the sources, and return it. Raises `DataError` when too few rows are good,
    `ShardError` for a pair that is missing or was made otherwise.
    """
    parts: dict[str, list[Shard]] = {split: [] for split in blend.SPLITS}
    tally = Tally(inputs=[source.path for source in sources], max_bad_fraction=max_bad_fraction)
    versions: dict[str, set[str]] = {}
    for source in sources:
        own, shard = blend.read_pair(out / source.name)
        if not made.same(own):
            raise ShardError("was made with other settings", where=out / source.name, do="build it again")
        for name, version in own.versions.items():
            versions.setdefault(name, set()).add(version)
        tally.rows += shard.rows
        tally.empty += shard.empty
        tally.replaced += shard.replaced
        tally.bad_rows += shard.bad_rows
        if shard.bad_rows:
            tally.bad += islice(bad_rows(out / source.name), BAD_SHOWN - len(tally.bad))
        if shard.documents:
            parts[source.split].append(replace(shard, prefix=source.name))
    try:
        tally.check(documents=sum(shard.documents for shard in parts["train"]))
    except DataError:
        (out / blend.FILE).unlink(missing_ok=True)  # of a build that allowed more
        raise
    by = {name: " and ".join(sorted(found)) for name, found in sorted(versions.items())}
    found = Blend(made=replace(made, versions=by), train=tuple(parts["train"]), valid=tuple(parts["valid"]))
    blend.write(out, found)
    return found


def copy_tokenizer(folder: Path, out: Path) -> None:
    """The tokenizer's folder beside the shards, unless it stands there."""
    if folder.resolve() == out.resolve():
        return
    with files.atomic_folder(out) as part:
        for name in tokenizers.FILES:
            if (folder / name).is_file():
                (part / name).write_bytes((folder / name).read_bytes())


def settings_of(
    tokenizer: Path, *, append_eod: bool, text_field: str, special_tokens: Sequence[str] | None = None
) -> tuple[Settings, Made]:
    """What workers need to know, and what is said of it. Raises `DataError` for special tokens that are none."""
    tags = None if special_tokens is None else tuple(special_tokens)
    own = blend.tokens_of(tokenizer, append_eod=append_eod)
    dtype = format.dtype_for(own.vocab_size)
    made = Made(
        toolkit=__version__, dtype=dtype, append_eod=append_eod, text_field=text_field, tags=tags, tokenizer=own
    )
    return Settings(tokenizer=tokenizer, eod_id=own.eod_id, text_field=text_field, dtype=dtype, tags=tags), made


def _by(made: Made, engine: Engine) -> Made:
    return replace(made, versions={"engine": f"{engine.name} {engine.version}"})


def _check_values(max_bad_fraction: float, workers: int) -> None:
    if not 0 <= max_bad_fraction <= 1:
        raise UsageError(f"max_bad_fraction is {max_bad_fraction}", do="give a fraction from 0 to 1")
    if workers < 1:
        raise UsageError(f"workers is {workers}", do="give 1 or more")


def _add(encoded: Encoded, shard: format.Writer, bad: SetAside, tally: Tally) -> None:
    for row, text in encoded.bad:
        bad({"file": row.file, "line": row.line, "why": row.why, "row": text})
    tally.add(encoded)
    shard.add(encoded.lengths, encoded.ids)


def _entry(name: str, prefix: str | Path, shard: format.Writer, tally: Tally, given: blend.Input) -> Shard:
    data, index = format.pair(prefix)
    return Shard(
        prefix=name,
        subset=blend.subset_of(Path(name).name),
        documents=len(shard.lengths),
        tokens=shard.tokens,
        weight=None,
        bin_bytes=data.stat().st_size,
        idx_bytes=index.stat().st_size,
        bin_sha256=shard.sha256,
        idx_sha256=files.sha256_file(index),
        input=given,
        rows=tally.rows,
        empty=tally.empty,
        replaced=tally.replaced,
        bad_rows=tally.bad_rows,
    )


def _together(told: Sequence[blend.Input]) -> blend.Input:
    if len(told) == 1:
        return told[0]
    digest = hashlib.sha256("".join(one.sha256 for one in told).encode()).hexdigest()
    more = f"{told[0].name} and {len(told) - 1} more"
    return blend.Input(name=more, sha256=digest, bytes=sum(one.bytes for one in told))


def _stands(prefix: Path, made: Made, path: Path) -> bool:
    """Whether the pair is there, whole, and made of this input in this way."""
    try:
        own, shard = blend.read_pair(prefix)
        data, index = format.pair(prefix)
        expected = {data: shard.bin_bytes, index: shard.idx_bytes, path: shard.input.bytes}
        if not made.same(own) or path.name != shard.input.name:
            return False
        if any(file.stat().st_size != size for file, size in expected.items()):
            return False
        blend.compare([(path, shard.input.sha256), (data, shard.bin_sha256), (index, shard.idx_sha256)])
        return not shard.bad_rows or bad_file(prefix).is_file()
    except (ShardError, OSError):
        return False
