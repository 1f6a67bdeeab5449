"""A template filled in, and written whole or not at all. Decides that every foreign value is harmless and escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit import __version__, files
from toolkit.errors import MissingPackage, RunError
from toolkit.report.values import text

_TEMPLATES = Path(__file__).parent / "template"


def render(template: str, **values: Any) -> str:
    """The page as HTML text. Raises `MissingPackage`."""
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as err:
        raise MissingPackage(
            "jinja2 is not installed", do="install the toolkit's report extra, or run it in its image"
        ) from err
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else text(value),
    )
    style = Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, version=__version__, **values)


def write(path: Path, body: str) -> Path:
    """Raises `RunError` where the page cannot be written, `DiskFull` for a full disk."""
    if path.is_dir():
        raise RunError("the page cannot be written over a folder", where=path, do="name another place with -o")
    try:
        files.write_text(path, body)
    except OSError as err:
        raise RunError(
            f"the page cannot be written: {err.strerror}", where=path, do="name another place with -o"
        ) from err
    return path
