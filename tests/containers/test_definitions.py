"""Every definition says what the table says, holds nothing of a site, and can be read by Apptainer and a shell."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from toolkit import pins
from toolkit.doctor.profiles import PROFILES
from toolkit.errors import ImageError
from toolkit.images import definition as definitions

ROOT = Path(__file__).resolve().parents[2]
NAMES = tuple(path.stem for path in sorted((ROOT / "containers").glob("*.def")))
STAMPS = {"COMMIT": "unknown", "PINS": "unknown", "INPUTS": "unknown"}
# What an image may set. NCCL's and UCX's values, interfaces, proxies and hosts belong to a site: what %environment sets
# beats whoever starts the image.
OF_AN_IMAGE = {"PATH", "PYTHONPATH", "PYTHONNOUSERSITE", "LC_ALL", "NVTE_CUDA_INCLUDE_PATH"}
SCRIPTS = ("post", "test", "runscript", "environment")


@pytest.fixture(scope="module")
def table() -> Mapping[str, Any]:
    return pins.table().raw


def read(name: str) -> definitions.Definition:
    return definitions.read(ROOT / "containers" / f"{name}.def")


def base(section: Mapping[str, Any], key: str = "base") -> str:
    """As a definition names it: by digest where the table has one."""
    name, digest = section[key], section.get("digest")
    return f"{name.rpartition(':')[0]}@{digest}" if digest and key == "base" else name


def expected(table: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    wheels, tests = table["wheels_image"], table["nccl_tests"]
    built = {"CUDA": "yes", "BOOTSTRAP": "docker", **STAMPS}
    nccl = {"NCCL_TESTS_GIT": tests["git"], "NCCL_TESTS_REF": tests["ref"], "CUDA_ARCHS": table["cuda_archs"]["value"]}
    source = wheels["packages"]
    return {
        "cpu": {"BOOTSTRAP": "debootstrap", "BASE": "debian-bookworm", "MIRROR": "http://deb.debian.org/debian",
                "TORCH_INDEX": table["torch_cpu"]["index"], **STAMPS},
        "train": {"BASE": base(table["gpu_image"]), **nccl, **built},
        "train-from-wheels": {
            "BASE": base(wheels), "RUNTIME": base(wheels, "runtime"), **nccl, **built, "MAX_JOBS": "8",
            "BUILD_TOOLS": " ".join(f"{name}=={version}" for name, version in wheels["build"].items()),
            "FLASH_ATTN": source["flash-attn"]["version"],
            "TE_GIT": source["transformer-engine"]["git"], "TE_REF": source["transformer-engine"]["ref"],
            "APEX_GIT": source["apex"]["git"], "APEX_REF": source["apex"]["ref"],
        },
        "score": {"BASE": base(table["score_image"]), "LM_EVAL": table["score_image"]["packages"]["lm-eval"]["version"],
                  **built},
    }  # fmt: skip


def test_the_definitions_are_those_that_the_table_pins(table: Mapping[str, Any]) -> None:
    assert set(NAMES) == set(expected(table)) <= {*PROFILES}


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_what_the_table_says(name: str, table: Mapping[str, Any]) -> None:
    found = read(name)
    assert dict(found.arguments) == expected(table)[name]
    # All of them are used, all that are used have a default: plain `apptainer build` needs nothing else.
    assert set(found.used) == set(found.arguments)


@pytest.mark.parametrize("name", NAMES)
def test_no_pin_stands_outside_of_the_arguments(name: str) -> None:
    found = read(name)
    for section in SCRIPTS:
        text = found.script(section)
        assert not re.findall(r"==\d|@v?\d|:\d+\.\d|https?://", text), f"%{section} of {name} names a version or place"


@pytest.mark.parametrize("name", NAMES)
def test_both_lines_of_every_header_are_templates(name: str) -> None:
    for header in read(name).headers:
        assert header["bootstrap"] == "{{ BOOTSTRAP }}"
        assert header["from"] in ("{{ BASE }}", "{{ RUNTIME }}")


def test_a_stage_gives_the_same_defaults_as_the_other() -> None:
    text = (ROOT / "containers" / "train-from-wheels.def").read_text()
    given: dict[str, set[str]] = {}
    for block in re.findall(r"^%arguments\n((?:    .*\n)+)", text, re.MULTILINE):
        for key, value in re.findall(r"    (\w+)=(.*)", block):
            given.setdefault(key, set()).add(value)
    assert {key: values for key, values in given.items() if len(values) > 1} == {}


@pytest.mark.parametrize("name", NAMES)
def test_the_environment_of_an_image_holds_nothing_of_a_site(name: str) -> None:
    found = read(name)
    later = "\n".join(re.findall(r"'(export \w+=[^']*)'[^\n]*APPTAINER_ENVIRONMENT", found.script("post")))
    assert found.script("post").count("APPTAINER_ENVIRONMENT") == later.count("export")
    text = "\n".join([found.script("environment", "appenv", "startscript"), later])
    variables = set(re.findall(r"(\w+)=", re.sub(r"\$\{[^}]*\}", "", text)))
    assert variables and variables <= OF_AN_IMAGE
    assert not re.search(r"NCCL|UCX|IFNAME|GLOO|proxy|://|\d+\.\d+\.\d+\.\d+", text, re.IGNORECASE)
    # Nor does any other part of it: NCCL is only named where nccl-tests are built.
    whole = re.sub(r"nccl_tests|NCCL_TESTS_\w+|nccl-tests", "", found.text)
    assert not re.search(r"NCCL_(?!HOME)[A-Z]|UCX_|_IFNAME|https?_proxy", whole)


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_test_name_the_image(name: str) -> None:
    found = read(name)
    labels = dict(line.strip().split(maxsplit=1) for line in found.script("labels").strip().splitlines())
    assert labels["meditron.profile"] == name and labels["org.opencontainers.image.title"] == f"meditron-{name}"
    assert labels["meditron.cuda"] == ("no" if name == "cpu" else "{{ CUDA }}")
    for stamp in STAMPS:
        assert labels[f"meditron.{stamp.lower()}"] == f"{{{{ {stamp} }}}}"
    assert f"python3 -m toolkit.doctor --profile {name}" in found.script("test")
    assert "/opt/meditron/containers/entry" in found.script("runscript")
    assert "/mnt/sources.sh" in found.script("post") and found.script("help").strip()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_is_there_and_holds_no_image(name: str) -> None:
    copied = [line.text for line in read(name).copied()]
    assert copied and all(list(ROOT.glob(path)) for path in copied)
    assert "containers" not in copied and "." not in copied  # built images lie in there
    locks = {path for path in copied if path.endswith(".lock")}
    used = set(re.findall(r"env/\w+\.lock", (ROOT / "containers" / "post.sh").read_text() + read(name).script("post")))
    assert locks <= used and locks


def scripts(found: definitions.Definition) -> list[tuple[str, str]]:
    """Each script of a definition as a shell gets it."""
    values = {name: value.partition(" ")[0] for name, value in found.arguments.items()}
    return [
        (f"%{part.name} {part.rest}", found.filled("\n".join(line.text for line in part.lines), values))
        for part in found.sections
        if part.name in SCRIPTS or part.name in ("setup", "pre", "appinstall", "apprun", "apptest", "appenv")
    ]


def syntax(text: str) -> str:
    """What the shell has against a script; Debian's sh is stricter than bash and is what Apptainer starts."""
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("name", NAMES)
def test_every_script_is_shell(name: str) -> None:
    found = scripts(read(name))
    assert {where.split()[0] for where, _ in found} == {f"%{section}" for section in SCRIPTS}
    for where, text in found:
        assert syntax(text) == "", f"{where} of {name}"


@pytest.mark.parametrize("name", NAMES)
def test_every_script_passes_shellcheck(name: str) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    for where, text in scripts(read(name)):
        # Sourced files, variables that only other sections read, and what a comparison of two templates looks like.
        command = ["shellcheck", "-s", "sh", "-e", "SC1090,SC1091,SC2034,SC2050,SC2194", "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert done.returncode == 0, f"{where} of {name}:\n{done.stdout}"


def test_what_definitions_copy_passes_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    files = ["containers/post.sh", "containers/entry", "env/apptainer/install"]
    done = subprocess.run(["shellcheck", *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


BREAKS = {
    "section": ("%post\n", "%posst\n", "unknown section %posst"),
    "template": ("{{ COMMIT }}", "{{ COMMITT }}", "nothing says what {{ COMMITT }} is"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_definition_is_refused_before_it_is_built(tmp_path: Path, name: str, what: str) -> None:
    old, new, said = BREAKS[what]
    text = (ROOT / "containers" / f"{name}.def").read_text()
    assert old in text
    path = tmp_path / f"{name}.def"
    path.write_text(text.replace(old, new))
    with pytest.raises(ImageError, match=re.escape(said)):
        definitions.values(definitions.read(path), {})


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_error_is_seen(name: str) -> None:
    found = dict(scripts(read(name)))
    post = next(text for where, text in found.items() if where.startswith("%post"))
    assert "yntax error" in syntax(post.replace("; fi", "").replace("fi\n", "\n", 1) + "\nif true; then\n")


@pytest.mark.parametrize("name", NAMES)
def test_apptainer_reads_it_and_refuses_a_broken_one(tmp_path: Path, apptainer: str, name: str) -> None:
    """Apptainer reads all of a definition before it asks for the base: one that is not there ends a build at once."""
    text = (ROOT / "containers" / f"{name}.def").read_text()
    gone = str(tmp_path / "no-base.sif")

    def build(text: str) -> str:
        path = tmp_path / f"{name}.def"
        path.write_text(text)
        arguments = {"BOOTSTRAP": "localimage", "BASE": gone, "RUNTIME": gone}
        words = [f"{key}={value}" for key, value in arguments.items() if f"{{{{ {key} }}}}" in text]
        done = subprocess.run(
            [apptainer, "build", *(word for pair in words for word in ("--build-arg", pair)),
             "--sandbox", str(tmp_path / "out"), str(path)],
            cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        assert done.returncode and not (tmp_path / "out").exists()
        return done.stderr

    assert "no-base.sif" in build(text)
    assert "invalid section(s) specified: posst" in build(text.replace("%post\n", "%posst\n"))
    assert "build var COMMITT is not defined" in build(text.replace("{{ COMMIT }}", "{{ COMMITT }}"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 0, "usage: apptainer run IMAGE WORD"),
        (["help"], 0, "doctor"),
        (["pins"], 0, ""),
        (["no_such_verb"], 2, "'no_such_verb' is no verb"),
        (["../pins"], 2, "no verb"),
        (["a b"], 2, "no verb"),
        (["pins; id"], 2, "no verb"),
        (["python", "-c", "print(6 * 7)"], 0, "42"),
    ],
)
def test_the_words_that_an_image_is_run_with(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(ROOT / "containers" / "entry"), *words], cwd=tmp_path, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, env={"PATH": f"{ROOT / '.venv/bin'}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == code and said in done.stdout + done.stderr


def test_the_light_core_joins_what_a_container_has(tmp_path: Path) -> None:
    """post.sh names what of host.lock is missing, and nothing that is there in whatever version."""
    lock = tmp_path / "host.lock"
    lock.write_text(
        "# Made by somebody\npytest==0.0.1 \\\n    --hash=sha256:aa\nno-such-package==1.2.3 \\\n    --hash=sha256:bb\n"
        "tomli==2.0.0 ; python_full_version < '3.11' \\\n    --hash=sha256:cc\n"
    )
    text = (ROOT / "containers" / "post.sh").read_text().replace("/opt/meditron/env/host.lock", str(lock))
    (tmp_path / "post.sh").write_text(text)
    done = subprocess.run(
        ["sh", "-euc", f"CUDA=no; . {tmp_path}/post.sh; missing_core; version_of pytest; version_of no-such-package"],
        capture_output=True, text=True, env={"PATH": f"{ROOT / '.venv/bin'}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["no-such-package==1.2.3", pytest.__version__, "none"]


def test_cuda_is_yes_or_no() -> None:
    done = subprocess.run(["sh", "-euc", f"CUDA=maybe; . {ROOT}/containers/post.sh"], capture_output=True, text=True)
    assert done.returncode == 2 and "--build-arg CUDA=maybe: yes or no" in done.stderr


def test_the_pinned_apptainer_is_the_installed_one_s_folder() -> None:
    done = subprocess.run([str(ROOT / "env/apptainer/install"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and f"/apptainer-{pins.table().apptainer})" in done.stdout
