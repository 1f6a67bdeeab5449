"""What is read of a definition, and what an image's inputs are."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.images.conftest import a_sif
from toolkit.errors import ImageError, ToolkitError, UsageError
from toolkit.images import definition, inputs
from toolkit.images.plan import Options, plan

ROOT = Path(__file__).resolve().parents[2]
TWO_STAGES = """# room: 12.5 GiB while building, 3 GiB when built
Bootstrap: {{ BOOTSTRAP }}
From: {{ BASE }}
Stage: build

%arguments
    # a comment
    BOOTSTRAP=docker
    BASE="vendor/base:1"
    VERSION=2

%post
    make VERSION={{ VERSION }}
    echo "50 %" # no section
    %not a section either

Bootstrap: {{ BOOTSTRAP }}
From: {{ BASE }}
Stage: final

%files from build
    /opt/made /opt/made

%files
    "words.txt" /opt/words.txt   # with a comment
    folder

%post
    true
"""


def written(site: Path, text: str, name: str = "one") -> definition.Definition:
    path = site / "containers" / f"{name}.def"
    path.write_text(text)
    return definition.read(path)


def test_what_is_read(site: Path) -> None:
    found = written(site, TWO_STAGES)
    assert [dict(header) for header in found.headers] == [
        {"bootstrap": "{{ BOOTSTRAP }}", "from": "{{ BASE }}", "stage": name} for name in ("build", "final")
    ]
    assert found.arguments == {"BOOTSTRAP": "docker", "BASE": "vendor/base:1", "VERSION": "2"}
    assert [line.text for line in found.copied()] == ["words.txt", "folder"]
    assert found.room == (12.5, 3.0) and found.root == site and set(found.used) == {"BOOTSTRAP", "BASE", "VERSION"}
    assert definition.values(found, {"BASE": "mine"}) == {"BOOTSTRAP": "docker", "BASE": "mine", "VERSION": "2"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no Bootstrap: line"),
        ("%post\n  true\n", "no Bootstrap: line"),
        ("Bootstrap: x\nFrom: y\n%psot\n", "one.def:3: unknown section %psot. Did you mean 'post'?"),
        ("Bootstrap: x\nFrom: y\nlet us begin\n", "one.def:3: a line that is neither a header nor in a section"),
        ("Bootstrap: x\n" + "# x\n" * 300_000, "larger than 1 MiB"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(site: Path, text: str, said: str) -> None:
    with pytest.raises(ImageError) as caught:
        written(site, text)
    assert said in str(caught.value)


def test_what_is_no_text(site: Path) -> None:
    path = site / "containers" / "one.def"
    path.write_bytes(b"Bootstrap: x\n\xff\xfe")
    with pytest.raises(ImageError, match="no UTF-8 text"):
        definition.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ImageError, match="cannot be read"):
        definition.read(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="%{}BootstrapFm: \n#='\"\\x\x00é", max_size=200))
def test_no_text_brings_the_reader_down(site: Path, text: str) -> None:
    try:
        found = written(site, "Bootstrap: x\n" + text)
        definition.values(found, {})
        inputs.inputs(found, definition.values(found, {}))
    except ToolkitError:
        pass


@pytest.mark.parametrize(
    "name", ["cup", "../containers/cpu", "-x", "$(touch X)", "a b", "", ".", "/etc/passwd", "x/y.def"]
)
def test_names_that_are_none(site: Path, name: str) -> None:
    (site / "containers/cpu.def").write_text("Bootstrap: x\n")
    with pytest.raises(UsageError, match="no (such )?definition") as caught:
        definition.find(name, site / "containers")
    assert caught.value.exit_code == 2
    if name == "cup":
        assert "did you mean 'cpu'?" in caught.value.why
    for good in ("cpu", "cpu.def", str(site / "containers/cpu.def")):
        assert definition.find(good, site / "containers") == site / "containers/cpu.def"


def test_an_argument_that_is_not_used_is_refused(site: Path) -> None:
    with pytest.raises(UsageError, match="uses no argument VERSOIN. Did you mean 'VERSION'?"):
        definition.values(written(site, TWO_STAGES), {"VERSOIN": "3"})


# ---- inputs ----------------------------------------------------------------------------------------------------------


def digest(site: Path, text: str = TWO_STAGES, **arguments: str) -> str:
    (site / "containers/one.def").write_text(text)
    return plan("one", site / "containers", None, Options(arguments=arguments)).inputs.digest


def test_what_changes_an_image(site: Path) -> None:
    (site / "folder" / "__pycache__").mkdir(parents=True)
    (site / "folder" / "a.txt").write_text("a")
    first = digest(site)
    assert digest(site) == first == digest(site, VERSION="2")  # a default that is given is the default
    seen = {first, digest(site, VERSION="3"), digest(site, TWO_STAGES + "    false\n")}
    (site / "words.txt").write_text("second\n")
    seen.add(digest(site))
    (site / "folder" / "b.txt").write_text("a")
    seen.add(digest(site))
    (site / "folder" / "b.txt").rename(site / "folder" / "c.txt")
    seen.add(digest(site))
    assert len(seen) == 6
    last = digest(site)
    (site / "folder" / "__pycache__" / "a.pyc").write_text("x")
    assert digest(site) == last


def test_the_toolkits_source_and_stamps_change_none(site: Path) -> None:
    text = """Bootstrap: docker
From: a
%files
    toolkit /opt/toolkit
    env/versions.yaml /opt/versions.yaml
    containers/one.def /opt/one.def
    containers/entry /opt/entry
%labels
    commit {{ COMMIT }}
    pins {{ PINS }}
    inputs {{ INPUTS }}
"""
    (site / "containers/entry").write_text("#!/bin/sh\n")
    first = digest(site, text)  # neither toolkit/ nor env/ is looked at: they are not even there
    (site / "toolkit").mkdir()
    (site / "toolkit" / "new.py").write_text("x = 1\n")
    subprocess.run(["git", "init", "-q", str(site)], check=True)
    assert digest(site, text) == first
    (site / "containers/entry").write_text("#!/bin/bash\n")
    assert digest(site, text) != first


def test_the_table_of_pins_counts_where_a_script_reads_it(site: Path) -> None:
    table = (ROOT / "env/versions.yaml").read_text()
    (site / "env").mkdir()
    reads = "Bootstrap: docker\nFrom: a\n%post\n    pip install $(awk /x/ env/versions.yaml)\n"
    (site / "env/versions.yaml").write_text(table)
    first, other = digest(site, reads), digest(site, "Bootstrap: docker\nFrom: a\n")
    (site / "env/versions.yaml").write_text(table.replace("packages:", "# a comment\npackages:", 1))
    assert digest(site, reads) == first
    (site / "env/versions.yaml").write_text(table.replace("version: 1.3.2", "version: 1.3.1", 1))
    assert digest(site, reads) != first and digest(site, "Bootstrap: docker\nFrom: a\n") == other


def test_a_pinned_base_is_taken_by_digest(site: Path) -> None:
    text = "Bootstrap: docker\nFrom: {{ BASE }}\n%arguments\n    BASE=nvcr.io/nvidia/nemo:25.11\n"
    table = (ROOT / "env/versions.yaml").read_text()
    (site / "env").mkdir()
    (site / "env/versions.yaml").write_text(table)
    (site / "containers/one.def").write_text(text)

    def base(**arguments: str) -> str:
        return plan("one", site / "containers", None, Options(arguments=arguments)).values["BASE"]

    found = "sha256:" + hashlib.sha256(b"x").hexdigest()
    with_digest = table.replace("  digest: null", "").replace(
        "  base: nvcr.io/nvidia/nemo:25.11", f"  base: nvcr.io/nvidia/nemo:25.11\n  digest: {found}", 1
    )
    assert with_digest != table
    (site / "env/versions.yaml").write_text(with_digest)
    assert base() == f"nvcr.io/nvidia/nemo@{found}"
    assert base(BASE="mine:1") == "mine:1"
    (site / "env/versions.yaml").write_text("gpu_image: [")
    assert base() == "nvcr.io/nvidia/nemo:25.11"


def test_a_local_base_counts_by_its_content(site: Path) -> None:
    base = a_sif(site / "base.sif")
    text = f"Bootstrap: localimage\nFrom: {base}\n"
    first = digest(site, text)
    base.touch()
    assert digest(site, text) == first
    a_sif(base, fill=b"y")
    assert digest(site, text) != first
    base.write_bytes(base.read_bytes()[:9000])
    with pytest.raises(ImageError, match="local base cannot be used: the SIF is truncated"):
        digest(site, text)
