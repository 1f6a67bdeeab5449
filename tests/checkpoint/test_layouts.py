"""Checkpoints as ranks of any layout write them, with optimizer state between the weights, are exported bit for bit.
And one of the 70B's size, of which only the index and the heads of its records are there.
"""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checkpoint.conftest import read_all
from toolkit import checkpoint, files, hf_folder
from toolkit.checkpoint import distcp, exporting, hf, mapping
from toolkit.checkpoint.model import MegatronModel
from toolkit.checkpoint.pieces import Files, write
from toolkit.checkpoint.shape import LlamaShape, read_shape, shape_of
from toolkit.errors import CheckpointError

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[2]

COLUMN = ("linear_proj.weight", "linear_fc2.weight")  # Megatron splits these along their columns


def boxes(row: mapping.Row, dims: tuple[int, ...], tp: int) -> list[distcp.Box]:
    """The chunks of one layer's tensor as `tp` ranks write them."""
    if len(dims) == 1:
        return [((0,), dims)]
    if row.megatron.endswith(COLUMN):
        width = dims[1] // tp
        return [((0, n * width), (dims[0], width)) for n in range(tp)]
    pieces = 2 * tp if row.fuse == "rows" else tp  # gate and up, each by rank
    rows = dims[0] // pieces
    return [((n * rows, 0), (rows, *dims[1:])) for n in range(pieces)]


@st.composite
def models(draw: st.DrawFn) -> dict:
    tp, pp = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)]))
    kv_heads = tp * draw(st.integers(1, 2))
    heads = kv_heads * draw(st.integers(1, 3))
    return {
        "tp": tp, "pp": pp, "stacked": draw(st.booleans()), "optimizer": draw(st.booleans()),
        "padding": tp * draw(st.integers(0, 3)), "shard": draw(st.sampled_from([500, 10**9])),
        "workers": draw(st.sampled_from([1, 3])), "dtype": draw(st.sampled_from(["float32", "bfloat16"])),
        "shape": {
            "layers": pp * draw(st.integers(1, 2)), "hidden": heads * 2 * draw(st.integers(1, 2)), "heads": heads,
            "kv_heads": kv_heads, "ffn": tp * draw(st.integers(1, 9)), "vocab_size": tp * draw(st.integers(1, 20)),
            "tied": draw(st.booleans()), "max_positions": 16, "seed": draw(st.integers(0, 2**31)), "tokenizer": None,
        },
    }  # fmt: skip


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(model=models())
def test_whatever_the_layout_the_model_is_the_same(tmp_path_factory: pytest.TempPathFactory, model: dict) -> None:
    from tests.checkpoint.torch_writer import Writer, tensor_of

    root, tp = tmp_path_factory.mktemp("layout"), model["tp"]
    shape = checkpoint.make_random_hf(root / "f32", **model["shape"])
    checkpoint.import_hf(root / "f32", root / "source", progress=False)
    checkpoint.export_hf(root / "source", root / "hf", config=root / "f32", dtype=model["dtype"], progress=False)
    base = hf.check_hf(root / "hf")
    (root / "step=4" / "weights").mkdir(parents=True)
    with Files() as opened, Writer(root / "step=4" / "weights", files=tp * model["pp"]) as writer:
        for row, layer in mapping.walk(shape):
            dims = row.fused_dims(shape)
            whole = torch.zeros(dims, dtype=getattr(torch, model["dtype"]))
            for name, spans in zip(row.names(layer), mapping.spans(row, shape), strict=True):
                stored = base.tensors[name]
                part = tensor_of(base.matrix(name), stored.dtype, stored.dims, opened)
                for span in spans:
                    whole[span.megatron : span.megatron + span.rows] = part[span.hf : span.hf + span.rows]
            if row.vocab:
                whole = torch.cat([whole, torch.full((model["padding"], dims[1]), 7.0, dtype=whole.dtype)])
            key = f"module.{row.megatron}"
            if layer is not None and not model["stacked"]:
                key, layer = key.replace(mapping.LAYERS, f"{mapping.LAYERS}{layer}."), None
            for offsets, sizes in boxes(row, tuple(whole.shape), tp):
                box = whole[tuple(slice(o, o + s) for o, s in zip(offsets, sizes, strict=True))]
                if layer is None:
                    writer.add(key, box, dims=whole.shape, offsets=offsets)
                else:
                    writer.add(key, box[None], dims=(shape.layers, *whole.shape), offsets=(layer, *offsets))
                if model["optimizer"]:
                    state = f"optimizer.state.exp_avg.{key}.{layer}.{offsets}"
                    writer.add(state, torch.ones(box.numel()), dims=[box.numel()], offsets=[0])
    for name, memory in (("out", 10**12), ("again", 0)):  # a model that memory holds, and one that passes through it
        with mock.patch("toolkit.checkpoint.pieces._memory_bytes", return_value=memory):
            checkpoint.export_hf(
                root / "step=4", root / name, config=root / "hf", shard_bytes=model["shard"], workers=model["workers"],
                progress=False,
            )  # fmt: skip
    assert checkpoint.diff(root / "hf", root / "out").equal
    assert checkpoint.diff(root / "step=4", root / "hf").equal
    assert files.fingerprint(root / "out") == files.fingerprint(root / "again")
    before, after = read_all(root / "hf"), read_all(root / "out")  # by the safetensors package
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


# ---- the 70B's size


LLAMA_70B = {
    "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 32017, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of Llama-2-70B at tp=8, pp=8, in bf16, with the first moments of its optimizer: true sizes, every
    record framed as it must be, and no byte of data on the disk.
    """
    root = tmp_path_factory.mktemp("large")
    shape = shape_of(LLAMA_70B)
    files.write_json(root / "config.json", LLAMA_70B)
    layout, weights = distcp.Layout(), root / "step=22999" / "weights"
    for row, layer in mapping.walk(shape):
        dims = row.fused_dims(shape)
        dims = (32768, *dims[1:]) if row.vocab else dims
        chunks = boxes(row, dims, 8)
        for key, dtype in (("module.", "bfloat16"), ("optimizer.state.exp_avg.", "float32")):
            layout.add(key + row.megatron, dtype, dims, layer=layer, layers=shape.layers, boxes=chunks)
    weights.mkdir(parents=True)
    for name, nbytes in layout.sizes.items():
        fd = os.open(weights / name, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, nbytes)
        for chunk in layout.chunks(name):
            frame = chunk.frame
            head, tail = frame.around(0)
            write(fd, head, chunk.begin)
            write(fd, tail, chunk.begin + len(head) + frame.nbytes)
        os.close(fd)
    layout.finish(weights)
    return root


def test_a_70b_is_planned_without_its_bytes(large: Path) -> None:
    """Every tensor is found in its boxes, and the headers of the files to be written are right to the last byte."""
    size = sum(path.stat().st_size for path in (large / "step=22999" / "weights").iterdir())
    assert size > 400e9 and sum(p.stat().st_blocks * 512 for p in (large / "step=22999" / "weights").iterdir()) < 1e9
    seen = checkpoint.inspect(large / "step=22999")
    padding = 2 * (32768 - 32017) * 8192
    assert seen.parameters - padding == 68_976_648_192 + 2 * 17 * 8192 and not seen.incomplete
    shape = read_shape(large)
    model = MegatronModel(large / "step=22999", shape)
    specs = model.specs()
    made = hf.shards(specs, exporting.SHARD_BYTES)
    assert len(made) == 29 and made[-1][0] == "model-00029-of-00029.safetensors"
    assert sum(spec.nbytes for spec in specs) == 2 * (seen.parameters - padding)
    with Files() as opened:
        new = {each.name: each for each in exporting.new_files(model, made, opened)}
        for name, group in made:
            assert sum(spec.nbytes for spec in group) <= exporting.SHARD_BYTES
            parts = new[name].parts()
            fd = os.open(large / "head.safetensors", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            parts[0].write(fd, bytearray(1), lambda _: None)
            os.ftruncate(fd, new[name].nbytes)
            os.close(fd)
            header = hf_folder.read_header(large / "head.safetensors")
            assert [(t.name, t.dims, t.dtype) for t in header.values()] == [(s.name, s.dims, s.dtype) for s in group]
            assert [t.begin for t in header.values()] == [part.begin for part in parts[1:]]
        pieces = 0
        for row, layer in mapping.walk(shape):
            for dims, matrix in zip(row.dims(shape), model.matrices(row, layer, opened), strict=True):
                assert (matrix.rows, matrix.nbytes) == (dims[0], 2 * math.prod(dims))
                pieces += len(matrix.pieces)
        assert pieces == 80 * (1 + 8 + 8 + 8 + 8 + 1 + 8 + 8 + 8) + 8 + 8 + 1


def test_a_70b_does_not_fit_on_this_disk(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from toolkit.errors import DiskFull

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12 - 10**11, 10**11))
    with pytest.raises(DiskFull, match="131,5.* MiB are needed"):
        checkpoint.export_hf(large / "step=22999", large / "out", config=large, progress=False)
    assert not list(large.glob("*out*"))


def test_a_record_that_is_gone_from_a_large_checkpoint(large: Path, tmp_path: Path) -> None:
    name = "__0_40.distcp"
    whole = (large / "step=22999" / "weights" / name).stat().st_size
    os.truncate(large / "step=22999" / "weights" / name, whole - 1)
    try:
        with pytest.raises(CheckpointError, match=f"{name} has {whole - 1} bytes of at least {whole}"):
            checkpoint.export_hf(large / "step=22999", tmp_path / "out", config=large, progress=False)
    finally:
        os.truncate(large / "step=22999" / "weights" / name, whole)


# ---- memory


def _hf_of(folder: Path, layers: int) -> LlamaShape:
    """40 MB a layer, in bf16, of one repeated pattern."""
    from toolkit.checkpoint import tensorfile

    config = {**LLAMA_70B, "hidden_size": 1024, "intermediate_size": 5632, "num_hidden_layers": layers}
    config |= {"num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 1000}
    folder.mkdir()
    files.write_json(folder / "config.json", config)
    shape = shape_of(config)
    specs = [tensorfile.Spec(name=n, dtype="bfloat16", dims=d) for n, d in mapping.hf_tensors(shape).items()]
    pattern = struct.pack("<H", 0x3F80) * (1 << 20)
    with open(folder / "model.safetensors", "wb") as handle:
        handle.write(tensorfile.header(specs)[0])
        for spec in specs:
            for begin in range(0, spec.nbytes, len(pattern)):
                handle.write(pattern[: min(len(pattern), spec.nbytes - begin)])
    return shape


_PEAK = """
import json, resource, sys
from pathlib import Path
from toolkit import checkpoint
source, out, verb = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
if verb == "import":
    checkpoint.import_hf(source, out, workers=2, progress=False)
else:
    checkpoint.export_hf(source, out, config=source / "hf_config.json", workers=2, progress=False)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"peak_mib": peak / 1024, "heavy": sorted({"torch", "numpy", "transformers"} & set(sys.modules))}))
"""


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """Neither direction takes torch, and a model eight times as large takes no more memory."""
    peaks: dict[tuple[str, int], float] = {}
    for layers in (1, 8):
        _hf_of(tmp_path / f"hf{layers}", layers)
        for verb, source in (("import", "hf"), ("export", "import")):
            words = [str(tmp_path / f"{source}{layers}"), str(tmp_path / f"{verb}{layers}"), verb]
            done = subprocess.run(
                [sys.executable, "-c", _PEAK, *words], capture_output=True, text=True, check=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            found = json.loads(done.stdout)
            assert found["heavy"] == [], found
            peaks[verb, layers] = found["peak_mib"]
    assert checkpoint.diff(tmp_path / "hf8", tmp_path / "export8").equal
    assert all(peak < 128 for peak in peaks.values()), peaks
    assert all(peaks[verb, 8] < peaks[verb, 1] + 16 for verb in ("import", "export")), peaks
