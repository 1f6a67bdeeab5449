"""The host's package sources: what %post is shown of them, and that no password gets into a line that is printed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from toolkit.images import sources

VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_CERT",
             "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")  # fmt: skip


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*VARIABLES, *(name for name in os.environ if name.startswith("PIP_"))]:
        monkeypatch.delenv(name, raising=False)


def prepared(folder: Path, mirror: str | None = None, **pip: str) -> sources.Sources:
    folder.mkdir()
    given = {name.replace("_", "-"): value for name, value in pip.items()}
    return sources.prepare(folder, mirror=mirror, suite="bookworm", default_mirror="http://a/debian", pip=given)


def test_a_host_without_any(tmp_path: Path) -> None:
    found = prepared(tmp_path / "t")
    assert found == sources.Sources(binds=(f"{tmp_path}/t/mnt:/mnt:ro",), path=(), said=())
    assert (tmp_path / "t/mnt/sources.sh").read_text() == ""


def test_pip_is_told_of_indexes_and_folders(tmp_path: Path) -> None:
    for name in ("index/simple", "wheels", "odd:name"):
        (tmp_path / name).mkdir(parents=True)
    local = f"file://{tmp_path}/index/simple"
    found = prepared(
        tmp_path / "t", index_url="https://me:secret@pypi.example/simple", extra_index_url=f"https://b/s {local}",
        find_links=f"{tmp_path}/wheels {tmp_path}/gone {tmp_path}/odd:name", trusted_host="b",
    )  # fmt: skip
    assert (tmp_path / "t/mnt/pip.conf").read_text().splitlines() == [
        "[global]", "index-url = https://me:secret@pypi.example/simple", "extra-index-url = https://b/s",
        "    file:///mnt/local/0/simple", "find-links = /mnt/local/1", "trusted-host = b",
    ]  # fmt: skip
    # The pages of an index point to ../../files beside it.
    assert found.binds[1:] == (f"{tmp_path}/index:/mnt/local/0:ro", f"{tmp_path}/wheels:/mnt/local/1:ro")
    assert all((tmp_path / "t/mnt/local" / place).is_dir() for place in "01")
    assert found.said == ("pip's indexes", "2 local folders of packages")
    script = (tmp_path / "t/mnt/sources.sh").read_text()
    assert script == "export PIP_CONFIG_FILE=/mnt/pip.conf\n" and "secret" not in " ".join(found.said)


def test_proxies_reach_every_tool_and_no_line_of_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "localhost")
    (tmp_path / "ca.pem").write_text("CERTIFICATE")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    prepared(tmp_path / "t")
    shown = tmp_path / "t/mnt"
    for name in ("pip.conf", "apt.conf", "gitconfig", ".curlrc", "wgetrc"):
        assert "me:secret@proxy.example:3128" in (shown / name).read_text(), name
    said = subprocess.run(
        ["sh", "-ex", str(shown / "sources.sh")], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert said.returncode == 0 and "secret" not in said.stderr + said.stdout
    assert "+ export PIP_CONFIG_FILE=/mnt/pip.conf" in said.stderr and "GIT_SSL_CAINFO=/mnt/ca.crt" in said.stderr
    git = subprocess.run(
        ["git", "config", "--file", str(shown / "gitconfig"), "http.proxy"], capture_output=True, text=True
    )
    assert git.stdout.strip() == "http://me:secret@proxy.example:3128"
    assert (shown / "ca.crt").read_text() == "CERTIFICATE"


def test_another_mirror_is_used_and_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image names the definition's mirror, in Apptainer's labels and in its own list of sources."""
    real = tmp_path / "real"
    real.mkdir()
    script = '#!/bin/sh\necho "$@" >"$REAL_SAID"\nfor word; do before=$last last=$word; done\n'
    script += 'mkdir -p "$before/etc/apt"; echo "deb $last bookworm main" >"$before/etc/apt/sources.list"\n'
    (real / "debootstrap").write_text(script)
    (real / "debootstrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{real}:{os.environ['PATH']}")
    monkeypatch.setenv("REAL_SAID", str(tmp_path / "said"))
    found = prepared(tmp_path / "t", mirror="http://site.example/debian")
    (place,) = found.path
    words = [
        "--variant=minbase",
        "--include=apt, ca-certificates",
        "bookworm",
        str(tmp_path / "root fs"),
        "http://a/debian",
    ]
    subprocess.run([f"{place}/debootstrap", *words], check=True)
    assert (tmp_path / "said").read_text().strip() == " ".join([*words[:-1], "http://site.example/debian"])
    assert (tmp_path / "root fs/etc/apt/sources.list").read_text() == "deb http://a/debian bookworm main\n"
    assert (tmp_path / "t/mnt/sources.list").read_text() == "deb http://site.example/debian bookworm main\n"
    assert "sources.list" in (tmp_path / "t/mnt/apt.conf").read_text()
    subprocess.run([f"{place}/debootstrap", "--version"], check=True)  # no mirror: as it is
    assert (tmp_path / "said").read_text() == "--version\n"

    assert prepared(tmp_path / "same", mirror="http://a/debian/").path == ()


@pytest.mark.parametrize(
    ("text", "mirror"),
    [
        ("deb http://m.example/debian bookworm main", "http://m.example/debian"),
        ("# deb http://x/debian\ndeb [signed-by=/a b=c] https://m/debian/ bookworm main", "https://m/debian"),
        ("Types: deb\nURIs: http://m/debian\nSuites: bookworm\n", "http://m/debian"),
        ("deb http://security.example/debian-security bookworm-security main", None),
        ("deb http://archive.ubuntu.com/ubuntu jammy main", None),
        ("", None),
    ],
)
def test_the_mirror_of_apt(text: str, mirror: str | None) -> None:
    assert sources._first_mirror(text) == mirror


def test_what_pip_says_of_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own `config list`, where pip is; the environment wins."""
    conf = tmp_path / "pip.conf"
    conf.write_text("[global]\nindex-url = https://a/simple\nextra-index-url =\n    https://b/s\n    https://c/s\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(conf))
    monkeypatch.setenv("PIP_INDEX_URL", "https://env/simple")
    found = sources.pip_config()
    assert found["index-url"] == "https://env/simple"
    lines: dict[str, str] = {}
    for line in ("global.index-url='https://a'", ":env:.index-url='https://b'", "global.index-url='https://c'", "x",
                 "global.extra-index-url='\\nhttps://b\\nhttps://c'", "list.format='json'"):  # fmt: skip
        sources._take(lines, line)
    assert lines == {"index-url": "https://b", "extra-index-url": "https://b https://c"}
