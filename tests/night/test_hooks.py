"""Webhook and mail: what is sent, to whom, and that nothing that goes wrong there is more than a line."""

from __future__ import annotations

import contextlib
import email
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from toolkit.night.hooks import send

SECRET = "T0KEN-of-the-hook"


class Server(http.server.ThreadingHTTPServer):
    """Answers with `status`; keeps what it was given."""

    status = 200
    got: list[tuple[str, bytes]]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{SECRET}"


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(made.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    made = Server(("127.0.0.1", 0), Handler)
    made.got = []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def post(**more: Any) -> list[str]:
    return send("worse", "medqa4 fell", {"event": "worse"}, webhook_env="HOOK", mail=(), **more)


def test_the_webhook_gets_json(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", server.address)
    assert post() == ["webhook: sent (200)"]
    ((path, body),) = server.got
    assert path == f"/{SECRET}" and json.loads(body) == {"text": "worse\nmedqa4 fell", "event": "worse"}


@pytest.mark.parametrize(("status", "said"), [(500, "answered 500"), (404, "answered 404"), (302, "answered 302")])
def test_a_server_that_refuses(server: Server, monkeypatch: pytest.MonkeyPatch, status: int, said: str) -> None:
    server.status = status
    monkeypatch.setenv("HOOK", server.address)
    (line,) = post()
    assert "not sent" in line and said in line and SECRET not in line
    assert len(server.got) == 1  # a redirect is not followed


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, "is not set"),
        ("", "is not set"),
        (f"file:///etc/{SECRET}", "no http or https"),
        (f"ftp://host/{SECRET}", "no http or https"),
        (f"http:///{SECRET}", "no http or https"),
        (f"http://[{SECRET}", "not sent"),
        (f"http://127.0.0.1:1/{SECRET}", "not sent"),
        (f"http://127.0.0.1:99999/{SECRET}", "not sent"),
        (f"http://127.0.0.1:1/{SECRET}\r\nX-Header: 1", "not sent"),
    ],
)
def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch, address: str | None, said: str) -> None:
    monkeypatch.delenv("HOOK", raising=False)
    if address is not None:
        monkeypatch.setenv("HOOK", address)
    (line,) = post(limit_s=2.0)
    assert line.startswith("webhook: not sent") and said in line and SECRET not in line


def sendmail(folder: Path, rest: str = "") -> str:
    program = folder / "sendmail"
    program.write_text(f'#!/bin/sh\necho "$@" >"{folder}/words"\ncat >"{folder}/letter"\n{rest}\n')
    program.chmod(0o755)
    return str(program)


def test_a_letter_whose_subject_is_one_line(tmp_path: Path) -> None:
    program, to = sendmail(tmp_path), ("team@example.org", "two@example.org")
    told = send("worse\r\nBcc: all@example.org\n\nbody", "Größe → klein\n.\nend", {}, webhook_env=None, mail=to,
                sendmail=program)  # fmt: skip
    assert told == ["mail to team@example.org, two@example.org: handed over"]
    letter = email.message_from_bytes((tmp_path / "letter").read_bytes())
    assert letter["To"] == "team@example.org, two@example.org" and letter["Bcc"] is None
    assert letter["Subject"].startswith("worse Bcc: all@example.org")
    assert letter.get_payload(decode=True).decode() == "Größe → klein\n.\nend\n"
    assert (tmp_path / "words").read_text() == "-t -i\n"


@pytest.mark.parametrize(
    ("rest", "said"), [("echo no such user >&2; exit 67", "67: no such user"), ("sleep 5", "0.5 s")]
)
def test_a_sendmail_that_fails(tmp_path: Path, rest: str, said: str) -> None:
    program = sendmail(tmp_path, rest)
    (line,) = send(
        "s", "b", {}, webhook_env=None, mail=("a@b",), sendmail=program, limit_s=0.5 if "sleep" in rest else 9
    )
    assert "not sent" in line and said in line


def test_no_sendmail_and_nothing_asked_for(tmp_path: Path) -> None:
    (line,) = send("s", "b", {}, webhook_env=None, mail=("a@b",), sendmail="no-such-sendmail")
    assert line == "mail to a@b: not sent, there is no no-such-sendmail here"
    assert send("s", "b", {}, webhook_env=None, mail=()) == []


def test_a_server_that_never_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time; the answer does not."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{listening.getsockname()[1]}/{SECRET}")

        def drip() -> None:
            with contextlib.suppress(OSError), listening.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                for number in range(40):
                    connection.sendall(b"X-%d: 1\r\n" % number)
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        began = time.monotonic()
        assert post(limit_s=0.5) == ["webhook: not sent, no answer within 0.5 s"]
        assert time.monotonic() - began < 2


def test_words_that_no_letter_can_hold(tmp_path: Path) -> None:
    program = sendmail(tmp_path)
    told = send("a\udcff", "b\udcff\n", {}, webhook_env=None, mail=["team@example.org"], sendmail=program)
    assert told == ["mail to team@example.org: handed over"]
    (line,) = send("a", "b", {}, webhook_env=None, mail=["x@example.org\nBcc: y@example.org"], sendmail=program)
    assert "not sent" in line
