"""Builds by a real Apptainer: what is built when, what is left after each failure, and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.images.conftest import DEFINITION, Maker
from toolkit import images
from toolkit.errors import ImageError
from toolkit.images import command, sidecar

ROOT = Path(__file__).resolve().parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.slow
def test_an_image_is_built_kept_and_built_again(make: Maker, site: Path, apptainer: str) -> None:  # noqa: F811
    folder = site / "containers"
    first = make()
    assert (first.state, first.why) == ("built", "there is none yet")
    assert names(folder) == ["one.def", "one.json", "one.log", "one.sif"]
    noted = json.loads((folder / "one.json").read_text())
    stat = first.path.stat()
    assert (noted["bytes"], noted["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
    assert noted["sha256"] == first.sha256 == images.identity(first.path, fresh=True)["sha256"]
    assert noted["apptainer"] == command.version(apptainer) and noted["tested"] and noted["args"] == {}
    said = subprocess.run([apptainer, "inspect", "--json", str(first.path)], capture_output=True, text=True)
    labels = json.loads(said.stdout)["data"]["attributes"]["labels"]
    assert labels["meditron.inputs"] == first.inputs == noted["inputs"]
    assert sidecar.labels(first.path) == labels  # read by hand
    log = (folder / "one.log").read_text()
    assert "STEP greeting" in log and "hello\nfirst" in log  # %post, and %test on the finished image
    assert [entry.state for entry in images.listing(folder)] == ["ready"]

    assert make().state == "kept"
    assert first.path.stat().st_ino == stat.st_ino

    (site / "words.txt").write_text("second\n")
    (entry,) = images.listing(folder)
    assert (entry.state, entry.why) == ("stale", "changed: file words.txt")
    again = make()
    assert (again.state, again.why) == ("built", "its inputs changed: file words.txt")
    assert again.sha256 != first.sha256 and again.inputs != first.inputs
    assert make(arguments={"GREETING": "good day"}).why == "its inputs changed: argument GREETING"
    (entry,) = images.listing(folder)  # the arguments that it was built with are part of it
    assert entry.state == "ready"

    first.path.write_bytes(first.path.read_bytes()[:-4096])
    assert "damaged (the SIF is truncated" in make(arguments={"GREETING": "good day"}).why


@pytest.mark.slow
def test_an_image_comes_from_the_cache(make: Maker, site: Path) -> None:
    made = make(cache=True)
    made.path.unlink()
    taken = make(cache=True, output=site / "elsewhere")
    assert taken.state == "cached" and taken.sha256 == made.sha256 and taken.path.parent == site / "elsewhere"
    assert images.verify(taken.path, site / "containers").state == "ready"
    (kept,) = site.glob("cache/*/one.sif")
    kept.write_bytes(kept.read_bytes().replace(b"SIF_MAGIC", b"SIF_MAGIX"))
    taken.path.unlink()
    assert make(cache=True).state == "built"


@pytest.mark.slow
def test_a_sandbox_is_a_folder(make: Maker, site: Path) -> None:
    made = make(sandbox=True)
    assert made.path.name == "one.sandbox" and (made.path / "opt/greeting.txt").read_text() == "hello\n"
    known = images.identity(made.path)
    assert known["kind"] == "sandbox" and known["sha256"] is None and known["inputs"] == made.inputs
    images.check(made.path, known, full=True)
    assert make(sandbox=True).state == "kept"
    (site / "words.txt").write_text("second\n")
    assert make(sandbox=True).state == "built" and (made.path / "opt/words.txt").read_text() == "second\n"
    with pytest.raises(ImageError, match="another image"):
        images.check(made.path, known)
    assert names(site / "containers") == ["one.def", "one.log", "one.sandbox", "one.sandbox.json"]


BROKEN = {
    "post": ("%post\n    echo before\n    ls /nothing\n", ["%post of one failed", "ls /nothing", "one.log"]),
    "shell": ("%post\n    if true; then\n", ["%post of one failed", "Syntax error"]),
    "test": ("%test\n    echo not good\n    exit 3\n", ["%test of one failed with 3", "not good"]),
    "section": ("%pots\n    true\n", ["one.def:4: unknown section %pots", "Did you mean 'post'?"]),
    "variable": ("%post\n    echo {{ GREETNG }}\n", ["one.def:5", "{{ GREETNG }}", "--build-arg GREETNG="]),
    "file": ("%files\n    nothing.txt /x\n", ["one.def:5", "copies a file that is not there", "nothing.txt"]),
}
MIRROR = "MirrorURL: http://mirror.invalid/debian"
REFUSED = {
    "registry": ("Bootstrap: docker\nFrom: registry.invalid/a/b:1\n", ["cannot be had", "registry.invalid/a/b:1"]),
    "mirror": (f"Bootstrap: debootstrap\nOSVersion: bookworm\n{MIRROR}\n", ["cannot be had", "--base"]),
    "no base": ("Bootstrap: localimage\nFrom: /nothing/base.sif\n", ["/nothing/base.sif", "local base", "--base"]),
    "agent": ("Bootstrap: bootstrp\nFrom: x\n", ["could not be built", "bootstrp"]),
}


def test_what_breaks_leaves_the_image_as_it_was(make: Maker, site: Path) -> None:
    good = make()
    whole = (good.path.read_bytes(), (site / "containers/one.json").read_bytes())

    def untouched(why: str) -> None:
        assert (good.path.read_bytes(), (site / "containers/one.json").read_bytes()) == whole, why
        assert names(site / "containers") == ["one.def", "one.json", "one.log", "one.sif"], why
        assert names(site) == ["containers", "words.txt"], why  # what was unpacked is gone

    for case, (rest, parts) in BROKEN.items():
        with pytest.raises(ImageError) as caught:
            make(f"Bootstrap: localimage\nFrom: BASE_FOLDER\n\n{rest}")
        assert all(part in str(caught.value) for part in parts), (case, str(caught.value))
        assert caught.value.exit_code == 3
        untouched(case)
    for case, (text, parts) in REFUSED.items():
        with pytest.raises(ImageError) as caught:
            make(text)
        assert all(part in str(caught.value) for part in parts), (case, str(caught.value))
        untouched(case)
    truncated = site / "words.txt"
    truncated.write_bytes(whole[0][:100_000])
    with pytest.raises(ImageError, match="local base cannot be used: the SIF is truncated"):
        make(f"Bootstrap: localimage\nFrom: {truncated}\n")
    untouched("truncated base")


def inside(*words: str, prepare: str = "") -> subprocess.CompletedProcess[str]:
    """The command line in namespaces of its own, where `prepare` may break what it needs."""
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    script = f'{prepare}\nexec "$@"'
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-ec", script, "sh", sys.executable, "-m", "toolkit.images", *words],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.slow
def test_without_user_namespaces_or_room(make: Maker, site: Path, apptainer: str) -> None:  # noqa: F811
    whole = make().path.read_bytes()
    build = ["build", str(site / "containers/one.def"), "--force", "--json", "--apptainer", apptainer]
    off = "echo 0 >/proc/sys/user/max_user_namespaces"
    done = inside(*build, "--fakeroot", prepare=off)
    said = json.loads(done.stdout)
    assert done.returncode == said["exit_code"] == 3 and said["error"] == "ImageError"
    assert "without root" in said["what"] and "max_user_namespaces is 0" in said["why"] and "/etc/subuid" in said["do"]

    small = site / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs '{small}'"
    for place in ("--tmp", "-o"):
        done = inside(*build, place, str(small), prepare=mount)
        said = json.loads(done.stdout)
        assert (said["error"], said["where"]) == ("DiskFull", str(small)), done.stderr
        assert "are free" in said["what"]
    text = (site / "containers/one.def").read_text()  # one that believes to need less than it does
    text = text.replace("0.02 GiB while", "0 GiB while").replace("0.01 GiB when", "0 GiB when")
    (site / "containers/one.def").write_text(text)
    for place in ("--tmp", "-o"):
        done = inside(*build, place, str(small), prepare=mount)
        said = json.loads(done.stdout)
        assert (said["error"], said["what"]) == ("DiskFull", "no room to build one"), done.stderr
        if place == "--tmp":
            assert said["where"].startswith(str(small))
    assert (site / "containers/one.sif").read_bytes() == whole
    assert names(site) == ["containers", "small", "words.txt"]


@pytest.mark.slow
def test_a_signature_is_asked_of_apptainer(
    make: Maker, site: Path, apptainer: str, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    image = make().path
    for name in ("KEYSDIR", "CONFIGDIR"):
        monkeypatch.setenv(f"APPTAINER_{name}", str(site / "keys"))
    (site / "keys").mkdir(mode=0o700)
    words = "newpair --password hush --name Me --email me@site.example --comment none --push=false --bit-length 2048"
    subprocess.run([apptainer, "key", *words.split()], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    subprocess.run([apptainer, "sign", str(image)], check=True, capture_output=True, input=b"hush\n")
    with pytest.raises(ImageError, match="not the one that was built.*signing"):
        images.verify(image, site / "containers")
    sidecar.beside(image).unlink()
    entry = images.verify(image, site / "containers", apptainer=apptainer)
    assert entry.signed and entry.state == "ready"  # its labels say what it was made from
    monkeypatch.setenv("APPTAINER_KEYSDIR", str(site / "other"))
    with pytest.raises(ImageError, match="a signature of the image does not hold. Failed to verify"):
        images.verify(image, site / "containers", apptainer=apptainer)


SLEEPS = "Bootstrap: localimage\nFrom: BASE_FOLDER\n\n%post\n    echo STEP waiting\n    sleep 61.25\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_stopped_leaves_nothing(
    make: Maker, site: Path, base: Path, apptainer: str, number: signal.Signals  # noqa: F811
) -> None:  # fmt: skip
    whole = make().path.read_bytes()
    text = SLEEPS.replace("BASE_FOLDER", str(base))
    (site / "containers/one.def").write_text(text)
    log = site / "containers/one.log"
    words = ["build", str(site / "containers/one.def"), "--apptainer", apptainer, "--tmp", str(site)]
    child = subprocess.Popen(
        [sys.executable, "-m", "toolkit.images", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        wait_for(lambda: "STEP waiting\n" in log.read_text().replace("echo STEP waiting\n", ""))
        with pytest.raises(ImageError, match="another build of one.sif is at work"):
            make(text)
        child.send_signal(number)
        said = child.communicate(timeout=60)[0] if number != signal.SIGKILL else ""
    finally:
        child.kill()
        child.wait()
    if number == signal.SIGKILL:
        wait_for(lambda: not building(site))
        make()
    else:
        assert child.returncode == 130 and "interrupted" in said
    assert not building(site)
    assert (site / "containers/one.sif").read_bytes() == whole or number == signal.SIGKILL
    assert names(site / "containers") == ["one.def", "one.json", "one.log", "one.sif"]
    assert names(site) == ["containers", "words.txt"]


def building(site: Path) -> list[str]:
    """The processes that have to do with builds in `site`."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes()
            where = os.readlink(place / "root")
        except OSError:
            continue
        if str(site).encode() in words + where.encode() and int(place.name) != os.getpid():
            found.append(words.decode(errors="replace"))
    return found


def wait_for(true: object, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if true():  # type: ignore[operator]
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def test_no_apptainer(site: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "containers/one.def").write_text(DEFINITION.replace("BASE_FOLDER", str(base)))
    with pytest.raises(ImageError, match="no nothing-of-the-kind on .*MEDITRON_APPTAINER") as caught:
        images.build("one", folder=site / "containers", options=images.Options(apptainer="nothing-of-the-kind"))
    assert caught.value.exit_code == 3
    broken = site / "apptainer"
    broken.write_text("#!/bin/sh\necho cannot load libfoo >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(ImageError, match="Apptainer does not run. Cannot load libfoo"):
        images.build("one", folder=site / "containers", options=images.Options(apptainer=str(broken)))
    monkeypatch.setenv("PATH", str(site / "empty"))
    monkeypatch.setenv("HOME", str(site))
    with pytest.raises(ImageError, match="no apptainer on .*env/apptainer/install"):
        command.find()
    assert names(site / "containers") == ["one.def"]


SOURCED = """Bootstrap: debootstrap
OSVersion: bookworm
MirrorURL: {{ MIRROR }}

# room: 0.02 GiB while building, 0.01 GiB when built
%arguments
    MIRROR=http://deb.debian.org/debian

%post
    if [ -f /mnt/sources.sh ]; then . /mnt/sources.sh; fi
    echo "STEP $(cat $PIP_CONFIG_FILE)"
    cat /mnt/local/0/words.txt >/opt/words.txt
    cat /mnt/sources.list
"""


def test_nothing_of_this_machines_sources_stays_in_the_image(
    make: Maker, site: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = site / "tools"
    tools.mkdir()
    script = "#!/bin/sh\nfor word; do before=$last last=$word; done\n"
    script += f'cp -a "{base}/." "$before/"; mkdir -p "$before/etc/apt"\n'
    script += 'echo "deb $last bookworm main" >"$before/etc/apt/sources.list"\n'
    (tools / "debootstrap").write_text(script)
    (tools / "debootstrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # no file of pip's counts
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:hush@index.private.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", str(site))
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@proxy.private.example:3128")
    made = make(SOURCED, sandbox=True, mirror="http://mirror.private.example/debian")
    assert (made.path / "opt/words.txt").read_text() == "first\n"
    log = (site / "containers/one.log").read_text()
    assert "deb http://mirror.private.example/debian bookworm main" in log and "hush" not in log
    assert any("a Debian mirror" in note for note in made.notes)
    read = 0
    for path in made.path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            read += 1
            assert b"private.example" not in path.read_bytes() and str(site).encode() not in path.read_bytes(), path
    assert (
        read > 20
        and (made.path / "etc/apt/sources.list").read_text() == "deb http://deb.debian.org/debian bookworm main\n"
    )
    labels = sidecar.labels(made.path)
    assert labels["org.label-schema.usage.singularity.deffile.mirrorurl"] == "http://deb.debian.org/debian"
