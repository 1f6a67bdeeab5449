"""Benchmarks as tasks of lm-evaluation-harness: their files, and what that harness makes of them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from tests.benchmarks import peers
from tests.scoring import original_files as made
from tests.scoring.conftest import save_llama
from toolkit import cli
from toolkit.errors import DiskFull, UsageError
from toolkit.score import __main__ as verbs
from toolkit.scoring import Benchmark, Item, benchmarks, demonstrations, lm_eval, prompts
from toolkit.scoring.benchmarks import get

HOSTILE = '<b>Which</b> {{ 7 * 7 }} {% raw %} "drug"\u2028 \\n, {0} is it'


def medqa4(n: int = 12) -> list[Item]:
    """Questions with markup, quotes, template braces and a line separator in them."""
    return [
        Item(
            id=f"m{i}",
            question=f"{HOSTILE} ({i})?",
            options=("<i>w</i>", "{{ x }}", "y\ty", "'z'"),
            gold=i % 4,
            group="step1",
        )
        for i in range(n)
    ]


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def contexts(folder: Path, task: str) -> list[tuple[str, list[str]]]:
    """(context, choices) of each item as the task's own files say, the way that harness puts them together."""
    spec = yaml.safe_load((folder / f"{task}.yaml").read_text(encoding="utf-8"))
    assert (spec["description"], spec["doc_to_text"], spec["target_delimiter"]) == ("{{head}}", "text", "")
    files = spec["dataset_kwargs"]["data_files"]
    shown = rows(Path(files["demonstrations"]))[: spec["num_fewshot"]] if spec["num_fewshot"] else []
    before = "".join(d["text"] + d["choices"][d["gold"]] + spec["fewshot_delimiter"] for d in shown)
    return [(row["head"] + before + row["text"], row["choices"]) for row in rows(Path(files["test"]))]


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("mode", lm_eval.MODES)
@pytest.mark.parametrize("shots", [0, 2])
def test_the_files_say_the_prompts_that_we_score(tmp_path: Path, mode: str, shots: int, compat: bool):
    spec, items = get("medqa4"), medqa4()
    shown = demonstrations.by_group(spec, items[2:], items[:2], shots=shots, seed=1)
    options = {"mode": mode, "compat": compat}
    name = lm_eval.export(tmp_path, spec, items[2:], demonstrations=shown, seed=1, **options)
    group = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())
    assert group["group"] == name and len(group["task"]) == 1
    asked = [
        prompts.build(item, instruction=spec.instruction, demonstrations=shown["step1"], **options)
        for item in items[2:]
    ]
    wanted = [(prompt.text, [forms[0] for forms in prompt.answers]) for prompt in asked]
    assert contexts(tmp_path, group["task"][0]) == wanted


def test_a_task_for_each_group_that_has_its_own_demonstrations(tmp_path: Path):
    spec = get("mmlu_medical")
    folder = made.mmlu(tmp_path / "mmlu")
    items, pool = benchmarks.load(spec, folder), demonstrations.pool(spec, folder)
    shown = demonstrations.by_group(spec, items, pool, shots=5, seed=1234)
    name = lm_eval.export(tmp_path / "tasks", spec, items, demonstrations=shown, seed=1234)
    group = yaml.safe_load((tmp_path / "tasks" / f"{name}.yaml").read_text())
    assert len(group["task"]) == 9 and group["aggregate_metric_list"][0]["weight_by_size"] is True
    assert sum(len(contexts(tmp_path / "tasks", task)) for task in group["task"]) == 1871
    assert lm_eval.export(tmp_path / "pooled", spec, items) == "meditron_mmlu_medical_letter_0shot"


def test_what_cannot_be_exported_and_a_disk_that_is_full(tmp_path: Path):
    with pytest.raises(UsageError, match="mode 'cot' cannot be exported"):
        lm_eval.export(tmp_path, get("medqa4"), medqa4(), mode="cot")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(DiskFull):
            lm_eval.export(tmp_path / "full", get("medqa4"), medqa4(4000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in (tmp_path / "full").rglob("*") if path.is_file()]  # nothing half written


def export(*argv: object) -> int:
    return cli.run(verbs.main, ["export-lm-eval", *map(str, argv)])


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture):
    test = made.medqa(tmp_path / "phrases_no_exclude_test.jsonl", ["A", "D", "B"], 4)
    made.medqa(tmp_path / "train.jsonl", ["C"] * 9, 4)
    assert export("--benchmark", "medqa4", "--path", test, "--shots", 7, "-o", tmp_path / "out") == 1
    assert "7 are asked for, and the pool has 6" in capsys.readouterr().err  # three of the nine are scored
    rows = [json.loads(line) | {"question": f"New {i}?"} for i, line in enumerate((tmp_path / "train.jsonl").open())]
    made.lines(tmp_path / "train.jsonl", rows)
    assert export("--benchmark", "medqa4", "--path", test, "--shots", 2, "-o", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == ["meditron_medqa4_letter_2shot_seed1234"]
    assert export("--benchmark", "medqa4", "--path", test, "--paper-compat", "-o", tmp_path / "out") == 0
    assert "--tasks meditron_medqa4_letter_0shot_compat --include_path" in capsys.readouterr().out
    text = (tmp_path / "out" / "meditron_medqa4_letter_0shot_compat_all" / "items.jsonl").read_text()
    assert "A to E" in text  # as the paper's instruction has it
    assert export("--path", f"medqa4={test}", "--mode", "cloze", "-o", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == ["meditron_medqa4_cloze_0shot"]
    assert export("--path", test, "-o", tmp_path / "out") == 2 and "names none" in capsys.readouterr().err
    assert export("--benchmark", "medqa4", "-o", tmp_path / "out") == 1
    assert "does not say where its file is" in capsys.readouterr().err


# --- that harness itself


@pytest.fixture(scope="module")
def harness() -> Path:
    """A Python that has lm-eval, made once below runs/; skips where its packages cannot be had."""
    try:
        return peers.python(None, "scoring", over_this=True)
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f"no environment with lm-eval: {err}")


def told(python: Path, model: Path, tasks: Sequence[str], folder: Path) -> tuple[dict, dict[str, list[dict]]]:
    """Results and samples by task of lm-eval's own command line, which may not use the network."""
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    argv = [python, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--batch_size", "8", "--log_samples"]
    argv += ["--model_args", f"pretrained={model},dtype=float32,add_bos_token=False", "--tasks", ",".join(tasks)]
    argv += ["--include_path", folder, "--output_path", folder / "out"]
    done = subprocess.run([str(a) for a in argv], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (json.loads(path.read_text()) for path in (folder / "out").rglob("results_*.json"))
    samples = {
        path.name.split("_20")[0].removeprefix("samples_"): rows(path) for path in (folder / "out").rglob("samples_*")
    }
    return results["results"], samples


@pytest.mark.slow
def test_that_harness_reads_the_tasks_and_finds_the_same_numbers(harness: Path, tmp_path: Path, tokenizer_folder: Path):
    """Contexts and choices are ours letter by letter, log-probabilities within 1e-4, choices and accuracies equal."""
    from toolkit import scoring

    model = scoring.load_model(save_llama(tmp_path / "llama", tokenizer_folder, max_position_embeddings=2048))
    studies = [
        Item(
            id=f"s{i}",
            question=f"Does {i} do?",
            context=f"We saw <p>{i}</p>.",
            options=("yes", "no", "maybe"),
            gold=i % 3,
            listed=False,
        )
        for i in range(8)
    ]
    subjects = [
        Item(
            id=f"{g}{i}", question=f"Question {i} of {g}?", options=(f"w {i}", "x", "y", "z"), gold=(i * i) % 4, group=g
        )
        for g in ("anatomy", "virology")
        for i in range(8)
    ]
    cases: list[tuple[Benchmark, Sequence[Item], Sequence[Item], str, int]] = [
        (get("medqa4"), medqa4()[4:], medqa4()[:4], "letter", 3),
        (get("medqa4"), medqa4(), [], "cloze", 0),
        (get("pubmedqa"), studies, [], "letter", 0),
        (get("mmlu_medical"), subjects[3:8] + subjects[11:], subjects[:3] + subjects[8:11], "letter", 2),
    ]
    ours: dict[str, tuple[scoring.Score, Mapping[str, Sequence[Item]], Benchmark, Sequence[Item]]] = {}
    for spec, items, pool, mode, shots in cases:
        shown = demonstrations.by_group(spec, items, pool, shots=shots, seed=7)
        name = lm_eval.export(tmp_path / "tasks", spec, items, mode=mode, demonstrations=shown, seed=7)
        done = scoring.score(model=model, items=items, benchmark=spec, pool=pool, mode=mode, shots=shots, seed=7)
        ours[name] = done, shown, spec, items
    results, samples = told(harness, tmp_path / "llama", list(ours), tmp_path / "tasks")
    for name, (done, shown, spec, items) in ours.items():
        group = yaml.safe_load((tmp_path / "tasks" / f"{name}.yaml").read_text())
        theirs = {sample["doc"]["id"]: sample for task in group["task"] for sample in samples[task]}
        assert len(theirs) == len(items) == done.n
        right = 0
        for item, found in zip(items, done.predictions, strict=True):
            sample = theirs[item.id]
            asked = sample["arguments"]  # a list of pairs, or in later versions an object of objects
            pairs = [
                [a["arg_0"], a["arg_1"]] if isinstance(a, dict) else a
                for a in (asked.values() if isinstance(asked, dict) else asked)
            ]
            prompt = prompts.build(item, mode=done.mode, instruction=spec.instruction, demonstrations=shown[item.group])
            assert pairs == [[prompt.text, forms[0]] for forms in prompt.answers]
            values = [float(answer[0][0]) for answer in sample["resps"]]
            mine = [forms[0] for forms in found.forms] if done.mode == "letter" else list(found.sums)
            assert mine == pytest.approx(values, abs=1e-4)
            assert max(range(len(mine)), key=mine.__getitem__) == max(range(len(values)), key=values.__getitem__)
            right += max(range(len(values)), key=values.__getitem__) == item.gold
        assert results[name]["acc,none"] == pytest.approx(right / len(items))
