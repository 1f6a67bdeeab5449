"""The verbs on the command line, without a build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.images.conftest import a_sif
from toolkit import cli, files, images
from toolkit.images import __main__ as verbs
from toolkit.images import sidecar
from toolkit.images.plan import Options, plan


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    try:
        code = cli.run(verbs.main, [str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_help_has_an_example_for_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("build", "verify", "list", "stage"):
        code, out, _ = run(capsys, verb, "--help")
        assert code == 0 and f"python -m toolkit.images {verb}" in out and "--json" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "no-such-image"], "no definition containers/no-such-image.def"),
        (["build", "../cpu"], "no definition containers/../cpu.def"),
        (["build", "$(touch X)"], "no definition containers/$(touch X).def"),
        (["build", "cpu", "--build-arg", "CUDA"], "--build-arg takes NAME=VALUE, not 'CUDA'"),
        (["build", "cpu", "--build-arg", "A B=C"], "--build-arg takes NAME=VALUE"),
        (["verify", "no-such-image"], "no definition containers/no-such-image.def"),
        (["list", "--", "--fakeroot"], "only build takes options for apptainer build"),
    ],
)
def test_words_that_cannot_be_understood(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    code, out, err = run(capsys, *words)
    assert code == 2 and said in err and out == ""


def test_list_and_verify_say_what_is_there(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = site / "containers"
    for name in ("one", "two", "three"):
        (folder / f"{name}.def").write_text("Bootstrap: docker\nFrom: a\n%files\n    words.txt /x\n")
    one, two = a_sif(folder / "one.sif", labels={"meditron.commit": "c1"}), a_sif(folder / "two.sif")
    made = plan("one", folder, None, Options())
    facts = {"sha256": files.sha256_file(one), "inputs": made.inputs.digest, "parts": made.inputs.parts, "built": "now"}
    sidecar.write(one, facts)
    two.write_bytes(two.read_bytes()[:9000])
    a_sif(folder / "other.sif")
    found = {entry.name: entry for entry in images.listing(folder)}
    assert {name: entry.state for name, entry in found.items()} == {
        "one": "ready", "two": "damaged", "three": "absent", "other": "untracked",
    }  # fmt: skip
    assert found["one"].sha256 == facts["sha256"] and found["one"].commit == "c1" and "truncated" in found["two"].why
    (site / "words.txt").write_text("other\n")

    code, out, _ = run(capsys, "list", "-o", folder, "--json")
    assert code == 0 and {row["name"]: row["state"] for row in json.loads(out)["images"]}["other"] == "untracked"
    assert "untracked" in run(capsys, "list", "-o", folder)[1]

    code, out, _ = run(capsys, "verify", one)
    assert code == 0 and f"whole, SHA-256 {facts['sha256']}; stale (changed: file words.txt)" in out
    code, out, err = run(capsys, "verify", two, "--json")
    assert code == json.loads(out)["exit_code"] == 3 and "truncated" in err
    data = bytearray(one.read_bytes())
    data[9000] ^= 1  # one bit of its file system
    one.write_bytes(data)
    code, _, err = run(capsys, "verify", one)
    assert code == 3 and "not the one that was built" in err


def test_stage_prints_the_copy(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = a_sif(site / "one.sif")
    code, out, _ = run(capsys, "stage", source, "--to", site / "node")
    assert code == 0 and Path(out.strip()).read_bytes() == source.read_bytes()
    code, out, _ = run(capsys, "stage", source, "--to", site / "node", "--json")
    assert code == 0 and json.loads(out)["path"].startswith(str(site / "node/one-"))
