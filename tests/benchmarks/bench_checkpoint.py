"""Converting checkpoints against `cp` of the same bytes, and against Megatron-Bridge: time and memory, side by side.

A Llama-shaped model of random bf16 weights is imported, and exported from checkpoints as one rank and as two ranks
(TP=2) would save them; between, `cp` copies the same files and flushes them to the disk, as a conversion does. Best of
N of each counts. Memory is the peak of the process (VmHWM). The bars are ratios: 1.3 (1.5 from TP=2) of cp, 128 MB.

    python tests/benchmarks/bench_checkpoint.py --size 2.4GB --repeat 3
    python tests/benchmarks/bench_checkpoint.py --size 13.5GB --cold   (drops the page cache before each; root)
    python tests/benchmarks/bench_checkpoint.py --bridge FOLDER        (makes an environment with Megatron-Bridge there,
                                                                       2 GB, where there is none yet)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BAR, BAR_TP, BAR_MIB = 1.3, 1.5, 128
BAR_BRIDGE_TIME, BAR_BRIDGE_MEMORY = 5, 30
_LLAMA = {"model_type": "llama", "hidden_act": "silu", "max_position_embeddings": 4096, "rope_theta": 1e4}
_LLAMA |= {"rms_norm_eps": 1e-5, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1}
_LLAMA |= {"architectures": ["LlamaForCausalLM"], "eos_token_id": 2, "vocab_size": 32000}
SIZES = {
    "2.4GB": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16}
    | {"num_key_value_heads": 4},
    "13.5GB": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"num_key_value_heads": 32},  # Llama-2-7B
}
# A conversion in a process of its own: its seconds without the start of Python, and its peak.
_RUN = """
import json, sys, time
from pathlib import Path
from toolkit import checkpoint
verb, source, out, config = sys.argv[1], *map(Path, sys.argv[2:5])
begin = time.perf_counter()
if verb == "import":
    checkpoint.import_hf(source, out, progress=False)
else:
    checkpoint.export_hf(source, out, config=config, progress=False)
took = time.perf_counter() - begin
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"s": took, "mib": peak / 1024, "torch": "torch" in sys.modules}))
"""


def make_hf(folder: Path, config: dict[str, Any]) -> None:
    """A Hugging Face folder of that shape with random weights."""
    import numpy as np

    from toolkit import files
    from toolkit.checkpoint import hf, mapping, tensorfile
    from toolkit.checkpoint.shape import shape_of

    folder.mkdir(parents=True)
    files.write_json(folder / "config.json", config)
    named = mapping.hf_tensors(shape_of(config)).items()
    made = hf.shards([tensorfile.Spec(name=n, dtype="bfloat16", dims=d) for n, d in named], 5 * 10**9)
    hf.write_index(folder, made)
    noise = np.random.default_rng(1).standard_normal(32 << 20, dtype="f4") * np.float32(0.02)
    words = (noise.view("<u4") >> 16).astype("<u2").tobytes()
    for name, specs in made:
        with open(folder / name, "wb") as handle:
            handle.write(tensorfile.header(specs)[0])
            for n, spec in enumerate(specs):
                left, begin = spec.nbytes, 2 * (n * 7919 % 100_000)
                while left:
                    left -= handle.write(words[begin : begin + left])
                    begin = 0


def split(source: Path, out: Path) -> None:
    """The checkpoint as two ranks (TP=2) save it: rows of qkv, fc1 and the vocabulary, columns of proj and fc2."""
    import zlib

    from toolkit.checkpoint import distcp, importing, mapping
    from toolkit.checkpoint.pieces import BLOCK, Files, Matrix, Piece, blocks, write
    from toolkit.checkpoint.shape import read_shape

    shape, reader, layout = read_shape(source / importing.HF_CONFIG), distcp.Reader(source), distcp.Layout()
    for row, layer in mapping.walk(shape):
        key = importing.PREFIX + row.megatron
        entry = reader.metadata.tensors[key]
        dims = entry.dims if layer is None else entry.dims[1:]
        if len(dims) == 1:
            boxes = [((0,), dims)]
        elif row.megatron.endswith(("linear_proj.weight", "linear_fc2.weight")):
            boxes = [((0, n * dims[1] // 2), (dims[0], dims[1] // 2)) for n in range(2)]
        else:
            parts = 4 if row.fuse == "rows" else 2
            boxes = [((n * dims[0] // parts, 0), (dims[0] // parts, dims[1])) for n in range(parts)]
        layout.add(key, entry.dtype, dims, layer=layer, layers=shape.layers, boxes=boxes)
    weights = out / distcp.WEIGHTS
    weights.mkdir(parents=True)
    with Files() as opened:
        for name in layout.sizes:
            fd = os.open(weights / name, os.O_RDWR | os.O_CREAT)
            for chunk in layout.chunks(name):
                whole = reader.matrix(chunk.key, opened, layer=chunk.layer)
                (first, *column), (rows, *columns) = chunk.offsets, chunk.sizes
                item = whole.row_bytes // (columns and reader.metadata.tensors[chunk.key].dims[-1] or 1)
                width, left = (columns[0] if columns else 1) * item, (column[0] if column else 0) * item
                piece = whole.pieces[0]
                begin = piece.begin + first * piece.stride + left
                part = Piece(file=piece.file, begin=begin, stride=piece.stride, row=0, rows=rows, column=0, width=width)
                frame, crc, at = chunk.frame, 0, chunk.begin + chunk.frame.head_bytes
                for _, block in blocks(Matrix(rows=rows, row_bytes=width, pieces=(part,)), opened, bytearray(BLOCK)):
                    crc = zlib.crc32(block, crc)
                    write(fd, block, at)
                    at += len(block)
                head, tail = frame.around(crc)
                write(fd, head, chunk.begin)
                write(fd, tail, at)
            os.close(fd)
    layout.finish(weights)
    shutil.copy(source / importing.HF_CONFIG, out)


def copied(source: Path, out: Path) -> dict[str, float]:
    """`cp` and a flush of what it wrote."""
    begin = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(out)], check=True)
    subprocess.run(["sync", *(str(path) for path in out.rglob("*") if path.is_file())], check=True)
    return {"s": time.perf_counter() - begin}


def converted(verb: str, source: Path, out: Path, config: Path) -> dict[str, float]:
    words = [sys.executable, "-c", _RUN, verb, str(source), str(out), str(config)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=env, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert not found["torch"], "a conversion has imported torch"
    return found


def measure(root: Path, repeat: int, cold: bool) -> dict[str, Any]:
    hf, one, two = root / "hf", root / "tp1", root / "tp2"
    config = one / "hf_config.json"
    converted("import", hf, one, config)
    split(one, two)
    jobs: dict[str, Callable[[], dict[str, float]]] = {
        "cp of the HF folder": lambda: copied(hf, root / "out"),
        "import": lambda: converted("import", hf, root / "out", config),
        "cp of the checkpoint": lambda: copied(one, root / "out"),
        "export": lambda: converted("export", one, root / "out", config),
        "export of TP=2": lambda: converted("export", two, root / "out", config),
    }
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
    for _ in range(repeat):
        for name, job in jobs.items():
            shutil.rmtree(root / "out", ignore_errors=True)
            os.sync()
            if cold:
                Path("/proc/sys/vm/drop_caches").write_text("3")
            seen[name].append(job())
    shutil.rmtree(root / "out", ignore_errors=True)
    best = {name: min(each["s"] for each in rows) for name, rows in seen.items()}
    peak = {name: max(each.get("mib", 0.0) for each in rows) for name, rows in seen.items()}
    nbytes = sum(path.stat().st_size for path in hf.iterdir())
    rows = []
    for name, peer, bar in (
        ("import", "cp of the HF folder", BAR),
        ("export", "cp of the checkpoint", BAR),
        ("export of TP=2", "cp of the checkpoint", BAR_TP),
    ):
        ratio = best[name] / best[peer]
        row = {"job": name, "s": best[name], "gb_s": nbytes / 1e9 / best[name], "cp_s": best[peer], "ratio": ratio}
        rows.append({**row, "bar": bar, "peak_mib": peak[name], "held": ratio <= bar and peak[name] <= BAR_MIB})
    return {"bytes": nbytes, "cold": cold, "repeat": repeat, "rows": rows}


def bridge_python(folder: Path) -> Path:
    """The Python of an environment with Megatron-Bridge, made from the pins in env/versions.yaml if there is none."""
    from toolkit import pins

    python, peer = folder / "bin" / "python", pins.table().raw["peers"]["bridge"]
    if (folder / "whole").is_file():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    alone = [f"{name}=={version}" for name, version in peer["no_deps"].items()]
    for words in ([f"torch=={peer['torch']}"], ["--no-deps", *alone], peer["packages"]):
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *words], check=True)
    (folder / "whole").touch()
    return python


def against_bridge(root: Path, folder: Path, repeat: int) -> dict[str, Any]:
    """The export of the TP=1 checkpoint beside Bridge's of the same, in turn; both are compared bit for bit."""
    from toolkit import checkpoint

    python, hf, source = bridge_python(folder), root / "hf", root / "tp1"
    ours, theirs = [], []
    for _ in range(repeat):
        for out in ("ours", "theirs"):
            shutil.rmtree(root / out, ignore_errors=True)
        os.sync()
        ours.append(converted("export", source, root / "ours", hf))
        os.sync()
        words = [str(python), str(Path(__file__).with_name("bridge_export.py")), hf, source, root / "theirs"]
        done = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)
        theirs.append(json.loads(done.stdout.rpartition("RESULT ")[2].splitlines()[0]))
    shutil.copy(root / "ours" / "config.json", root / "theirs")
    best, peer = (min(each["s"] for each in rows) for rows in (ours, theirs))
    memory, large = (max(each["mib"] for each in rows) for rows in (ours, theirs))
    found = {"s": best, "bridge_s": peer, "faster": peer / best, "mib": memory, "bridge_mib": large}
    found["leaner"], found["equal"] = large / memory, checkpoint.diff(root / "ours", root / "theirs").equal
    held = found["equal"] and found["faster"] >= BAR_BRIDGE_TIME and found["leaner"] >= BAR_BRIDGE_MEMORY
    return {**found, "held": held}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="2.4GB")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each run")
    parser.add_argument("--folder", type=Path, help="where to work; room for five times the size (default: a new one)")
    parser.add_argument(
        "--bridge", type=Path, metavar="FOLDER", help="an environment with Megatron-Bridge, or where to make it"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        make_hf(Path(folder, "hf"), {**_LLAMA, **SIZES[args.size]})
        found = measure(Path(folder), args.repeat, args.cold)
        if args.bridge is not None:
            found["bridge"] = against_bridge(Path(folder), args.bridge.absolute(), args.repeat)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"{found['bytes'] / 1e9:.1f} GB, {'cold' if args.cold else 'warm'}, best of {args.repeat}")
        for row in found["rows"]:
            print(
                f"{row['job']:<16} {row['s']:7.2f} s  {row['gb_s']:5.2f} GB/s  cp {row['cp_s']:7.2f} s"
                f"  ratio {row['ratio']:.2f} (bar {row['bar']})  peak {row['peak_mib']:.0f} MiB (bar {BAR_MIB})"
            )
        if bridge := found.get("bridge"):
            print(
                f"Megatron-Bridge  {bridge['bridge_s']:7.2f} s, {bridge['bridge_mib']:.0f} MiB: this is"
                f" {bridge['faster']:.1f} times faster (bar {BAR_BRIDGE_TIME}), {bridge['leaner']:.0f} times leaner"
                f" (bar {BAR_BRIDGE_MEMORY}), {'equal bit for bit' if bridge['equal'] else 'NOT EQUAL'}"
            )
    held = [row["held"] for row in [*found["rows"], *([found["bridge"]] if "bridge" in found else [])]]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
