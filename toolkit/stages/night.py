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
from toolkit.errors import CheckpointError, DataError, GateFailed, UsageError
from toolkit.night import History, Scored
from toolkit.recipe.schema import Due, Night, Recipe
from toolkit.report import nights
from toolkit.scoring import gate as gates
from toolkit.scoring.compare import compare
from toolkit.stages import parts, score
from toolkit.stages.context import Context, Result

OUTCOME = "outcome.json"
STATES = ("first", "good", "worse")
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
    judged = [one for row in told for one in row["checkpoints"]]
    worse = [one for one in judged if one["state"] == "worse"]
    outcome = {
        "night": context.run.id,
        "run": str(context.run.path),
        "worse": bool(worse),
        "series": told,
        "failed": failed,
        "doubts": [f"{one['series']} step {one['step']}: {note}" for one in judged for note in one["notes"]],
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
    figures = {"judged": len(judged), "left out": len(failed)}
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
    """Checkpoints with scores for what is asked now that no night has judged, newer than the last good one. What a
    night said that did not come to its end was told to nobody: it is judged again.
    """
    good = history.good(series)
    return [
        one
        for one in history.scored(series)
        if one.asked == digest
        and (one.verdict is None or not history.recorded(one.verdict.get("night")))
        and (good is None or one.step > good.step)
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
    left = [name for name in history.series() if to_judge(history, name, digest) or untold(history, name)]
    return dict.fromkeys([*own, *left])


def untold(history: History, series: str) -> list[Scored]:
    """What was judged by this night, or by one that was stopped before it could tell."""
    ones = [one for one in history.scored(series) if one.verdict and one.verdict.get("state") in STATES]
    return [one for one in ones if one.verdict and not history.recorded(one.verdict.get("night"))]


def _judged(
    context: Context, history: History, series: str, digest: str, texts: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """Verdicts on a training's new checkpoints, all against the same one: that of the last good night, or where there
    is none the first of them.
    """
    good, notes = history.good(series), list[str]()
    if good is not None and good.asked != digest:
        notes = [_apart(good, "its scores are of other benchmarks, or of another way to ask them")]
        good = None
    before = next((one.verdict.get("reference") for one in untold(history, series) if one.verdict), None)
    again = [one for one in history.scored(series) if one.name == before and one.asked == digest]
    if again:  # stopped half way: the same reference again
        good, notes = again[0], []
    told, newest, gate = [], None, _night(context).gate
    for one in to_judge(history, series, digest):
        found = None
        if good is not None:
            try:
                found = compare(good.folder, one.folder)
            except (DataError, UsageError) as err:  # its file is damaged, or the prompts are not what they were
                notes, good = [_apart(good, str(err))], None
        verdict: dict[str, Any] = {"night": context.run.id, "reference": good.name if good else None}
        if good is None or found is None:
            good = one
            verdict |= {"state": "first", "worse": False, "rows": [], "items": [], "lines": [], "notes": notes}
        else:
            said = gates.verdict(found, min_drop=gate.min_drop, alpha=gate.alpha)
            verdict |= {"state": "worse" if said.worse else "good", **_plain(said, texts)}
        notes = []
        history.judge(one, verdict)
        if verdict["state"] != "worse":
            newest = one
    if newest is not None:
        history.set_good(newest)
    for one in untold(history, series):
        assert one.verdict is not None
        if one.verdict.get("night") != context.run.id:
            history.judge(one, {**one.verdict, "night": context.run.id})
        kept = {key: one.verdict.get(key) for key in ("state", "reference")}
        kept |= {key: one.verdict.get(key) or [] for key in ("rows", "items", "lines", "notes")}
        scores = {f"{row['benchmark']} {row['mode']}": row.get("mean", row.get("accuracy")) for row in one.rows}
        told.append({"series": series, "step": one.step, "scores": scores, **kept})
    return {"series": series, "page": str(history.place(series) / "page.html"), "checkpoints": told}


def _apart(good: Scored, why: str) -> str:
    return f"compared with nothing, not with the last good step {good.step}: {why}"


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
        "notes": told["notes"],
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
