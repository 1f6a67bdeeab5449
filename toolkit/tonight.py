"""A night from its beginning to its end: what is new is found, a run is made of it, submitted, and people are told.

Decides that two nights never overlap and what becomes of one that broke off; scoring and judging are the stage's.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import files, pinned_image
from toolkit.cluster.executor import check
from toolkit.errors import GateFailed, RecipeError, RunBusy, RunError, ToolkitError
from toolkit.night import Choice, Found, History, choose, hooks
from toolkit.plan import missing_inputs
from toolkit.recipe import Recipe, absolute, compose
from toolkit.recipe.rules import check as check_rules
from toolkit.runs import Run, create, find, held
from toolkit.runs.lock import holder
from toolkit.stages import watched
from toolkit.stages.night import OUTCOME, asked, pages, to_judge, untold

STAGE = "night"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tonight:
    """What was done: `run` and the ids of its `jobs` where there was something to do, `state` in a word.

    state: `nothing new`, `submitted`, `good` or `worse`; `choice` is what was found; `broken` says of the night before
    that it did not end.
    """

    state: str
    run: Path | None
    jobs: tuple[str, ...]
    choice: Choice
    notes: tuple[str, ...]
    broken: str
    history: Path

    def as_dict(self) -> dict[str, Any]:
        def rows(found: Sequence[tuple[Found, str]]) -> list[dict[str, Any]]:
            return [{**_row(one), "why": why} for one, why in found]

        return {
            "state": self.state,
            "run": str(self.run) if self.run else None,
            "jobs": list(self.jobs),
            "history": str(self.history),
            "due": [_row(one) for one in self.choice.due],
            "skipped": rows(self.choice.skipped),
            "given_up": rows(self.choice.given_up),
            "waiting": [_row(one) for one in self.choice.waiting],
            "notes": list(self.notes),
            "broken": self.broken,
        }


def recipe_of(name: str, overrides: Sequence[str]) -> Recipe:
    """The recipe of the nights, whole. Raises `RecipeError`."""
    recipe = compose(name, overrides).recipe
    if STAGE not in recipe.stages or recipe.night is None:
        raise RecipeError(f"recipe {name} has no stage night", where="stages", do="give one like recipes/nightly.yaml")
    missing = missing_inputs(recipe)
    if missing:
        named = "; ".join(f"{key} ({why})" for key, why in missing)
        raise RecipeError(f"not stated: {named}", where=recipe.name, do="give each as KEY=VALUE on the command line")
    return absolute(recipe)


def begin(recipe: Recipe, *, command: Sequence[str], wait: bool = False, quiet: bool = False) -> Tonight:
    """Score what is new and has no scores. Returns at once where Slurm has taken the jobs, unless `wait`.

    Raises `RunBusy` while another night is at work, `GateFailed` when a checkpoint is worse (people have been told
    then), and what composing, submitting and scoring raise.
    """
    assert recipe.night is not None
    check(recipe)
    history = History(recipe.night.history)
    _make(history.folder)
    try:
        with held(history.folder):
            broken = _last(history)
            fresh = _plan(recipe, history, broken)
            if isinstance(fresh, Tonight):
                return fresh
            full, choice, notes = fresh
            image = pinned_image.of(full)
            run = create(full, command=command, plan={"checkpoints": len(choice.due)}, image=image)
            history.begin(run.path)
            notes = (*notes, *_broke_off(recipe, broken, run.id))
            for one in _touched(history, choice):
                pages(history, one)
            given = {"run": run.path, "choice": choice, "notes": notes, "broken": broken, "history": history.folder}
            if recipe.cluster.executor == "slurm":
                jobs = _submit(run, wait)
                state = "good" if wait else "submitted"
                return Tonight(state=state, jobs=jobs, **given)
            _execute(run, quiet)
            return Tonight(state="good", jobs=(), **given)
    except RunBusy as err:
        if "another night" in err.what:
            raise
        why = err.why or err.what
        raise RunBusy("another night is at work", where=history.folder, why=why, do=err.do) from None


def text(done: Tonight) -> str:
    """What was done, in lines."""
    lines = [f"note: {line}" for line in (*((done.broken,) if done.broken else ()), *done.notes)]
    for words, rows in (("skipped", done.choice.skipped), ("given up", done.choice.given_up)):
        lines += [f"{words}: {one.series} step {one.step}: {why}" for one, why in rows]
    verb = "due" if done.state == "submitted" else "scored"
    lines += [f"{verb}: {one.series} step {one.step}" for one in done.choice.due]
    if done.choice.waiting:
        lines.append(f"{len(done.choice.waiting)} more wait for the next night")
    lines.append(done.state + (f": jobs {', '.join(done.jobs)}" if done.jobs else ""))
    lines += [f"run    {done.run}"] if done.run else []
    return "\n".join([*lines, f"pages  {done.history / 'index.html'}"])


def ended(run: Run, history: History | None = None) -> None:
    """Tell people of a night that has been judged, once. For the host that its last job ran on: images hold no mail.

    Whatever cannot be sent or written is noted in the night's record, or printed: the verdict stands without it.
    `history` is where its history lies now, when that is not where its recipe says.
    """
    try:
        _ended(run, history)
    except (ToolkitError, OSError, ValueError, KeyError, TypeError) as err:
        print(f"the night's record could not be made: {err}", file=sys.stderr, flush=True)


def _ended(run: Run, history: History | None) -> None:
    night, folder = run.recipe.night, run.stage(STAGE)
    if night is None or not (folder / OUTCOME).is_file():
        return
    outcome, history = files.read_json(folder / OUTCOME), history or History(night.history)
    if history.recorded(run.id):  # a job that Slurm has started again
        return
    told, event = [], "worse" if outcome["worse"] else "doubts" if _doubts(outcome) else "good"
    if event != "good" or night.hooks.always:
        told = _tell(run.recipe, *_words(outcome), {"event": event, **outcome})
    for line in told:
        print(line, file=sys.stderr, flush=True)
    began = (history.tonight() or {}).get("began")
    history.record(run.id, {"began": began, **outcome, "told": told})


def _plan(recipe: Recipe, history: History, broken: str) -> tuple[Recipe, Choice, tuple[str, ...]] | Tonight:
    """The night's own recipe, which names its checkpoints; or what to answer when there is nothing to do."""
    assert recipe.night is not None
    found, notes = watched.find_all(recipe.night.watch)
    digest = asked(recipe)
    choice = choose(found, history, asked=digest, tries=recipe.night.tries, most=recipe.night.most)
    due, unfit = [], list[tuple[Found, str]]()
    for one in choice.due:
        try:
            due.append(watched.due(one, recipe))
        except RecipeError:
            raise
        except ToolkitError as err:
            unfit.append((one, str(err)))
    gone = {one for one, _ in unfit}
    kept = tuple(one for one in choice.due if one not in gone)
    choice = dataclasses.replace(choice, due=kept, skipped=(*choice.skipped, *unfit))
    left = [series for series in history.series() if to_judge(history, series, digest) or untold(history, series)]
    if not due and not left:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for series in _touched(history, choice):
            pages(history, series)
        told = _broke_off(recipe, broken, f"nothing-{stamp}")
        record = {"began": time.time(), "state": "nothing new", "broken": broken, "told": told}
        history.record(f"nothing-{stamp}", record)
        history.over()
        return Tonight(state="nothing new", run=None, jobs=(), choice=choice, notes=tuple(notes), broken=broken,
                       history=history.folder)  # fmt: skip
    full = dataclasses.replace(recipe, night=dataclasses.replace(recipe.night, checkpoints=tuple(due)))
    check_rules(full, where=recipe.name)
    return full, choice, tuple(notes)


def _broke_off(recipe: Recipe, broken: str, night: str) -> list[str]:
    return _tell(recipe, "a night broke off", broken, {"event": "broken", "night": night}) if broken else []


def _last(history: History) -> str:
    """'' when the night before has ended, else how it broke off. Raises `RunBusy` while it is at work. One that was
    stopped between its verdict and telling people has that done here.
    """
    last = history.tonight()
    if last is None:
        return ""
    try:
        run = find(str(last.get("run")))
    except ToolkitError as err:
        gone = not Path(str(last.get("run")), "recipe.yaml").is_file()
        return "" if gone else f"{last.get('run')} cannot be read ({err}); what it scored is kept"
    folder = run.stage(STAGE)
    if (folder / OUTCOME).is_file() and run.recipe.cluster.executor != "slurm":
        ended(run, history)
        return ""
    for place in (run.path, folder, *sorted((folder / "parts").glob("[0-9]*"))):
        if (owner := holder(place)) is not None:
            why = f"process {owner.pid} on {owner.host} works on {run.path}"
            raise RunBusy("another night is at work", where=history.folder, why=why, do="wait until it has ended")
    if run.recipe.cluster.executor == "slurm":
        from toolkit import chain

        try:
            chain.refuse_active(run)
        except RunBusy as err:
            raise RunBusy("another night is at work", where=history.folder, why=err.what, do=err.do) from None
    if (folder / OUTCOME).is_file():
        ended(run, history)
        return ""
    return f"{run.id} did not come to a verdict; what it scored is kept, what it did not is tried again"


def _submit(run: Run, wait: bool) -> tuple[str, ...]:
    from toolkit import chain

    try:
        made = chain.submit(run)
    except BaseException:
        chain.discard(run)
        raise
    if wait:
        from toolkit.waiting import wait as stay

        stay(run, made)  # its last job has told people
    return tuple(one.id for one in made)


def _execute(run: Run, quiet: bool) -> None:
    from toolkit.submit import execute

    try:
        execute(run, quiet=quiet)
    except GateFailed:
        ended(run)
        raise
    ended(run)


def _tell(recipe: Recipe, subject: str, body: str, facts: dict[str, Any]) -> list[str]:
    assert recipe.night is not None
    asked_for = recipe.night.hooks
    return hooks.send(
        f"{recipe.name}: {subject}",
        body,
        facts,
        webhook_env=asked_for.webhook_env,
        mail=asked_for.mail,
        sendmail=asked_for.sendmail,
    )


def _words(outcome: dict[str, Any]) -> tuple[str, str]:
    """Subject and body of the message on a night."""
    lines = []
    for series in outcome["series"]:
        for one in series["checkpoints"]:
            scores = ", ".join(
                f"{name} {100 * value:.1f} %" for name, value in one["scores"].items() if value is not None
            )
            lines.append(f"{one['series']} step {one['step']}: {one['state']} ({scores})")
            lines += [f"  {line}" for line in (*one["lines"], *one.get("notes", ()))]
            lines += [f"  now wrong: {item['benchmark']} {item['id']}" for item in one["items"][:20]]
        lines.append(series["page"])
    lines += [f"{one['series']} step {one['step']} is left out: {one['why']}" for one in outcome["failed"]]
    said = "scores are worse" if outcome["worse"] else "not all is scored or compared" if _doubts(outcome) else ""
    return said or "scores are good", "\n".join(lines)


def _doubts(outcome: dict[str, Any]) -> bool:
    """Whether something is to be looked at in a night that found nothing worse: weights that are not finite, say."""
    return bool(outcome["failed"] or outcome.get("doubts"))


def _touched(history: History, choice: Choice) -> list[str]:
    """Trainings whose page says something new."""
    rows = (*choice.due, *(one for one, _ in (*choice.skipped, *choice.given_up)))
    known = set(history.series())
    return [series for series in dict.fromkeys(one.series for one in rows) if series in known]


def _row(one: Found) -> dict[str, Any]:
    return {"series": one.series, "step": one.step, "path": str(one.path)}


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        what = f"the history's folder cannot be made: {err.strerror}"
        raise RunError(what, where=folder, do="give another one with night.history=FOLDER") from None


__all__ = ["STAGE", "Tonight", "begin", "ended", "recipe_of"]
