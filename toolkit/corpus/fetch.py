"""`python -m toolkit.corpus fetch`: takes a source from a provider that offers bulk or API access, when told to.

Decides which files a source has and under which names they are kept; leaves manners to `polite`, addresses and terms to
the list of `downloads`.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import gzip
import io
import json
import os
import re
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import cli
from toolkit.corpus import downloads, polite
from toolkit.corpus.downloads import Download
from toolkit.errors import DataError, UsageError
from toolkit.progress import progress

LOG = "fetched.jsonl"  # in the folder: a line for every file that was taken
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Target:
    """One file: its address, its name below the folder, and what the provider says of it."""

    url: str
    name: str
    size: int = 0
    md5: str = ""
    sha256: str = ""
    license: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    names = ", ".join(name for name, one in _known().items() if one.fetch)
    add("name", help=f"which download: {names}")
    add("-o", "--out", required=True, help="folder for the files; what is there already is not asked for again")
    add("--yes", action="store_true", help="really fetch; without it, only what would be fetched is shown")
    add("--contact", default="", help="a mail or web address of yours that the server is told (needed with --yes)")
    add("--limit", type=int, default=0, metavar="N", help="no more than N files")
    add("--match", default="", metavar="PATTERN", help="only files whose names match, for example 'pubmed26n00*'")
    add("--licence", action="append", default=[], metavar="CODE", help="pmc: only articles with this code; repeatable")
    add("--delay", type=float, default=1.0, metavar="SECONDS", help="between two requests (default 1)")
    add("--mirror", default="", metavar="URL", help="another server with the same layout")
    add("--json", action="store_true", help="print the result as JSON")


def main(args: argparse.Namespace) -> int:
    """Show, or with --yes fetch, one download; 1 when some of its files could not be had."""
    (download,) = downloads.choose([args.name])
    if not download.fetch:
        raise UsageError(
            f"{download.name} is not fetched by this command", do="see its own: downloads " + download.name
        )
    if args.limit < 0 or args.delay < 0:
        raise UsageError("--limit and --delay cannot be negative")
    if args.licence and download.fetch != "pmc":
        raise UsageError("--licence belongs to pmc")
    if args.mirror:
        download = downloads.replace_base(download, args.mirror)
    if not args.yes:
        return _announce(download, args)
    if not re.fullmatch(r"(?:mailto:)?[^@\s]+@[^@\s]+\.\w+|https?://\S+", args.contact):
        raise UsageError("--contact is needed with --yes", why="a server's operator must be able to reach you",
                         do="give a mail address or the address of a web page")  # fmt: skip
    guest = polite.Guest(contact=args.contact, delay_s=args.delay)
    result = fetch(download, guest, Path(args.out), limit=args.limit, match=args.match, licences=tuple(args.licence))
    if args.json:
        cli.print_json(result)
    else:
        there = f", {result['there']} were there already" if result["there"] else ""
        print(f"{result['files']} files, {result['bytes'] / 1e6:.1f} MB, in {args.out}{there}")
        for failure in result["failed"][:_SHOWN]:
            print(f"not fetched: {failure}", file=sys.stderr)
        if len(result["failed"]) > _SHOWN:
            print(f"and {len(result['failed']) - _SHOWN} more", file=sys.stderr)
    return 1 if result["failed"] else 0


def _announce(download: Download, args: argparse.Namespace) -> int:
    told = {
        "name": download.name, "title": download.title, "from": download.base, "to": args.out, "size": download.size,
        "license": download.license, "limit": args.limit or None, "fetched": False,
    }  # fmt: skip
    if args.json:
        cli.print_json(told)
        return 0
    for key in ("title", "from", "to", "size", "license"):
        print(f"{key}: {told[key]}")
    if download.note:
        print(f"note: {download.note}")
    if download.key:
        print(f"key: from ${download.key} in the environment")
    print("Nothing was fetched. With --yes --contact YOU@EXAMPLE.ORG it is, one file at a time, as robots.txt allows.")
    return 0


def fetch(
    download: Download,
    guest: polite.Guest,
    out: Path,
    *,
    limit: int = 0,
    match: str = "",
    licences: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Take the files of a download into `out`; what is there with the announced size and digest is not asked for.

    Files that cannot be had are listed and the others go on. Raises `DataError` when the provider cannot be reached or
    lists nothing, `DiskFull`, `UsageError` when a key is missing.
    """
    taken = there = total = 0
    failed: list[str] = []
    listed = False
    out.mkdir(parents=True, exist_ok=True)
    with progress(f"fetch {download.name}", unit="files") as bar:
        for found in _WAYS[download.fetch](download, guest, licences):
            if isinstance(found, polite.Refused):
                listed = True
                failed.append(str(found))
                continue
            if not fnmatch.fnmatch(found.name.rpartition("/")[2], match or "*"):
                continue
            if limit and taken + there >= limit:
                break
            listed = True
            target, path = found, out / found.name
            if not path.resolve().is_relative_to(out.resolve()):
                raise DataError("the provider names a file outside the folder", where=target.name)
            if _is_there(path, target):
                there += 1
                bar.advance()
                continue
            try:
                length = guest.save(target.url, path, size=target.size, md5=target.md5, sha256=target.sha256)
                _expect_packed(path, target)
            except polite.Refused as err:
                failed.append(str(err))
                continue
            taken, total = taken + 1, total + length
            _note(out, target, length)
            bar.advance()
    if not listed:
        raise DataError(
            "lists no file that is wanted", where=download.base, why=f"looked for {match or download.files or 'any'}"
        )
    return {"name": download.name, "files": taken, "there": there, "bytes": total, "failed": failed}


def _is_there(path: Path, target: Target) -> bool:
    if not path.is_file() or (target.size and path.stat().st_size != target.size):
        return False
    for name, wanted in (("md5", target.md5), ("sha256", target.sha256)):
        if wanted:
            return polite.digest(path, name) == wanted.lower()
    return True


def _expect_packed(path: Path, target: Target) -> None:
    """What a proxy or a page for signing in says instead is no file. Raises `Refused`."""
    if not path.name.endswith(".gz"):
        return
    with open(path, "rb") as handle:
        head = handle.read(2)
    if head != b"\x1f\x8b":
        path.unlink()
        raise polite.Refused("what came is no gzip", where=polite.shown(target.url), do="look at it in a browser")


def _note(out: Path, target: Target, length: int) -> None:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    # Signed addresses carry a key of their own, so what comes after the path is not kept.
    line = {
        "name": target.name,
        "url": polite.shown(target.url),
        "bytes": length,
        "license": target.license,
        "date": when,
    }
    with open(out / LOG, "a", encoding="utf-8") as log:
        log.write(json.dumps({key: value for key, value in line.items() if value}) + "\n")


def _listing(download: Download, guest: polite.Guest, _: tuple[str, ...]) -> Iterator[Target | polite.Refused]:
    """A folder that a web server lists, with NAME.md5 beside each file."""
    page = guest.read(download.base).decode("utf-8", "replace")
    names = sorted({urllib.parse.unquote(name) for name in re.findall(r"href=\"([^\"?#/]+)\"", page)})
    for name in names:
        if not fnmatch.fnmatch(name, download.files) or not re.fullmatch(r"[\w.-]+", name):
            continue
        url, md5 = urllib.parse.urljoin(download.base, name), ""
        if f"{name}.md5" in names:
            try:
                # "MD5(pubmed26n0001.xml.gz)= 0123..." or "0123...  name"
                said = re.search(r"\b[0-9a-fA-F]{32}\b", guest.read(f"{url}.md5").decode("ascii", "replace"))
            except polite.Refused as err:
                yield err
                continue
            md5 = said[0] if said else ""
        yield Target(url=url, name=name, md5=md5, license=download.license)


def _hub(download: Download, guest: polite.Guest, _: tuple[str, ...]) -> Iterator[Target | polite.Refused]:
    """A dataset of the Hugging Face hub, whose API states sizes and SHA-256; $HF_TOKEN is sent when there is one."""
    token = os.environ.get("HF_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    told = _json(guest, f"{download.base}api/datasets/{download.repository}?blobs=true", headers)
    revision = str(told.get("sha") or "main")
    for entry in told.get("siblings") or ():
        name = str(entry.get("rfilename") or "")
        if not fnmatch.fnmatch(name, download.files) or not re.fullmatch(r"[\w.-]+(?:/[\w.-]+)*", name) or ".." in name:
            continue
        large = entry.get("lfs") or {}
        yield Target(
            url=f"{download.base}datasets/{download.repository}/resolve/{revision}/{urllib.parse.quote(name)}",
            name=name,
            size=int(large.get("size") or entry.get("size") or 0),
            sha256=str(large.get("sha256") or large.get("oid") or ""),
            license=download.license,
        )


def _s2(download: Download, guest: polite.Guest, _: tuple[str, ...]) -> Iterator[Target | polite.Refused]:
    """A dataset of Semantic Scholar: its API lists signed addresses, which soon expire."""
    key = os.environ.get(download.key, "")
    if not key:
        raise UsageError(f"${download.key} is not set", why="the API gives its files to those with a key alone",
                         do=f"ask for one at {download.page}")  # fmt: skip
    # By its day, lest parts of two releases come together when the same folder is gone on with.
    release = str(_json(guest, f"{download.base}release/latest", {"x-api-key": key}).get("release_id") or "")
    if not re.fullmatch(r"[\w-]+", release):
        raise DataError("names no release", where=download.base)
    told = _json(guest, f"{download.base}release/{release}/dataset/{download.name}", {"x-api-key": key})
    urls = told.get("files") or ()
    for number, url in enumerate(urls):
        if isinstance(url, str):
            # The parts of a release have no stable order but that of their names.
            stem = re.sub(r"[^\w.-]", "_", urllib.parse.urlsplit(url).path.rpartition("/")[2]) or f"{number:04d}"
            name = stem if stem.endswith((".jsonl.gz", ".jsonl")) else f"{stem.removesuffix('.gz')}.jsonl.gz"
            yield Target(url=url, name=f"{release}/{name}", license=download.license)


def _pmc(download: Download, guest: polite.Guest, licences: tuple[str, ...]) -> Iterator[Target | polite.Refused]:
    """Articles of the PMC bucket: the inventory lists their metadata, which state licence, address and MD5."""
    root = "inventory-reports/pmc-oa-opendata/metadata/"
    listing = guest.read(f"{download.base}?list-type=2&delimiter=%2F&prefix={urllib.parse.quote(root, safe='')}")
    days = sorted(re.findall(rb"<Prefix>" + root.encode() + rb"(\d{4}-\d\d-\d\dT[\d-]+Z)/</Prefix>", listing))
    if not days:
        raise DataError("lists no inventory", where=download.base, why=f"looked below {root}")
    manifest = _json(guest, f"{download.base}{root}{days[-1].decode()}/manifest.json", {})
    wanted = {_code(code) for code in licences}
    for file in manifest.get("files") or ():
        packed = guest.read(download.base + urllib.parse.quote(str(file.get("key") or "")))
        try:
            table = gzip.decompress(packed).decode("utf-8")
        except (OSError, EOFError, UnicodeDecodeError) as err:
            raise DataError("the inventory cannot be read", where=download.base, why=str(err)) from err
        for row in csv.reader(io.StringIO(table)):
            name = re.fullmatch(r"metadata/(PMC\d+\.\d+)\.json", row[1]) if len(row) > 1 else None
            if name:
                yield from _article(download, guest, name[1], wanted)


def _article(download: Download, guest: polite.Guest, name: str, wanted: set[str]) -> Iterator[Target | polite.Refused]:
    try:
        about = _json(guest, f"{download.base}metadata/{name}.json", {})
    except polite.Refused as err:
        yield err
        return
    code = str(about.get("license_code") or "")
    if wanted and _code(code) not in wanted:
        return
    key, _, query = str(about.get("xml_url") or "").removeprefix("s3://pmc-oa-opendata/").partition("?")
    if not re.fullmatch(rf"{re.escape(name)}/{re.escape(name)}\.xml", key):
        return
    md5 = urllib.parse.parse_qs(query).get("md5", [""])[0]
    # A thousand folders of articles each are listed faster than one of millions.
    folder = f"PMC{int(name[3:].partition('.')[0]) // 1000:06d}"
    yield Target(url=download.base + key, name=f"{folder}/{name}.xml", md5=md5, license=code)


def _code(code: str) -> str:
    return re.sub(r"[\s_-]+", " ", code.strip().lower())


def _json(guest: polite.Guest, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    body = guest.read(url, headers=headers)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as err:
        raise polite.Refused("the answer is no JSON", where=polite.shown(url), why=str(err)) from err
    if not isinstance(value, dict):
        raise polite.Refused("a JSON object was expected", where=polite.shown(url))
    return value


def _known() -> Mapping[str, Download]:
    try:
        return downloads.load()
    except DataError:  # said when it is used; help must work without
        return {}


_WAYS: Mapping[str, Callable[[Download, polite.Guest, tuple[str, ...]], Iterator[Target | polite.Refused]]] = {
    "listing": _listing, "hub": _hub, "s2": _s2, "pmc": _pmc,
}  # fmt: skip
