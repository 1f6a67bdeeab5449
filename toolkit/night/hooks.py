"""Telling people of a night: a webhook and a mail. Decides how they are sent and that no secret is shown.

A message that cannot be sent is a line in the answer, never an error: the night's verdict stands without it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate
from queue import Empty, Queue
from typing import Any
from urllib.parse import urlsplit

_LIMIT_S = 20.0
_LINE = 200


def send(
    subject: str,
    body: str,
    facts: Mapping[str, Any],
    *,
    webhook_env: str | None,
    mail: Sequence[str],
    sendmail: str = "sendmail",
    limit_s: float = _LIMIT_S,
) -> list[str]:
    """Send both where they are asked for; returns a line for each on what became of it. Never raises for them.

    The webhook gets `{"text": subject and body, **facts}` as JSON by POST; `text` is what chat services show.
    """
    told = []
    if webhook_env is not None:
        told.append(f"webhook: {_post(webhook_env, {'text': f'{subject}{chr(10)}{body}', **facts}, limit_s)}")
    if mail:
        told.append(f"mail to {', '.join(mail)}: {_mail(sendmail, mail, subject, body, limit_s)}")
    return told


def _post(name: str, value: Mapping[str, Any], limit_s: float) -> str:
    address = os.environ.get(name, "")
    if not address:
        return f"not sent, ${name} is not set"
    answers = Queue[str](maxsize=1)
    # A thread that nobody waits for: a server that answers byte by byte, or a name that does not resolve, has no end.
    work = threading.Thread(target=lambda: answers.put(_answer(name, address, value, limit_s)), daemon=True)
    work.start()
    try:
        return answers.get(timeout=limit_s)
    except Empty:
        return f"not sent, no answer within {limit_s:g} s"


def _answer(name: str, address: str, value: Mapping[str, Any], limit_s: float) -> str:
    try:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return f"not sent, ${name} holds no http or https address"
        data = json.dumps(value, ensure_ascii=True, default=str).encode()
        request = urllib.request.Request(address, data=data, headers={"Content-Type": "application/json"})
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=limit_s) as answer:
            return f"sent ({answer.status})"
    except urllib.error.HTTPError as err:
        return f"not sent, the server answered {err.code}"
    except (OSError, ValueError) as err:  # their words may hold the address, which may be a secret
        return f"not sent ({type(err).__name__})"
    except Exception as err:  # http.client's own; a hook must not end a night
        return f"not sent ({type(err).__name__})"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is sent goes to the address that was given, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _mail(sendmail: str, to: Sequence[str], subject: str, body: str, limit_s: float) -> str:
    places = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin{os.pathsep}/usr/lib"
    program = shutil.which(sendmail, path=places)
    if program is None:
        return f"not sent, there is no {sendmail} here"
    message = EmailMessage()
    try:
        message["To"] = ", ".join(to)
        message["Subject"] = " ".join(_sound(subject).split())[:_LINE]  # a line break would begin another header
        message["Date"] = formatdate()
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(_sound(body))
        letter = message.as_bytes()
    except ValueError as err:
        return f"not sent: {err}"
    try:
        done = subprocess.run([program, "-t", "-i"], input=letter, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"not sent, {sendmail} did not end within {limit_s:g} s"
    except OSError as err:
        return f"not sent: {err.strerror}"
    if done.returncode:
        said = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
        return f"not sent, {sendmail} ended with {done.returncode}{f': {said[-1][:_LINE]}' if said else ''}"
    return "handed over"


def _sound(words: str) -> str:
    """Without halves of characters, which names of files may hold and no letter can."""
    return words.encode("utf-8", errors="replace").decode("utf-8")
