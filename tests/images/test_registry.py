"""The digest of a tag, asked of a registry that speaks the registries' protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from toolkit.images import registry

FOUND = "sha256:" + "ab" * 32


class Handler(BaseHTTPRequestHandler):
    """Wants a token for `private/`, and answers nonsense for `odd`."""

    def do_HEAD(self) -> None:
        name = self.path.removeprefix("/v2/").partition("/manifests/")[0]
        if name.startswith("private/") and self.headers.get("Authorization") != "Bearer the-token":
            self.send_response(401)
            place = f"http://127.0.0.1:{self.server.server_address[1]}/token"
            scope = f"repository:{name}:pull"
            self.send_header("WWW-Authenticate", f'Bearer realm="{place}",service="here",scope="{scope}"')
        elif name == "gone":
            self.send_response(404)
        else:
            self.send_response(200)
            if self.path.endswith("/manifests/1.0") and "oci.image.index" in self.headers["Accept"]:
                self.send_header("Docker-Content-Digest", "nonsense" if name == "odd" else FOUND)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        right = "service=here" in self.path and "scope=repository%3Aprivate%2Fone%3Apull" in self.path
        self.wfile.write(json.dumps({"token": "the-token" if right else "another"}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("one:1.0", FOUND),
        ("a/b/one:1.0", FOUND),
        ("private/one:1.0", FOUND),
        ("private/two:1.0", None),
        ("one:2.0", None),
        ("one", None),
        ("odd:1.0", None),
        ("gone:1.0", None),
        ("../x:1", None),
        ("one:1.0 two", None),
    ],
)
def test_a_tag_is_looked_up(host: str, name: str, found: str | None) -> None:
    assert registry.digest(f"{host}/{name}") == found


def test_nobody_there() -> None:
    assert registry.digest("127.0.0.1:9/one:1.0") is None
    assert registry.digest("registry.invalid/one:1.0") is None
    assert registry.digest("") is None


@pytest.mark.parametrize(
    ("reference", "pinned"),
    [
        ("nvcr.io/nvidia/nemo:25.11", f"nvcr.io/nvidia/nemo@{FOUND}"),
        ("host:5000/a/b", f"host:5000/a/b@{FOUND}"),
        ("debian:12", f"debian@{FOUND}"),
    ],
)
def test_a_reference_by_digest(reference: str, pinned: str) -> None:
    assert registry.pinned(reference, FOUND) == pinned
