"""Puts a run's record, words and figures into the template and writes the page whole or not at all.

Decides which sections there are, the head of the page and how to repeat the run; `sections` decides what is in them.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from toolkit.report import read, rendering, speed, words
from toolkit.report.paper import tables
from toolkit.report.read import Record
from toolkit.report.settings import data_parallel, lookup, settings, step_tokens
from toolkit.report.values import clock, count, duration, moment, plain, text

_BLOCK = 60_000
_RELOAD_S = 15


def build(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of the run folder `run` to `out` (default: `report.html` in the folder); returns its path.

    Raises `RunError` for a folder that is no run or an `out` that cannot be written, `DiskFull` for a full disk.
    """
    return write(read.read(run), out)


def write(record: Record, out: str | Path | None = None) -> Path:
    path = Path(out) if out is not None else record.root / "report.html"
    return rendering.write(path, render(record))


def summary(record: Record) -> dict[str, Any]:
    """State, verdict and notes, for other programs."""
    line, doubt = words.verdict(record)
    code, state = words.state(record)
    return {
        "run": record.run, "state": code, "state_in_words": state, "verdict": line, "doubt": doubt,
        "notes": list(record.notes),
    }  # fmt: skip


def render(record: Record) -> str:
    """The page as HTML text. Every value from the run folder passes `text` and the template's escaping."""
    return rendering.render("page.html.j2", **_context(record))


def _context(record: Record) -> dict[str, Any]:
    from toolkit.report import nodes, promised
    from toolkit.report.sections import absent, landmarks_70b, score_table, stage_rows, training

    recipe, manifest = record.recipe, record.manifest
    line, doubt = words.verdict(record)
    code, state = words.state(record)
    name = recipe.get("name") or manifest.get("recipe") or "recipe unknown"
    return {
        "run": record.run,
        "name": text(name, 80),
        "title": text(recipe.get("title") or name, 200),
        "state": {"code": code, "words": state},
        "reload_s": _RELOAD_S if words.running(record) else None,
        "created": clock(moment(manifest.get("created"))) if moment(manifest.get("created")) else "",
        "verdict": _unbroken(line),
        "doubt": _unbroken(doubt),
        "tiles": _tiles(record),
        "notes": record.notes,
        "paper": {"title": tables()["title"], "url": tables()["url"]},
        "scores": [score_table(index, table) for index, table in enumerate(words.tables(record))],
        "scores_page": (record.root / "scores.html").is_file(),
        "no_scores": absent(record, "score", "scores"),
        "trainings": [
            training(record, record.pretrain, "pretrain", "continued pretraining"),
            training(record, record.finetune, "finetune", "finetuning"),
        ],
        "landmarks_70b": landmarks_70b(record),
        "promise": promised.section(record),
        "preflight": nodes.section(record),
        "stages": stage_rows(record.stages),
        "outputs": [stage for stage in record.stages if stage.outputs],
        "settings": settings(recipe),
        "recipe_text": _block(record.recipe_text),
        "manifest": _manifest(manifest),
        "manifest_text": _block(record.manifest_text),
        "reproduce": _reproduce(manifest),
    }


def _block(body: str) -> Any:
    from markupsafe import escape

    return escape(text(body, _BLOCK))


def _unbroken(line: str) -> str:
    return line.replace(" %", "\u00a0%").replace(" \u2192", "\u00a0\u2192")


def _tiles(record: Record) -> list[tuple[str, str, str]]:
    """(label, value, smaller words) of the few figures that sum up a run."""
    out: list[tuple[str, str, str]] = []
    ends = words.first_and_last(record.pretrain)
    if ends:
        out.append(("Pretraining loss", f"{plain(ends[0], 2)} \u2192 {plain(ends[1], 2)}", f"{ends[2]:,} steps logged"))
    valid = record.pretrain.finite("valid_loss")
    if valid:
        out.append(("Validation loss", plain(valid[-1][1]), f"at step {valid[-1][0]:,}"))
    if record.pretrain.steps and step_tokens(record.recipe):
        steps = max(record.pretrain.steps[-1], len(record.pretrain.steps))
        out.append(
            (
                "Tokens trained on",
                count(steps * step_tokens(record.recipe)),
                f"{count(step_tokens(record.recipe))} a step",
            )
        )
    rate = speed.median(record.pretrain, "tokens_per_s")
    if rate is not None:
        out.append(("Speed", count(rate), "tokens/s, median"))
    sizes = [lookup(record.recipe, f"parallel.{name}") for name in ("tp", "pp")]
    if all(isinstance(size, int) and 0 < size < 10**6 for size in sizes):
        dp = data_parallel(record.recipe)
        shape = [size for size in (*sizes, dp) if size is not None]
        out.append(("Layout", " \u00d7 ".join(map(str, shape)), "tp \u00d7 pp" + (" \u00d7 dp" if dp else "")))
    times = [stage.elapsed_s for stage in record.stages if stage.elapsed_s is not None and stage.elapsed_s >= 0]
    if times:
        out.append(("Time in stages", duration(sum(times)), f"{len(times)} stage{'s' if len(times) > 1 else ''}"))
    return out


def _pairs(value: Any, limit: int = 200) -> list[tuple[str, Any]]:
    return list(value.items())[:limit] if isinstance(value, dict) else []


def _manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    git = manifest.get("git") if isinstance(manifest.get("git"), dict) else {}
    commit = git.get("commit") if isinstance(git.get("commit"), str) else None
    dirty = bool(git.get("dirty"))
    rows = [
        ("run", manifest.get("run")),
        ("created", clock(moment(manifest.get("created"))) if manifest.get("created") else None),
        ("command", _command(manifest)),
        ("git commit", f"{commit}{', with uncommitted changes' if dirty else ''}" if commit else None),
        ("host", manifest.get("host")),
        ("Python", manifest.get("python")),
    ]
    return {
        "there": bool(manifest),
        "rows": [(label, value) for label, value in rows if value not in (None, "")],
        "versions": _pairs(manifest.get("versions")),
        "data": _pairs(manifest.get("data")),
    }


def _command(manifest: dict[str, Any]) -> str:
    command = manifest.get("command")
    if isinstance(command, list) and command:
        return shlex.join(str(part) for part in command)
    return command if isinstance(command, str) else ""


def _reproduce(manifest: dict[str, Any]) -> dict[str, Any]:
    git = manifest.get("git") if isinstance(manifest.get("git"), dict) else {}
    commit, command = git.get("commit"), _command(manifest)
    lines = [f"git checkout {shlex.quote(text(commit, 64))}"] if isinstance(commit, str) and commit else []
    return {
        "lines": _block("\n".join([*lines, command])) if command else None,
        "dirty": bool(git.get("dirty")),
        "data": bool(manifest.get("data")),
    }
