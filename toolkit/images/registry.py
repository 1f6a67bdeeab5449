"""Which digest a registry's tag stands for now, so that a build takes exactly that and says what to write down.

Decides how to ask (the registry's HTTP interface, an anonymous token where it wants one); a registry that does not
answer is no error here, for the build itself will say so.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping

_TIMEOUT_S = 10.0
_TYPES = ", ".join(
    f"application/vnd.{name}+json"
    for name in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)
_REFERENCE = re.compile(r"(?:(?P<host>[\w.-]+(?::\d+)?)/)?(?P<name>[a-z0-9._/-]+)(?::(?P<tag>[\w.-]{1,128}))?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest(reference: str) -> str | None:
    """`sha256:...` of a reference such as nvcr.io/nvidia/nemo:25.11; None when nobody tells."""
    from urllib.error import HTTPError  # here, for a launcher imports this package and never asks

    match = _REFERENCE.fullmatch(reference)
    if not match:
        return None
    host, name, tag = match["host"], match["name"], match["tag"] or "latest"
    if host is None or not (set(host) & set(".:") or host == "localhost"):
        name = f"{host}/{name}" if host else name
        host, name = "registry-1.docker.io", name if "/" in name else f"library/{name}"
    plain = host.partition(":")[0] == "localhost" or host.startswith("127.")  # as Docker takes them
    url = f"{'http' if plain else 'https'}://{host}/v2/{name}/manifests/{tag}"
    with contextlib.suppress(OSError, ValueError):
        try:
            return _ask(url, {})
        except HTTPError as err:
            if err.code != 401:
                return None
            token = _token(err.headers.get("WWW-Authenticate", ""), plain)
        return _ask(url, {"Authorization": f"Bearer {token}"}) if token else None
    return None


def pinned(reference: str, found: str) -> str:
    """`name@sha256:...`: Apptainer takes a tag or a digest, not both."""
    head, slash, last = reference.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{found}"


def _ask(url: str, headers: Mapping[str, str]) -> str | None:
    from urllib.request import Request, urlopen

    request = Request(url, method="HEAD", headers={"Accept": _TYPES, **headers})
    with urlopen(request, timeout=_TIMEOUT_S) as answer:
        found = answer.headers.get("Docker-Content-Digest", "")
    return found if _DIGEST.fullmatch(found) else None


def _token(challenge: str, plain: bool) -> str | None:
    """An anonymous token from the place that the registry names, which must not be less private than itself."""
    from urllib.parse import urlencode
    from urllib.request import urlopen

    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge)) if challenge.lower().startswith("bearer ") else {}
    realm = asked.pop("realm", "")
    if not realm.startswith("https://") and not (plain and realm.startswith("http://")):
        return None
    query = urlencode({name: value for name, value in asked.items() if name in ("service", "scope")})
    with urlopen(f"{realm}?{query}", timeout=_TIMEOUT_S) as answer:
        said = json.loads(answer.read(1 << 20))
    token = said.get("token") or said.get("access_token") if isinstance(said, dict) else None
    return token if isinstance(token, str) and token.isprintable() else None
