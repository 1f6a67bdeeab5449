"""Fetching from a server that the test runs: robots.txt, delays, busy servers, redirects, broken and wrong bodies."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import http.server
import json
import os
import threading
import time
from pathlib import Path

import pytest

from toolkit import cli
from toolkit.corpus import downloads, fetch, polite
from toolkit.errors import DataError, DiskFull, UsageError

BODY = os.urandom(300_000)


class Site:
    """Answers by path: bytes, or a function of the request; it keeps what it was asked."""

    def __init__(self) -> None:
        self.pages: dict = {"/robots.txt": b"User-agent: *\nDisallow: /private\n"}
        self.asked: list[tuple[float, str, dict]] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append((time.monotonic(), self.path, dict(self.headers)))
                page = site.pages.get(self.path)
                if callable(page):
                    page(self)
                elif page is None:
                    self.answer(404, b"none")
                else:
                    self.serve(page)

            def serve(self, body: bytes, tag: str = '"v1"') -> None:
                """As servers do: ranges for those who know the state of the file."""
                start, known = self.headers.get("Range"), self.headers.get("If-Range")
                if start and known == tag and int(start[6:-1]) < len(body):
                    first = int(start[6:-1])
                    where = f"bytes {first}-{len(body) - 1}/{len(body)}"
                    self.answer(206, body[first:], {"ETag": tag, "Content-Range": where})
                else:
                    self.answer(200, body, {"ETag": tag})

            def answer(self, status: int, body: bytes = b"", headers=None, length: int | None = None) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                self.wfile.write(body)
                if length is not None:
                    self.close_connection = True

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]


@pytest.fixture
def site():
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def guest():
    return polite.Guest(contact="me@example.org", delay_s=0.0)


def run(*words):
    parser = argparse.ArgumentParser()
    fetch.add_arguments(parser)
    return cli.run(lambda argv: fetch.main(parser.parse_args(argv)), [str(word) for word in words])


def test_without_yes_nothing_is_asked(site, tmp_path, capsys):
    assert run("pubmed", "-o", tmp_path / "out", "--mirror", site.base) == 0
    said = capsys.readouterr().out
    assert "Nothing was fetched" in said and "1,334 files" in said and site.base in said and "licen" in said
    assert site.asked == [] and not (tmp_path / "out").exists()


def test_a_listed_folder_with_its_digests(site, tmp_path, capsys):
    one, two = gzip.compress(b"<a/>"), gzip.compress(b"<b/>")
    names = ["pubmed26n0001.xml.gz", "pubmed26n0002.xml.gz"]
    links = "".join(f'<a href="{n}">{n}</a> <a href="{n}.md5">x</a>' for n in names)
    site.pages["/"] = f'<a href="../">up</a><a href="README.txt">r</a>{links}<a href="?C=M">s</a>'.encode()
    site.pages |= {f"/{n}": body for n, body in zip(names, (one, two), strict=True)}
    site.pages[f"/{names[0]}.md5"] = f"MD5({names[0]})= {hashlib.md5(one).hexdigest()}\n".encode()
    site.pages[f"/{names[1]}.md5"] = f"MD5({names[1]})= {'0' * 32}\n".encode()
    out = tmp_path / "out"
    words = ("pubmed", "-o", out, "--yes", "--contact", "me@example.org", "--delay", 0, "--mirror", site.base)
    assert run(*words) == 1  # the second is not what its digest says
    assert "md5" in capsys.readouterr().err
    assert {p.name for p in out.iterdir()} == {names[0], "fetched.jsonl"} and (out / names[0]).read_bytes() == one
    site.pages[f"/{names[1]}.md5"] = hashlib.md5(two).hexdigest().encode()
    assert run(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["files"], told["there"], told["bytes"]) == (1, 1, len(two))
    assert site.paths().count(f"/{names[0]}") == 1  # what is there is not asked for again
    agents = {headers["User-Agent"] for _, _, headers in site.asked}
    assert len(agents) == 1 and "me@example.org" in agents.pop()
    logged = [json.loads(line) for line in (out / "fetched.jsonl").read_text().splitlines()]
    assert [line["name"] for line in logged] == names and "README.txt" in logged[0]["license"]
    assert run(*words, "--match", "*n0001*", "--json") == 0
    assert json.loads(capsys.readouterr().out)["there"] == 1
    assert run(*words, "--match", "nothing*") == 1 and "lists no file" in capsys.readouterr().err


def test_robots_txt_is_asked_once_and_heeded(site, guest, tmp_path):
    site.pages |= {"/private/a": b"x", "/open": b"y"}
    with pytest.raises(polite.Refused, match="robots.txt forbids"):
        guest.save(site.base + "private/a", tmp_path / "a")
    assert guest.read(site.base + "open") == b"y" and site.paths() == ["/robots.txt", "/open"]
    assert not (tmp_path / "a").exists()
    site.pages["/robots.txt"] = lambda h: h.answer(404)
    assert polite.Guest(contact="x", delay_s=0).read(site.base + "private/a") == b"x"
    site.pages["/robots.txt"] = lambda h: h.answer(500)
    with pytest.raises(polite.Refused, match="robots.txt cannot be read"):
        polite.Guest(contact="x", delay_s=0).read(site.base + "open")
    site.pages["/robots.txt"] = b"User-agent: meditron-toolkit\nDisallow: /\n"
    with pytest.raises(polite.Refused, match="forbids"):
        polite.Guest(contact="x", delay_s=0).read(site.base + "open")


def test_one_request_at_a_time_with_the_longer_delay(site, tmp_path):
    site.pages["/robots.txt"] = b"User-agent: *\nCrawl-delay: 0.3\nCrawl-delay: 1\n"
    site.pages["/a"] = b"x"
    slow = polite.Guest(contact="x", delay_s=0.2)
    for _ in range(2):
        slow.read(site.base + "a")
    times = [when for when, _, _ in site.asked]
    assert all(later - sooner > 0.15 for sooner, later in zip(times, times[1:], strict=False))
    assert slow.robots[site.base.rstrip("/")].crawl_delay(polite.AGENT) == 1 and times[2] - times[1] > 0.9


def test_a_busy_server_is_asked_again_when_it_says(site, guest, tmp_path):
    busy = [lambda h: h.answer(503, headers={"Retry-After": "1"}), lambda h: h.answer(429), lambda h: h.serve(BODY)]
    site.pages["/a"] = lambda h: busy.pop(0)(h)
    assert guest.save(site.base + "a", tmp_path / "a") == len(BODY)
    times = [when for when, path, _ in site.asked if path == "/a"]
    assert times[1] - times[0] > 0.9 and (tmp_path / "a").read_bytes() == BODY
    site.pages["/b"] = lambda h: h.answer(503, headers={"Retry-After": "86400"})
    with pytest.raises(polite.Refused, match="come back in 86400 seconds"):
        guest.read(site.base + "b")
    site.pages["/c"] = lambda h: h.answer(500)
    with pytest.raises(polite.Refused, match="answers 500"):
        guest.read(site.base + "c")
    assert site.paths().count("/c") == polite.TRIES
    with pytest.raises(polite.Refused, match="answers 404"):
        guest.read(site.base + "d")
    assert site.paths().count("/d") == 1


def test_a_body_that_breaks_off_is_gone_on_with(site, guest, tmp_path):
    cut = [lambda h: h.answer(200, BODY[:100_000], {"ETag": '"v1"'}, length=len(BODY)), lambda h: h.serve(BODY)]
    site.pages["/a"] = lambda h: cut.pop(0)(h)
    md5 = hashlib.md5(BODY).hexdigest()
    assert guest.save(site.base + "a", tmp_path / "a", size=len(BODY), md5=md5) == len(BODY)
    last = site.asked[-1][2]
    assert last["Range"] == "bytes=100000-" and last["If-Range"] == '"v1"'
    assert (tmp_path / "a").read_bytes() == BODY and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_killed_fetch_goes_on_and_a_changed_file_begins_anew(site, guest, tmp_path):
    site.pages["/a"] = lambda h: h.answer(200, BODY[:100_000], {"ETag": '"v1"'}, length=len(BODY))
    with pytest.raises(polite.Refused, match="broke off again and again"):
        guest.save(site.base + "a", tmp_path / "a")
    assert not (tmp_path / "a").exists() and (tmp_path / "a.partial").stat().st_size == 100_000
    other = os.urandom(200_000)
    site.pages["/a"] = lambda h: h.serve(other, '"v2"')
    assert guest.save(site.base + "a", tmp_path / "a") == len(other)
    assert (tmp_path / "a").read_bytes() == other and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "b.partial").write_bytes(b"of nobody knows what")
    site.pages["/b"] = BODY
    assert guest.save(site.base + "b", tmp_path / "b") == len(BODY)
    (tmp_path / "c.partial").write_bytes(BODY + b"too long")
    (tmp_path / "c.partial.json").write_text('{"tag": "\\"v1\\""}')
    site.pages["/c"] = lambda h: h.answer(416) if h.headers.get("Range") else h.serve(BODY)
    assert guest.save(site.base + "c", tmp_path / "c") == len(BODY)
    site.pages["/d"] = lambda h: h.answer(206, b"x", {"Content-Range": "bytes 7-7/8", "ETag": '"v1"'})
    (tmp_path / "d.partial").write_bytes(b"123")
    (tmp_path / "d.partial.json").write_text('{"tag": "\\"v1\\""}')
    with pytest.raises(polite.Refused):  # another range than was asked for
        guest.save(site.base + "d", tmp_path / "d")


@pytest.mark.parametrize("known", [{"size": 7}, {"md5": "0" * 32}, {"sha256": "0" * 64}])
def test_another_size_or_digest_is_no_file(site, guest, tmp_path, known):
    site.pages["/a"] = BODY
    with pytest.raises(polite.Refused, match="announced"):
        guest.save(site.base + "a", tmp_path / "a", **known)
    assert not (tmp_path / "a").exists()


def test_redirects_are_followed_with_manners_and_without_keys(site, guest, tmp_path):
    other = Site()
    try:
        other.pages |= {"/b": BODY, "/private/c": b"x"}
        site.pages["/a"] = lambda h: h.answer(302, headers={"Location": f"{other.base}b?Signature=secret"})
        other.pages["/b?Signature=secret"] = BODY
        answer, url = guest._ask(site.base + "a", {"x-api-key": "k", "Accept": "*/*"})
        assert answer.read() == BODY and url.startswith(other.base)
        assert site.asked[-1][2]["X-Api-Key"] == "k"
        assert "X-Api-Key" not in other.asked[-1][2] and other.asked[-1][2]["Accept"] == "*/*"
        assert other.paths()[0] == "/robots.txt"
        site.pages["/p"] = lambda h: h.answer(301, headers={"Location": f"{other.base}private/c"})
        with pytest.raises(polite.Refused, match="robots.txt forbids"):
            guest.read(site.base + "p")
        site.pages["/l"] = lambda h: h.answer(302, headers={"Location": "/l"})
        with pytest.raises(polite.Refused, match="more than 5 times"):
            guest.read(site.base + "l")
        site.pages["/f"] = lambda h: h.answer(302, headers={"Location": "file:///etc/passwd"})
        with pytest.raises(polite.Refused, match="no web address"):
            guest.read(site.base + "f")
    finally:
        other.server.shutdown()
        other.server.server_close()


def test_the_bucket_of_articles(site, tmp_path, guest):
    root = "inventory-reports/pmc-oa-opendata/metadata/"
    days = "".join(
        f"<CommonPrefixes><Prefix>{root}{d}/</Prefix></CommonPrefixes>"
        for d in ("2026-01-17T01-00Z", "2026-01-18T01-00Z", "hive")
    )
    listing = f"/?list-type=2&delimiter=%2F&prefix={root.replace('/', '%2F')}"
    site.pages[listing] = f"<ListBucketResult>{days}</ListBucketResult>".encode()
    site.pages[f"/{root}2026-01-18T01-00Z/manifest.json"] = json.dumps(
        {"files": [{"key": f"{root}data/x.csv.gz"}]}
    ).encode()
    rows = [f'"pmc-oa-opendata","metadata/PMC{n}.1.json","2026-01-08","e"' for n in (13901, 13902, 13903, 13904)]
    site.pages[f"/{root}data/x.csv.gz"] = gzip.compress(
        "\n".join([*rows, '"odd"', '"b","metadata/../x.json","",""']).encode()
    )
    for number, code in ((13901, "CC BY"), (13902, "CC BY-NC"), (13903, "CC0")):
        xml = f"<article>{number}</article>".encode()
        md5 = hashlib.md5(xml).hexdigest()
        about = {"license_code": code, "xml_url": f"s3://pmc-oa-opendata/PMC{number}.1/PMC{number}.1.xml?md5={md5}"}
        site.pages[f"/metadata/PMC{number}.1.json"] = json.dumps(about).encode()
        site.pages[f"/PMC{number}.1/PMC{number}.1.xml"] = xml
    download = downloads.replace_base(downloads.load()["pmc"], site.base)
    told = fetch.fetch(download, guest, tmp_path, licences=("cc-by", "CC0"))
    assert told["files"] == 2 and len(told["failed"]) == 1 and "13904" in told["failed"][0]
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.xml")) == [
        "PMC000013/PMC13901.1.xml", "PMC000013/PMC13903.1.xml",
    ]  # fmt: skip
    assert fetch.fetch(download, guest, tmp_path / "few", limit=1)["files"] == 1


def test_datasets_of_the_hub(site, tmp_path, guest, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    siblings = [
        {"rfilename": "README.md"},
        {"rfilename": "open_guidelines.jsonl", "lfs": {"size": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}},
        {"rfilename": "../../evil.jsonl"},
    ]
    site.pages["/api/datasets/epfl-llm/guidelines?blobs=true"] = json.dumps(
        {"sha": "abc", "siblings": siblings}
    ).encode()
    site.pages["/datasets/epfl-llm/guidelines/resolve/abc/open_guidelines.jsonl"] = BODY
    download = downloads.replace_base(downloads.load()["guidelines"], site.base)
    assert fetch.fetch(download, guest, tmp_path)["bytes"] == len(BODY)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fetched.jsonl", "open_guidelines.jsonl"]
    assert "hf_secret" not in (tmp_path / "fetched.jsonl").read_text()
    assert fetch.fetch(download, guest, tmp_path)["there"] == 1


def test_datasets_of_semantic_scholar(site, tmp_path, guest, monkeypatch, capsys):
    packed, listed = gzip.compress(b"{}"), "/release/2026-11-03/dataset/s2orc"
    urls = [f"{site.base}x/part_{n}.gz?Signature=s&Expires=1" for n in range(3)]
    site.pages["/release/latest"] = b'{"release_id": "2026-11-03"}'
    site.pages[listed] = json.dumps({"files": urls}).encode()
    site.pages["/x/part_0.gz?Signature=s&Expires=1"] = packed
    site.pages["/x/part_1.gz?Signature=s&Expires=1"] = b"<html>Please sign in</html>"
    download = downloads.replace_base(downloads.load()["s2orc"], site.base)
    monkeypatch.delenv("S2_API_KEY", raising=False)
    with pytest.raises(UsageError, match="S2_API_KEY"):
        fetch.fetch(download, guest, tmp_path)
    monkeypatch.setenv("S2_API_KEY", "secret-key")
    told = fetch.fetch(download, guest, tmp_path)
    assert told["files"] == 1 and len(told["failed"]) == 2 and "no gzip" in told["failed"][0]
    assert "404" in told["failed"][1]
    assert [p.name for p in (tmp_path / "2026-11-03").iterdir()] == ["part_0.jsonl.gz"]
    assert (tmp_path / "2026-11-03" / "part_0.jsonl.gz").read_bytes() == packed
    said = (tmp_path / "fetched.jsonl").read_text() + str(told) + str(capsys.readouterr())
    assert "Signature" not in said and "secret-key" not in said
    site.pages[listed] = b"no json"
    with pytest.raises(polite.Refused, match="no JSON"):
        fetch.fetch(download, guest, tmp_path)
    site.pages["/release/latest"] = b'{"release_id": "../.."}'
    with pytest.raises(DataError, match="names no release"):
        fetch.fetch(download, guest, tmp_path)


def test_what_cannot_be_is_said(site, tmp_path, guest, monkeypatch, capsys):
    assert run("pubmed", "-o", tmp_path, "--yes") == 2 and "--contact is needed" in capsys.readouterr().err
    assert run("pubmed", "-o", tmp_path, "--yes", "--contact", "somebody") == 2
    assert run("pubmeds", "-o", tmp_path) == 2 and "Did you mean 'pubmed'" in capsys.readouterr().err
    assert run("starcoder", "-o", tmp_path) == 2 and "not fetched by this command" in capsys.readouterr().err
    assert run("pubmed", "-o", tmp_path, "--licence", "CC0") == 2
    closed = polite.Guest(contact="x", delay_s=0.0)
    monkeypatch.setattr(polite, "TRIES", 1)
    with pytest.raises(DataError, match="cannot be reached"):
        closed.read("http://127.0.0.1:9/none")
    site.pages["/a"] = lambda h: h.answer(200, b"x" * 10, length=10**18)
    with pytest.raises(DiskFull, match="are to come"):
        guest.save(site.base + "a", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_full_disk_leaves_no_file(site, guest, tmp_path):
    """In a process whose files may not be larger than a limit: what the disk says then is the same."""
    site.pages["/a"] = BODY
    script = f"""
import resource, signal, sys
from pathlib import Path
from toolkit.corpus import polite
from toolkit.errors import DiskFull
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    polite.Guest(contact="x", delay_s=0.0).save("{site.base}a", Path("{tmp_path}/a"))
except DiskFull as err:
    print(err)
"""
    import subprocess
    import sys

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "larger than a limit" in said.stdout and "kept in a.partial" in said.stdout, said
    assert not (tmp_path / "a").exists()
    assert guest.save(site.base + "a", tmp_path / "a") == len(BODY)  # and goes on from there
    assert site.asked[-1][2]["Range"].startswith("bytes=") and (tmp_path / "a").read_bytes() == BODY
