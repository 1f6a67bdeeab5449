"""A model's score on a benchmark: what is asked, what is known already, and what a reader must be told with the number.

Decides the course of a scoring; leaves items, prompts, engines, the store and what an answer is to their modules.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import tokenizer
from toolkit.errors import CheckpointError, DataError, UsageError, nearest
from toolkit.progress import progress
from toolkit.scoring import demonstrations, engines, judge, paper_compat, prompts
from toolkit.scoring.benchmarks import MODES, Benchmark, size_notes
from toolkit.scoring.encode import Request, request
from toolkit.scoring.engines import Engine, How, Told, Words
from toolkit.scoring.engines.hf import Transformers
from toolkit.scoring.hf import LoadedModel
from toolkit.scoring.items import Item
from toolkit.scoring.scores import Prediction, Score
from toolkit.scoring.store import Kept, Store, digest
from toolkit.stats import bootstrap_ci, wilson

if TYPE_CHECKING:
    from toolkit.scoring.chat import Chat

SAMPLES, TEMPERATURE, MAX_TOKENS = paper_compat.BRANCHES, paper_compat.TEMPERATURE, 1024
OWN = "own"
_HOW = ("temperature", "max_tokens", "seed", "penalty")
_SPEC = ("name", "split", "answers", "instruction", "cloze", "demonstrate")


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """How a benchmark is asked, all of which decides what an engine tells."""

    mode: str
    shots: int
    seed: int
    compat: bool
    bos: bool
    chat: str
    samples: int
    temperature: float
    max_tokens: int
    penalty: float

    @property
    def spoken(self) -> bool:
        return self.mode in ("cot", "sc_cot")

    def key(self) -> dict[str, Any]:
        """What the store tells questions apart by; a seed that decides nothing is left out."""
        found: dict[str, Any] = {"mode": self.mode, "shots": self.shots, "compat": self.compat, "bos": self.bos}
        if self.shots or self.mode == "sc_cot":
            found["seed"] = self.seed
        if self.spoken:
            found["sampling"] = [self.samples, self.temperature, self.max_tokens, self.penalty]
        return found | {"chat": self.chat}


def score(
    *,
    model: Path | str | LoadedModel | Engine,
    items: Sequence[Item],
    benchmark: Benchmark,
    mode: str | None = None,
    shots: int = 0,
    pool: Sequence[Item] = (),
    seed: int = 0,
    compat: bool = False,
    chat: Chat | str | None = OWN,
    samples: int | None = None,
    temperature: float | None = None,
    max_tokens: int = MAX_TOKENS,
    batch_tokens: int = 8192,
    limit: int | None = None,
    limit_seed: int = 0,
    bos: bool = False,
    name: str | None = None,
    store: Store | None = None,
) -> Score:
    """Score `model` (an engine, an HF folder, or one loaded by `load_model`) on `items`.

    letter: the likeliest letter (or yes, no, maybe) next, the probabilities of its surface forms summed. cloze: the
    option whose text is likeliest after the prompt, by mean or sum over its tokens as the benchmark says. cot: one
    text, the likeliest token each time, and the answer that it arrives at. sc_cot: the majority of `samples` texts
    (default 5) at `temperature` (default 0.8). `shots` demonstrations come from `pool`, drawn by `seed`, which also
    seeds the samples. `chat`: `own` takes the model's chat template where it has one, except for cloze. `compat` takes
    the released code's ways (`paper_compat.CHOICES`). `limit` takes that many items at random, drawn by `limit_seed`.
    With a `store`, what it holds is not asked again. Raises UsageError, DataError, CheckpointError, ServerError.
    """
    asked = _asked(benchmark, mode, shots, seed, compat, bos, samples, temperature, max_tokens)
    for what, number in (("limit", limit), ("batch_tokens", batch_tokens), ("max_tokens", max_tokens)):
        if number is not None and number < 1:
            raise UsageError(f"{what} must be at least 1, not {number}")
    if not items:
        raise DataError(f"no items of benchmark '{benchmark.name}' to score")
    if twice := [name for name, n in Counter(item.id for item in items).items() if n > 1]:
        raise DataError(f"the id '{twice[0]}' appears twice among the items of '{benchmark.name}'")
    notes = size_notes(benchmark, items)
    engine = _engine(model, batch_tokens)
    talk = _chat(engine, chat, asked.mode)
    asked = dataclasses.replace(
        asked, chat=digest([talk.template, talk.special, *filter(None, [talk.opening])])[:16] if talk else ""
    )
    drawn: Mapping[str, Sequence[Item]] = {}
    if shots:
        options = {"shots": shots, "seed": seed, "mode": asked.mode, "compat": compat}
        drawn = demonstrations.by_group(benchmark, items, pool, **options)

    def build(item: Item, shown: Sequence[Item]) -> prompts.Prompt:
        words = {"mode": asked.mode, "instruction": benchmark.instruction, "compat": compat, "chat": talk}
        return prompts.build(item, demonstrations=shown, **words)

    whole = [build(item, drawn.get(item.group, ())) for item in items]
    spec = {key: getattr(benchmark, key) for key in _SPEC}
    told = [[prompt.shared, prompt.own, prompt.answers, prompt.stop] for prompt in whole]
    sha256 = digest([spec, [dataclasses.asdict(item) for item in items], told])
    hashes = {item.id: digest([prompt.text, prompt.answers]) for item, prompt in zip(items, whole, strict=True)}
    key = {"model": engine.fingerprint, "engine": engine.name, "as_text": engine.folder is None}
    key |= {"benchmark": benchmark.name, "benchmark_sha256": sha256, **asked.key()}
    kept = Kept(key) if store is None else store.open(key)
    if limit is not None and limit < len(items):
        notes.append(f"{limit} of {len(items)} items, drawn at random with seed {limit_seed}")
        items = [items[i] for i in sorted(random.Random(limit_seed).sample(range(len(items)), limit))]
    missing = frozenset(
        i for i, item in enumerate(items) if kept.rows.get(item.id, {}).get("prompt_sha256") != hashes[item.id]
    )
    before = dataclasses.replace(engine.work)
    with progress(f"score {benchmark.name}", total=len(items), unit="items") as bar:
        bar.skip(len(items) - len(missing))
        if missing:
            stop = tuple(dict.fromkeys(s for prompt in whole for s in prompt.stop))
            _ask(engine, asked, items, missing, build, drawn, hashes, stop, kept, talk, bar.advance)
    about = kept.about or _about(engine)
    made = {f.name: getattr(engine.work, f.name) - getattr(before, f.name) for f in dataclasses.fields(before)}
    rows = [kept.rows[item.id] for item in items]
    judged = {"benchmark": benchmark, "mode": asked.mode, "compat": compat, "shots": shots}
    predictions = tuple(judge.prediction(item, row, **judged) for item, row in zip(items, rows, strict=True))
    right = [p.correct for p in predictions]
    groups = _groups(predictions)
    cuts = Counter(row.get("cut", "") for row in rows)
    return Score(
        model=name or engine.model,
        benchmark=benchmark.name,
        title=benchmark.title,
        mode=asked.mode,
        accuracy=sum(right) / len(items),
        correct=sum(right),
        n=len(items),
        invalid=sum(not p.valid for p in predictions),
        chance=math.fsum(1 / len(item.options) for item in items) / len(items),
        ci95=wilson(sum(right), len(items)),
        ci95_bootstrap=bootstrap_ci(list(map(float, right))),
        mean_gold_logprob=_mean(
            [p.logprobs[item.gold] for p, item in zip(predictions, items, strict=True) if p.logprobs]
        ),  # fmt: skip
        groups=groups,
        macro=_mean([group["accuracy"] for group in groups.values()]),
        also=_also(benchmark, items, rows) if asked.mode == "cloze" else {},
        paper=benchmark.paper,
        shots=shots,
        seed=seed,
        compat=compat,
        chat=("messages" if talk.name == "messages" else "template") if talk else "",
        bos=bos,
        samples=asked.samples if asked.spoken else None,
        temperature=asked.temperature if asked.spoken else None,
        max_tokens=asked.max_tokens if asked.spoken else None,
        agreement=_mean([p.agreement for p in predictions if p.agreement is not None]),
        engine=engine.name,
        engine_version=about["engine_version"],
        model_sha256=engine.fingerprint,
        benchmark_sha256=sha256,
        device=about["device"],
        dtype=about["dtype"],
        batch_tokens=getattr(engine, "batch_tokens", None),
        model_calls=made["asks"],
        tokens=made["tokens"],
        unique_tokens=made["unique_tokens"],
        kept=len(items) - len(missing),
        cut_shots=sum("dropped" in row for row in rows),
        cut_contexts=cuts["context"],
        cut_prompts=cuts["prompt"],
        notes=(*notes, *_reading_notes(about, rows, predictions), *about["notes"]),
        predictions=predictions,
    )


def _asked(
    benchmark: Benchmark, mode: str | None, shots: int, seed: int, compat: bool, bos: bool, samples: int | None,
    temperature: float | None, max_tokens: int,
) -> _Asked:  # fmt: skip
    mode = mode or benchmark.mode
    if mode not in MODES:
        raise UsageError(f"unknown mode '{mode}'", do=nearest(mode, MODES))
    if shots < 0:
        raise UsageError(f"shots must be at least 0, not {shots}")
    if mode != "sc_cot" and (samples not in (None, 1) or temperature not in (None, 0.0)):
        raise UsageError(f"mode {mode} draws no samples", do="choose mode sc_cot, or leave samples and temperature out")
    if samples is not None and samples < 1:
        raise UsageError(f"samples must be at least 1, not {samples}")
    if temperature is not None and not 0 <= temperature <= 10:
        raise UsageError(f"temperature must be from 0 to 10, not {temperature}")
    drawn = mode == "sc_cot"
    return _Asked(
        mode=mode,
        shots=shots,
        seed=seed,
        compat=compat,
        bos=bos,
        chat="",
        samples=(SAMPLES if samples is None else samples) if drawn else 1,
        temperature=(TEMPERATURE if temperature is None else temperature) if drawn else 0.0,
        max_tokens=max_tokens,
        penalty=paper_compat.FREQUENCY_PENALTY if compat else 0.0,
    )


def _engine(model: Path | str | LoadedModel | Engine, batch_tokens: int) -> Engine:
    if isinstance(model, LoadedModel):
        return Transformers(model, batch_tokens=batch_tokens)
    if isinstance(model, (str, Path)):
        return engines.load(model, batch_tokens=batch_tokens)
    return model


def _chat(engine: Engine, chat: Chat | str | None, mode: str) -> Chat | None:
    if chat == OWN:
        if mode == "cloze" or engine.folder is None:
            return None
        from toolkit.scoring import chat as chats

        return chats.of(engine.folder)
    if isinstance(chat, str):
        raise UsageError(f"unknown chat '{chat}'", do=nearest(chat, (OWN,)))
    return chat


def _ask(
    engine: Engine, asked: _Asked, items: Sequence[Item], missing: frozenset[int],
    build: Callable[[Item, Sequence[Item]], prompts.Prompt], drawn: Mapping[str, Sequence[Item]],
    hashes: Mapping[str, str], stop: Sequence[str], kept: Kept, talk: Chat | None, advance: Callable[[int], None],
) -> None:  # fmt: skip
    """Ask for what is missing, and keep each item's answer as it comes."""
    words, window = _words(engine, talk), engine.window
    if asked.bos and (words is None or words.bos_id is None):
        raise UsageError("the tokenizer has no beginning-of-sequence token", where=engine.model, do="leave bos out")
    if words is None and asked.mode == "cloze":
        raise UsageError("mode cloze needs the model's tokenizer", where=engine.model, do="give --tokenizer FOLDER")
    options = {"letters": asked.mode == "letter", "bos": asked.bos, "new_tokens": asked.max_tokens * asked.spoken}
    wanted = [request(words, window, item, build, drawn.get(item.group, ()), **options) for item in items]
    asks = [one.ask for one in wanted]
    kept.tell(_about(engine))
    if asked.spoken:
        how = How(n=asked.samples, stop=tuple(stop), **{f: getattr(asked, f) for f in _HOW})
        found: Any = engine.generate(asks, missing, how)
    else:
        found = engine.logprobs(asks, missing)
    for place, told in found:
        _check(engine, wanted[place], told)
        kept.add(judge.row(wanted[place], hashes[items[place].id], told))
        advance(1)
    kept.tell(_about(engine))


def _about(engine: Engine) -> dict[str, Any]:
    about = {"engine_version": engine.version, "device": engine.device, "dtype": engine.dtype}
    return about | {"window": engine.window, "notes": list(engine.notes)}


def _words(engine: Engine, talk: Chat | None) -> Words | None:
    """The engine's, to which a chat's control tokens are tokens. Those of Hugging Face's own tokenizers always are."""
    words = engine.words
    if words is None or talk is None or engine.folder is None or not (engine.folder / tokenizer.MODEL).is_file():
        return words
    from toolkit.scoring import chat as chats

    own = tokenizer.load(engine.folder)
    return dataclasses.replace(words, encode=lambda text: chats.encode(own, text, talk.special))


def _check(engine: Engine, one: Request, told: Told | Sequence[str]) -> None:
    values = [value for form in told.logprobs for value in form] if isinstance(told, Told) else []
    if not all(math.isfinite(value) for value in values):
        raise CheckpointError(
            f"log-probabilities that are not finite numbers at item '{one.item.id}'",
            where=engine.model,
            why="the weights hold NaN or infinite values, or overflow in this precision",
        )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _also(benchmark: Benchmark, items: Sequence[Item], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Cloze accuracy by the likelihood that did not decide."""
    other = {"mean": "sum", "sum": "mean"}[benchmark.cloze]
    values = [judge.cloze_means(row)[other] for row in rows]
    right = sum(max(range(len(v)), key=v.__getitem__) == i.gold for v, i in zip(values, items, strict=True))
    return {other: right / len(items)}


def _groups(predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
    n, right = Counter(p.group for p in predictions), Counter(p.group for p in predictions if p.correct)
    if len(n) < 2:
        return {}
    return {name: {"accuracy": right[name] / n[name], "correct": right[name], "n": n[name]} for name in sorted(n)}


def _reading_notes(
    about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], predictions: Sequence[Prediction]
) -> list[str]:
    window = f"the model's window of {about.get('window')} tokens"
    dropped = Counter(row["dropped"] for row in rows if "dropped" in row)
    split = "items whose answers share their first token, judged by all of their tokens"
    counts = {
        f"prompts longer than {window} that lost demonstrations ({dropped and max(dropped)} at most)": dropped.total(),
        f"contexts longer than {window}, their middle left out": sum(row.get("cut") == "context" for row in rows),
        f"prompts longer than {window} even without context, their beginning cut": sum(
            row.get("cut") == "prompt" for row in rows
        ),
        split: sum("whole" in row for row in rows),
        "items of which some answers are only bounded": sum(bool(p.bounded) for p in predictions),
        "items with several equally likely answers, the first taken": sum(
            p.valid and p.logprobs.count(max(p.logprobs)) > 1 for p in predictions if p.logprobs
        ),
        "items without a valid answer, counted as wrong": sum(not p.valid for p in predictions),
    }
    return [f"{what}: {number}" for what, number in counts.items() if number]
