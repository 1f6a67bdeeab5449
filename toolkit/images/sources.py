"""The build host's package sources, shown to %post as a folder bound at /mnt: pip's indexes and local folders, the CA
bundle, proxies, apt's mirror. Decides what of the host's configuration a build needs; nothing of it stays in an image.

A %post begins with `[ ! -r /mnt/sources.sh ] || . /mnt/sources.sh`. That file holds names of files only: the shell
prints every line of it into the log, and a proxy or an index may carry a password.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

INSIDE = "/mnt"  # exists in every base, and Apptainer makes no mount points in a build
_BUNDLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
_PIP_LISTS = ("extra-index-url", "find-links", "trusted-host")
_PIP_KEYS = ("index-url", *_PIP_LISTS, "timeout", "default-timeout", "retries")
_DEBOOTSTRAP = """#!/bin/sh
# Debian from the mirror of the machine that builds; the image names the one its definition names.
set -e
for last; do :; done
case $last in http://* | https://*) ;; *) exec {real} "$@" ;; esac
count=$# i=0
while [ $i -lt $((count - 1)) ]; do
    target=$1
    set -- "$@" "$1"
    shift
    i=$((i + 1))
done
shift
{real} "$@" {mirror}
[ ! -f "$target/etc/apt/sources.list" ] || sed -i "s|"{mirror}"|$last|g" "$target/etc/apt/sources.list"
"""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """`binds` as --bind takes them, `path` folders for the front of PATH, `said` what was found, without passwords."""

    binds: tuple[str, ...]
    path: tuple[str, ...]
    said: tuple[str, ...]


def prepare(
    folder: Path, *, mirror: str | None, suite: str | None, default_mirror: str | None, pip: Mapping[str, str]
) -> Sources:
    """Write what %post is shown into `folder`, which must be private to the user.

    `pip` is what `pip_config` found. `mirror` is a Debian mirror for a definition that bootstraps `suite` from
    `default_mirror`; None leaves the definition's own.
    """
    shown = folder / "mnt"
    shown.mkdir(mode=0o755)
    exports, binds, said = {}, [f"{shown}:{INSIDE}:ro"], []
    settings, local, names = _pip_settings(pip, shown)
    binds += local
    said += names
    proxies = {k: os.environ[k] for k in ("http_proxy", "https_proxy", "no_proxy") if os.environ.get(k)}
    proxies |= {k.lower(): os.environ[k] for k in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
                if os.environ.get(k) and k.lower() not in proxies}  # fmt: skip
    proxy = proxies.get("https_proxy") or proxies.get("http_proxy")
    if proxy:
        settings["proxy"] = proxy
        (shown / "gitconfig").write_text(f'[http]\n\tproxy = "{proxy}"\n')
        (shown / ".curlrc").write_text(f'proxy = "{proxy}"\nnoproxy = "{proxies.get("no_proxy", "")}"\n')
        (shown / "wgetrc").write_text("".join(f"{k} = {v}\n" for k, v in proxies.items()) + "use_proxy = on\n")
        exports |= {"GIT_CONFIG_GLOBAL": "gitconfig", "CURL_HOME": "", "WGETRC": "wgetrc"}
        said.append("a proxy")
    if settings:
        lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
        (shown / "pip.conf").write_text(f"[global]\n{lines}")
        exports["PIP_CONFIG_FILE"] = "pip.conf"
    bundle = next((os.environ[name] for name in _BUNDLES if os.environ.get(name)), None) or pip.get("cert")
    if bundle and Path(bundle).is_file():
        shutil.copyfile(bundle, shown / "ca.crt")
        exports |= dict.fromkeys(_BUNDLES, "ca.crt")
        said.append("certificates")
    apt = [f'Acquire::{k[:-6]}::Proxy "{v}";' for k, v in proxies.items() if k.endswith("_proxy") and k != "no_proxy"]
    tools = []
    if mirror and default_mirror and mirror.rstrip("/") != default_mirror.rstrip("/"):
        apt += [f'Dir::Etc::sourcelist "{INSIDE}/sources.list";', 'Dir::Etc::sourceparts "-";']
        (shown / "sources.list").write_text(f"deb {mirror} {suite or 'stable'} main\n")
        tools = _debootstrap(folder, mirror)
        said.append("a Debian mirror")
    if apt:
        (shown / "apt.conf").write_text("\n".join(apt) + "\n")
        exports["APT_CONFIG"] = "apt.conf"
    script = "".join(f"export {name}={INSIDE}{'/' + file if file else ''}\n" for name, file in exports.items())
    (shown / "sources.sh").write_text(script)
    for file in shown.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    return Sources(binds=tuple(binds), path=tuple(tools), said=tuple(said))


def pip_config() -> dict[str, str]:
    """pip's own settings on this machine, from its files and the environment; lists are separated by blanks."""
    found: dict[str, str] = {}
    for command in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        if not shutil.which(command[0]):
            continue
        try:
            done = subprocess.run(
                [*command, "config", "list"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            for line in done.stdout.splitlines():
                _take(found, line)
            return found
    for name, value in os.environ.items():
        if name.startswith("PIP_"):
            found[name[4:].lower().replace("_", "-")] = value
    return found


def debian_mirror() -> str | None:
    """The archive that this machine's apt takes Debian's main section from; None where it is no Debian."""
    try:
        release = Path("/etc/os-release").read_text(encoding="utf-8")
        if not re.search(r"^ID=\"?debian\"?$", release, re.MULTILINE):
            return None
        texts = []
        for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
            if path.is_file() and path.suffix in (".list", ".sources"):
                texts.append(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return _first_mirror("\n".join(texts))


def _first_mirror(text: str) -> str | None:
    pattern = re.compile(r"^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s*)?)(https?://\S+/debian)/?(?=\s|$)", re.MULTILINE)
    match = pattern.search(text)
    return match[1] if match else None


def _take(found: dict[str, str], line: str) -> None:
    """A line of `pip config list`: `global.index-url='...'`, or `:env:.find-links='...'`, which wins."""
    match = re.fullmatch(r"(:env:|[\w-]+)\.([\w-]+)='(.*)'", line.strip())
    if not match or match[1] not in (":env:", "global", "install", "download"):
        return
    value = match[3].encode("ascii", "backslashreplace").decode("unicode_escape")
    if match[1] == ":env:" or match[2] not in found:
        found[match[2]] = " ".join(value.split())


def _pip_settings(pip: Mapping[str, str], shown: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """(settings for pip.conf, binds for its local folders, what to say)."""
    settings, binds, said, places = {}, [], [], {}
    for key in _PIP_KEYS:
        kept = []
        for word in (pip.get(key) or "").split():
            local = _local(word) if key not in ("trusted-host", "timeout", "default-timeout", "retries") else None
            if local is None:
                kept.append(word)
            elif local.exists() and not set(str(local)) & set(":,"):
                # The pages of an index point beside their folder: ../../files/NAME.whl
                outer = local.parent if key.endswith("index-url") and local.name == "simple" else local
                if outer not in places:
                    places[outer] = f"{INSIDE}/local/{len(places)}"
                    (shown / "local" / str(len(places) - 1)).mkdir(parents=True)
                    binds.append(f"{outer}:{places[outer]}:ro")
                inside = places[outer] + ("" if outer == local else f"/{local.name}")
                kept.append(f"file://{inside}" if key.endswith("index-url") else inside)
        if kept:
            settings[key] = "\n    ".join(kept)
    if "index-url" in settings or "extra-index-url" in settings or "find-links" in settings:
        said.append("pip's indexes")
    if places:
        said.append(f"{len(places)} local folder{'s' if len(places) > 1 else ''} of packages")
    return settings, binds, said


def _local(word: str) -> Path | None:
    """The folder that a pip setting names, or None for a URL of the network."""
    parts = urlsplit(word)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(word).expanduser().absolute()


def _debootstrap(folder: Path, mirror: str) -> list[str]:
    """A debootstrap in front of the real one: given as an argument, the mirror would be in the image's labels."""
    real = shutil.which("debootstrap") or "/usr/sbin/debootstrap"
    place = folder / "bin"
    place.mkdir()
    (place / "debootstrap").write_text(
        _DEBOOTSTRAP.format(real=shlex.quote(real), mirror=shlex.quote(mirror)), encoding="utf-8"
    )
    (place / "debootstrap").chmod(0o755)
    return [str(place)]
