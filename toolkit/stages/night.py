"""Stage night: a part exports a checkpoint and scores it; the whole compares what is new with the last good night.

Decides what a night leaves: scores in the history, verdicts, pages and `outcome.json`; a checkpoint that cannot be
exported or scored is noted with its reason and stops nobody. What the gate holds to be worse is `scoring`'s.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from toolkit import checkpoint, files, scoring
from toolkit.errors import CheckpointError, GateFailed
from toolkit.night import History, Scored
from toolkit.recipe.schema import Due, Night, Recipe
from toolkit.report import nights
from toolkit.scoring import gate as gates
from toolkit.stages import parts, score
from toolkit.stages.context import Context, Result

OUTCOME = "outcome.json"
KEPT = score.KEPT
_MOST_ITEMS = 200  # of a checkpoint's items that the page shows
_QUESTION = 600


def part(context: Context, number: int) -> Mapping[str, Any]:
    """Export and score one checkpoint, and take its scores into the history."""
    out = context.part(number) / parts.OUT
    out.mkdir(exist_ok=True)
    if number >= len(_night(context).checkpoints):  # nothing to score: this night only judges
        return {}
    one, history, digest = _night(context).checkpoints[number], History(_night(context).history), asked(context.recipe)
    name, fingerprint = f"step={one.step}", files.stat_fingerprint(one.path)
    known = next((k for k in history.scored(one.series) if k.name == name), None)
    if known is None or (known.fingerprint, known.asked) != (fingerprint, digest):
        history.started(one.series, name, night=context.run.id, fingerprint=fingerprint, path=one.path, step=one.step)
        made = score.sets(context)  # a file that is missing is not the checkpoint's fault
        try:
            scored = _scored(context, number, one, made)
        except CheckpointError as err:
            history.failed(one.series, name, str(err))
            files.write_json(out / "failed.json", {"series": one.series, "step": one.step, "why": str(err)})
            print(f"{one.series} {name} is left out: {err}", flush=True)
            return {"left out": 1}
        facts = {"path": one.path, "step": one.step, "fingerprint": fingerprint, "asked": digest}
        history.keep(one.series, name, scored, facts={**facts, "night": context.run.id})
        known = next(k for k in history.scored(one.series) if k.name == name)
    files.write_json(out / "scored.json", {"series": one.series, "step": one.step})
    return score.figures(known.rows)


def run(context: Context) -> Result:
    """Judge what has scores and no verdict yet. Raises `GateFailed` when a checkpoint is worse."""
    made = parts.all_of(context, parts.finished(context))
    history, digest, told = History(_night(context).history), asked(context.recipe), []
    failed = [files.read_json(out / "failed.json") for out in made if (out / "failed.json").is_file()]
    texts = _questions(context)
    for series in _series(context, history, digest):
        told.append(_judged(context, history, series, digest, texts))
        pages(history, series)
    worse = [one for row in told for one in row["checkpoints"] if one["state"] == "worse"]
    outcome = {
        "night": context.run.id,
        "run": str(context.run.path),
        "worse": bool(worse),
        "series": told,
        "failed": failed,
        "ended": time.time(),
    }
    files.write_json(context.folder / OUTCOME, outcome)
    if worse:
        where = {row["series"]: row["page"] for row in told}
        names = ", ".join(f"{one['series']} step {one['step']}" for one in worse)
        raise GateFailed(
            f"scores are worse than those of the last good night: {names}",
            where=context.run.path,
            why="; ".join(line for one in worse for line in one["lines"]),
            do=f"see {' and '.join(dict.fromkeys(where[one['series']] for one in worse))}",
        )
    figures = {"judged": sum(len(row["checkpoints"]) for row in told), "left out": len(failed)}
    return Result(outputs={"outcome": context.folder / OUTCOME}, figures=figures)


def asked(recipe: Recipe) -> str:
    """What checkpoints are scored on, as a digest: benchmarks, their files' contents, and how they are asked."""
    told = dataclasses.asdict(recipe.score)
    told.pop("batch_tokens")
    for key in ("paths", "train_paths"):
        told[key] = {name: files.fingerprint(path) for name, path in sorted(told[key].items())}
    told["specs"] = [dataclasses.asdict(scoring.benchmarks.get(name)) for name in recipe.score.benchmarks]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def to_judge(history: History, series: str, digest: str) -> list[Scored]:
    """Checkpoints with scores for what is asked now that no night has judged, newer than the last good one."""
    good = history.good(series)
    return [
        one
        for one in history.scored(series)
        if one.asked == digest and one.verdict is None and (good is None or one.step > good.step)
    ]


def pages(history: History, series: str) -> Path:
    """Write the page of a training anew, and the page that names them all; returns the former."""
    path = nights.page(history.place(series), history_of(history, series))
    nights.index(history.folder, [history_of(history, name) for name in history.series()])
    return path


def history_of(history: History, series: str) -> dict[str, Any]:
    """A training's history as plain values: what its page is drawn from."""
    good = history.good(series)
    return {
        "series": series,
        "good": good.step if good else None,
        "checkpoints": [
            {"step": one.step, "at": one.at, "night": one.night, "path": one.path, "scores": one.rows,
             "verdict": dict(one.verdict) if one.verdict else None}
            for one in history.scored(series)
        ],
        "tried": [
            {"step": one.step, "path": one.path, "tries": one.number, "why": one.reason}
            for one in sorted(history.tries(series).values(), key=lambda one: one.step)
        ],
    }  # fmt: skip


def _night(context: Context) -> Night:
    assert context.recipe.night is not None
    return context.recipe.night


def _scored(context: Context, number: int, one: Due, made: list[scoring.series.Set]) -> Path:
    """A folder with the checkpoint's scores, made of an HF model that is not kept. What was answered before a stop is
    not asked again.
    """
    model, out = context.part(number) / "hf", context.part(number) / "scores"
    store, label = scoring.Store(context.part(number) / score.STORE), f"{one.series} step {one.step}"
    checkpoint.export_hf(
        Path(one.path), model, config=Path(one.config), tokenizer=Path(one.tokenizer), vocab_size=one.vocab
    )
    score.score_folder(context, model, name=label, out=out, store=store, made=made)
    shutil.rmtree(model)
    return out


def _series(context: Context, history: History, digest: str) -> Iterable[str]:
    """Trainings that this night has to do with: those of its checkpoints, and what an earlier night left unjudged."""
    own = [one.series for one in _night(context).checkpoints]
    left = [name for name in history.series() if to_judge(history, name, digest) or _mine(context, history, name)]
    return dict.fromkeys([*own, *left])


def _mine(context: Context, history: History, series: str) -> list[Scored]:
    """What this night judged before it was stopped."""
    return [one for one in history.scored(series) if one.verdict and one.verdict.get("night") == context.run.id]


def _judged(
    context: Context, history: History, series: str, digest: str, texts: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """Verdicts on a training's new checkpoints, all against the same one: that of the last good night, or where there
    is none the first of them.
    """
    gate, good = _night(context).gate, history.good(series)
    if good is not None and good.asked != digest:  # other benchmarks than then: nothing to compare
        good = None
    before = next((one.verdict["reference"] for one in _mine(context, history, series) if one.verdict), None)
    if before is not None:  # stopped half way: the same reference again
        good = next((one for one in history.scored(series) if one.name == before), good)
    told, newest = [], good
    for one in to_judge(history, series, digest):
        verdict: dict[str, Any] = {"night": context.run.id, "reference": good.name if good else None}
        if good is None:
            good = one
            verdict |= {"state": "first", "worse": False, "rows": [], "items": [], "lines": []}
        else:
            found = gates.judge(good.folder, one.folder, min_drop=gate.min_drop, alpha=gate.alpha)
            verdict |= {"state": "worse" if found.worse else "good", **_plain(found, texts)}
        history.judge(one, verdict)
        if verdict["state"] != "worse":
            newest = one
    if newest is not None:
        history.set_good(newest)
    for one in _mine(context, history, series):
        assert one.verdict is not None
        kept = {key: one.verdict[key] for key in ("state", "reference", "rows", "items", "lines")}
        scores = {f"{row['benchmark']} {row['mode']}": row.get("mean", row.get("accuracy")) for row in one.rows}
        told.append({"series": series, "step": one.step, "scores": scores, **kept})
    return {"series": series, "page": str(history.place(series) / "page.html"), "checkpoints": told}


def _plain(found: gates.Verdict, texts: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    told = found.as_dict()
    items = [
        {**item, "question": texts.get((str(item.get("benchmark")), str(item.get("id"))), "")[:_QUESTION]}
        for item in told["items"]
    ]
    return {
        "worse": found.worse,
        "rows": told["rows"],
        "items": items[:_MOST_ITEMS],
        "more_items": max(0, len(items) - _MOST_ITEMS),
        "lines": [_line(row) for row in told["rows"] if row.get("worse")],
    }


def _line(row: Mapping[str, Any]) -> str:
    before, after = row["before"], row["after"]
    return (
        f"{row['benchmark']} ({row['mode']}) {100 * before:.1f} % -> {100 * after:.1f} % "
        f"on {row['n']} questions, p = {row['p_adjusted']:.2g}"
    )


def _questions(context: Context) -> dict[tuple[str, str], str]:
    """The questions' own words, for the page."""
    return {(each.spec.name, item.id): item.question for each in score.sets(context) for item in each.items}
