"""The environments of the packages that this is measured against: given, or made once from env/versions.yaml."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "runs" / "peers"


def python(folder: Path | None, kind: str = "corpus", *, over_this: bool = False) -> Path:
    """Its Python. A folder that is no environment yet becomes one, with what `peers: kind` of the table names.

    `over_this`: what this environment has is seen there too, and only the rest is installed.
    """
    default = DEFAULT if kind == "corpus" else DEFAULT.with_name(f"peers-{kind}")
    folder = folder or default
    found = folder / "bin" / "python"
    if found.exists() and (folder != default or (folder / "whole").is_file()):
        return found
    from toolkit import pins

    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    if over_this:
        site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
        (site / "beside.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    packages = pins.table().raw["peers"][kind]["packages"]
    subprocess.run([str(found), "-m", "pip", "install", "--quiet", *packages], check=True)
    (folder / "whole").touch()
    return found
