"""Tokenizing into shards against Megatron's loop and against Hugging Face's tokenizers: whole processes, side by side.

The text is half real (documentation and manuals of this machine) and half medical (word pairs of real abstracts and
exam questions where ../shared/data is there, of the invented pharmacopoeia elsewhere, with made-up names, numbers and
corpus tags). The tokenizer is trained on it: Llama-2's kind and size (32,000 pieces, bytes, single digits) and the
paper's 17 tokens. Megatron-LM's preprocess_data.py is on no package index; `megatron_loop.py` is its loop, over
megatron-core's own writer, and its bytes must be the same. Runs alternate, the best of N counts. Memory is the sum over
all processes, looked at in runs of their own, on the text once and twice over.

    python tests/benchmarks/bench_shards.py [--mb 200] [--repeat 3] [--folder FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
BAR_MEGATRON, BAR_TOKENIZERS, BAR_WORKER, BAR_MIB = 12, 6, 1.5, 512
_REAL = ("/usr/share/doc", "/usr/share/man/man*", "/usr/share/perl", "/usr/lib/python3")
_SUFFIXES = {"", ".gz", ".txt", ".md", ".rst", ".html", ".pod", ".py"}
_TAGS = ("[bib_ref]", "[/bib_ref]", "[fig_ref]", "[/fig_ref]", "[formula]", "[table]")
# `tokenizers` at its best: lines in batches, both cores, no Python list of ids but the one it returns.
_TOKENIZERS = """
import json, sys
import numpy as np
from tokenizers import Tokenizer
source, out, folder = sys.argv[1:]
tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
with open(out, "wb") as made, open(source, encoding="utf-8") as lines:
    batch = []
    def flush():
        for one in tokenizer.encode_batch(batch, add_special_tokens=False):
            made.write(np.array([*one.ids, 32002], dtype=np.uint16).tobytes())
        batch.clear()
    for line in lines:
        batch.append(json.loads(line)["text"])
        if len(batch) == 500:
            flush()
    flush()
"""


def real(limit: int) -> Iterator[str]:
    """Documentation found on this machine, so many bytes of it where there is so much."""
    left = limit
    for folder in (*_REAL, str(Path(sys.prefix, "lib"))):
        for root in sorted(Path("/").glob(folder.lstrip("/"))):
            for path in sorted(root.rglob("*")):
                if path.suffix not in _SUFFIXES or path.is_symlink() or not path.is_file():
                    continue
                try:
                    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
                    text = data.decode()
                except (OSError, EOFError, ValueError, gzip.zlib.error):  # type: ignore[attr-defined]
                    continue
                if not 200 < len(text) < 400_000:
                    continue
                yield text
                left -= len(data)
                if left < 0:
                    return


def words(rng: random.Random) -> list[str]:
    """Words of real medical text in their order, or of invented one."""
    found: list[str] = []
    for path in sorted((ROOT.parent / "shared" / "data").rglob("*")):
        if path.is_file() and path.suffix in {".jsonl", ".json", ".xml", ".nxml", ".txt", ".csv"}:
            text = path.read_text(encoding="utf-8", errors="ignore")[:8_000_000]
            found += re.sub(r'<[^>]+>|[{}"\[\]]', " ", text).split()
    if not found:
        from toolkit.corpus.world import World, WorldOptions

        world = World(WorldOptions(entities=400, held_out=200))
        found = [word for document in world.documents() for word in document.text.split()]
    return found


def medical(limit: int, rng: random.Random) -> Iterator[str]:
    known = words(rng)
    after: dict[str, list[str]] = {}
    for left, right in zip(known, known[1:], strict=False):
        after.setdefault(left, []).append(right)
    left = limit
    while left > 0:
        word, text = rng.choice(known), []
        for _ in range(rng.randint(100, 2500)):
            dice = rng.random()
            if dice < 0.02:
                word = f"{rng.uniform(0, 500):.{rng.randint(0, 3)}f}"
            elif dice < 0.03:
                letters = "".join(rng.choices("abcdefghilmnoprstuvxyz", k=rng.randint(4, 9)))
                word = letters + rng.choice(("mab", "nib", "olol", "pril", "statin"))
            elif dice < 0.04:
                word = rng.choice((*_TAGS, "β", "α-", "µg/mL", "≥", "±"))
            else:
                word = rng.choice(after.get(word, known))
            text.append(word + ("\n\n" if word.endswith(".") and rng.random() < 0.15 else ""))
        joined = " ".join(text)
        left -= len(joined.encode())
        yield joined


def prepare(folder: Path, nbytes: int) -> tuple[Path, Path]:
    """The text as JSONL, and the tokenizer."""
    from toolkit import tokenizer

    rng = random.Random(1)
    texts = [*real(nbytes // 2)]
    texts += medical(nbytes - sum(len(text.encode()) for text in texts), rng)
    rng.shuffle(texts)
    tokenizer.train((text[:20_000] for text in texts[::6]), folder / "base", vocab_size=32_000)
    tokenizer.extend(folder / "base", folder / "tokenizer")
    with open(folder / "text.jsonl", "w", encoding="utf-8") as out:
        for n, text in enumerate(texts):
            # As text comes: some writers escape what is not ASCII, some do not.
            out.write(json.dumps({"id": f"doc-{n}", "text": text}, ensure_ascii=n % 2 == 0) + "\n")
    return folder / "text.jsonl", folder / "tokenizer"


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds of the whole process, and the processor seconds of it and its children."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    took, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak_mib(command: list[str]) -> float:
    """The largest sum of the resident memory of a process and its children, looked at every 20 ms."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0.0
    while process.poll() is None:
        most = max(most, sum(_resident(pid) for pid in _tree(process.pid)))
        time.sleep(0.02)
    assert process.returncode == 0, command
    return most / 2**20


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def measure(folder: Path, nbytes: int, repeat: int) -> dict[str, Any]:
    source, tokenizer = prepare(folder, nbytes)

    def ours(workers: int, *inputs: Path) -> list[str]:
        build = [sys.executable, "-m", "toolkit.shards", "build", *map(str, inputs or (source,)), "--merge"]
        return [*build, "-o", str(folder / "ours"), "--tokenizer", str(tokenizer), "--workers", str(workers)]

    loop = [sys.executable, str(Path(__file__).with_name("megatron_loop.py")), str(source), str(folder / "megatron")]
    peer = [sys.executable, "-c", _TOKENIZERS, str(source), str(folder / "tokenizers.bin"), str(tokenizer)]
    jobs = {
        "this, 1 worker": ours(1),
        "this, 2 workers": ours(2),
        "Megatron's loop, 2 workers": [*loop, "--tokenizer", str(tokenizer), "--workers", "2", "--append-eod"],
        "tokenizers.encode_batch": peer,
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for _ in range(repeat):
        for name, command in jobs.items():
            seen[name].append(timed(command))
    best = {name: min(wall for wall, _ in times) for name, times in seen.items()}
    this = best["this, 2 workers"]
    again = folder / "again.jsonl"
    again.hardlink_to(source)
    made = [(folder / f"{name}{end}").read_bytes() for end in (".bin", ".idx") for name in ("ours", "megatron")]
    return {
        "mb": source.stat().st_size / 1e6,
        "repeat": repeat,
        "seconds": best,
        "cpu_seconds": {name: min(cpu for _, cpu in times) for name, times in seen.items()},
        "megatron": best["Megatron's loop, 2 workers"] / this,
        "tokenizers": best["tokenizers.encode_batch"] / this,
        "second_worker": best["this, 1 worker"] / this,
        "equal": made[0] == made[1] and made[2] == made[3],
        "peak_mib": peak_mib(ours(2)),
        "peak_mib_twice": peak_mib(ours(2, source, again)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=200, help="of text (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (default: a new one)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-shards-") as folder:
        found = measure(Path(folder), args.mb * 10**6, args.repeat)
    bars = {"megatron": BAR_MEGATRON, "tokenizers": BAR_TOKENIZERS, "second_worker": BAR_WORKER}
    held = found["equal"] and all(found[name] >= bar for name, bar in bars.items())
    held = held and max(found["peak_mib"], found["peak_mib_twice"]) <= BAR_MIB
    if args.json:
        print(json.dumps({**found, "held": held}, indent=2))
        return 0 if held else 1
    print(f"{found['mb']:.0f} MB of JSONL, whole processes, best of {found['repeat']}")
    for name, seconds in found["seconds"].items():
        cpu = found["cpu_seconds"][name]
        print(f"{name:<28} {seconds:7.2f} s  {found['mb'] / seconds:6.1f} MB/s  {cpu:7.2f} CPU-s")
    same = "are equal to Megatron's byte for byte" if found["equal"] else "DIFFER from Megatron's"
    print(
        f"Megatron's loop takes {found['megatron']:.1f} times as long (bar {BAR_MEGATRON}), tokenizers"
        f" {found['tokenizers']:.1f} (bar {BAR_TOKENIZERS}), one worker {found['second_worker']:.2f} (bar"
        f" {BAR_WORKER}); .bin and .idx {same}"
    )
    print(
        f"memory of all processes: {found['peak_mib']:.0f} MiB, {found['peak_mib_twice']:.0f} MiB on the text twice"
        f" over (bar {BAR_MIB})"
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
