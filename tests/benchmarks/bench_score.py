"""Five-shot exam questions against lm-eval's Hugging Face engine: the same prompts, model and torch, side by side.

The model is a random Llama of 58 M parameters, 25 M of them outside its embeddings, with 32,000 rows of vocabulary; the
questions are real (MedQA) where ../shared/data is there and made up elsewhere, all behind the same five demonstrations.
Both score the letters A to D as the next token, each in a process of its own, with one thread. CPU-seconds are those
from the loaded model to the last log-probability, tokenizing included; the whole processes' are shown beside them.

    python tests/benchmarks/bench_score.py --peers FOLDER [--questions 100] [--repeat 1] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.benchmarks import peers  # noqa: E402

BAR_CPU, BAR_MEMORY, BAR_APART, BAR_TOKENS = 4.5, 1 / 3, 1e-4, 1.1
SHOTS, SEED = 5, 1234
_REAL = ROOT.parent / "shared" / "data" / "medqa" / "us_4_options_first150.jsonl"


def questions(n: int) -> list[dict[str, Any]]:
    """`n` + `SHOTS` rows of MedQA's form."""
    if _REAL.is_file():
        rows = [json.loads(line) for line in _REAL.read_text(encoding="utf-8").splitlines()]
        if len(rows) >= n + SHOTS:
            return rows[: n + SHOTS]
    from toolkit.corpus import world_words

    rng = random.Random(0)
    words = sorted({word for name in dir(world_words) for word in _texts(getattr(world_words, name))})
    made = []
    for _ in range(n + SHOTS):
        text = " ".join(rng.choices(words, k=rng.randint(60, 220))).capitalize()
        options = {letter: " ".join(rng.choices(words, k=rng.randint(1, 6))) for letter in "ABCD"}
        made.append({"question": f"{text}?", "options": options, "answer_idx": rng.choice("ABCD"), "meta_info": "made"})
    return made


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, (list, tuple)) else ()
    return [word for text in values if isinstance(text, str) for word in text.split() if word.isalpha()]


def prepare(folder: Path, n: int) -> None:
    """A model, its tokenizer, the questions and what demonstrations come from, below `folder`."""
    import torch
    import transformers

    from toolkit import tokenizer

    rows = questions(n)
    texts = [f"Question: {row['question']}\n{' '.join(row['options'].values())}\nAnswer: A B C D" for row in rows]
    tokenizer.train(texts, folder / "model", vocab_size=4000)
    shape = {"vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8}
    shape |= {"num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 4096}
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
    model.save_pretrained(folder / "model")
    for name, part in (("test.jsonl", rows[:n]), ("train.jsonl", rows[n:])):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")


def ours(folder: Path, out: Path) -> None:
    """Score in this process; what lm-eval is to be asked goes beside it."""
    from tests.memory import peak_kib
    from toolkit import scoring
    from toolkit.scoring import demonstrations, prompts

    one = scoring.series.open_set(scoring.benchmarks.get("medqa4"), folder, shots=SHOTS)
    engine = scoring.engines.load(folder / "model")
    _ = engine.loaded
    before = time.process_time()
    options = {"model": engine, "items": one.items, "benchmark": one.spec, "pool": one.pool}
    score = scoring.score(**options, mode="letter", shots=SHOTS, seed=SEED)
    took, whole, peak = time.process_time() - before, time.process_time(), peak_kib()
    drawn = demonstrations.by_group(one.spec, one.items, one.pool, shots=SHOTS, seed=SEED)
    asked = []
    for item in one.items:
        shown = {"demonstrations": drawn[item.group], "instruction": one.spec.instruction}
        prompt = prompts.build(item, mode="letter", **shown)
        asked.append({"prompt": prompt.text, "answers": [forms[0] for forms in prompt.answers]})
    (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    found = {
        "logprobs": [[forms[0] for forms in prediction.forms] for prediction in score.predictions],
        "cpu_s": took,
        "whole_cpu_s": whole,
        "peak_kib": peak,
        "tokens": score.tokens,
        "unique_tokens": score.unique_tokens,
    }
    out.write_text(json.dumps(found), encoding="utf-8")


def best(argv: list[str], out: Path, repeat: int) -> dict[str, Any]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    env["PYTHONWARNINGS"] = "ignore"
    runs = []
    for _ in range(repeat):
        subprocess.run(argv, check=True, env=env, stdout=subprocess.DEVNULL)
        runs.append(json.loads(out.read_text(encoding="utf-8")))
    return min(runs, key=lambda run: run["cpu_s"])


def measure(folder: Path, n: int, repeat: int, peer: Path) -> dict[str, Any]:
    prepare(folder, n)
    mine = best([sys.executable, __file__, "--ours", str(folder)], folder / "ours.json", repeat)
    script = Path(__file__).with_name("lm_eval_scores.py")
    words = [str(peer), str(script), str(folder / "model"), str(folder / "asked.json"), str(folder / "theirs.json")]
    theirs = best(words, folder / "theirs.json", repeat)
    pairs = list(zip(mine["logprobs"], theirs["logprobs"], strict=True))
    apart = max(abs(a - b) for ours, others in pairs for a, b in zip(ours, others, strict=True))
    return {
        "questions": n,
        "real": _REAL.is_file(),
        "cpu_s": {"this": mine["cpu_s"], "lm-eval": theirs["cpu_s"]},
        "whole_cpu_s": {"this": mine["whole_cpu_s"], "lm-eval": theirs["whole_cpu_s"]},
        "peak_mib": {"this": mine["peak_kib"] / 1024, "lm-eval": theirs["peak_kib"] / 1024},
        "cpu_ratio": theirs["cpu_s"] / mine["cpu_s"],
        "memory_ratio": mine["peak_kib"] / theirs["peak_kib"],
        "same_choices": sum(a.index(max(a)) == b.index(max(b)) for a, b in pairs),
        "apart": apart,
        "tokens_ratio": mine["tokens"] / mine["unique_tokens"],
        "tokens": mine["tokens"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="environment with lm-eval (default: one is made below runs/)")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=1, help="best of N")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        ours(args.ours, args.ours / "ours.json")
        return 0
    peer = peers.python(args.peers, "scoring", over_this=True)
    with tempfile.TemporaryDirectory(prefix="bench-score-") as folder:
        found = measure(Path(folder), args.questions, args.repeat, peer)
    held = found["cpu_ratio"] >= BAR_CPU and found["memory_ratio"] <= BAR_MEMORY and found["apart"] <= BAR_APART
    held = held and found["tokens_ratio"] <= BAR_TOKENS and found["same_choices"] == found["questions"]
    if args.json:
        print(json.dumps({**found, "held": held}, indent=2))
        return 0 if held else 1
    kind = "real" if found["real"] else "made-up"
    print(f"{found['questions']} {kind} questions behind {SHOTS} demonstrations, best of {args.repeat}, one thread")
    for name in ("this", "lm-eval"):
        print(
            f"{name:8} {found['cpu_s'][name]:7.1f} CPU-s  ({found['whole_cpu_s'][name]:.1f} with start and loading)"
            f"  {found['peak_mib'][name]:6.0f} MiB at most"
        )
    less, memory, more = found["cpu_ratio"], found["memory_ratio"], found["tokens_ratio"]
    print(
        f"{less:.2f} times fewer CPU-seconds (bar {BAR_CPU}), {memory:.2f} of its memory (bar {BAR_MEMORY:.2f}),"
        f" {found['tokens']} tokens, {more:.3f} of those that differ (bar {BAR_TOKENS})"
    )
    same, n, apart = found["same_choices"], found["questions"], found["apart"]
    print(f"the same choice on {same} of {n}, log-probabilities apart by at most {apart:.1e} (bar {BAR_APART})")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
