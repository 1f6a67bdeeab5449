"""lm-eval's Hugging Face engine on prompts and answers from a file; run by a Python that has lm-eval.

    python lm_eval_scores.py MODEL QUESTIONS.json OUT.json

QUESTIONS is a list of {"prompt", "answers"}; OUT gets a list of log-probabilities for each, the CPU-seconds of that
alone and of the whole process, and its peak memory.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main(model: str, questions: str, out: str) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=model, device="cpu", dtype="float32", batch_size=8, add_bos_token=False)
    rows = json.loads(Path(questions).read_text(encoding="utf-8"))
    asked = [
        Instance(request_type="loglikelihood", doc={}, arguments=(row["prompt"], answer), idx=number)
        for row in rows
        for number, answer in enumerate(row["answers"])
    ]
    before = time.process_time()
    told = iter(lm.loglikelihood(asked, disable_tqdm=True))
    took = time.process_time() - before
    values = [[next(told)[0] for _ in row["answers"]] for row in rows]
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    found = {"logprobs": values, "cpu_s": took, "whole_cpu_s": time.process_time(), "peak_kib": peak}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
