"""Every damage gives one clear error and leaves no output; a hostile file is refused and nothing of it runs."""

from __future__ import annotations

import builtins
import enum
import fcntl
import io
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.checkpoint.conftest import SMALL, read_all
from toolkit import checkpoint, files
from toolkit.checkpoint.writing import growing
from toolkit.errors import CheckpointError, DiskFull, RunBusy

torch = pytest.importorskip("torch")


@pytest.fixture
def broken(tmp_path: Path, imported: Path) -> Path:
    """A copy of the imported checkpoint, to be damaged."""
    return Path(shutil.copytree(imported, tmp_path / "step=9"))


@pytest.fixture
def broken_hf(tmp_path: Path, hf_folder: Path) -> Path:
    return Path(shutil.copytree(hf_folder, tmp_path / "hf"))


def refuses(source: Path, config: Path, match: str) -> None:
    """Export of a damaged checkpoint raises, and leaves neither output nor part folders."""
    out = source.parent / "out"
    before = set(source.parent.iterdir())
    with pytest.raises(CheckpointError, match="(?i)" + match):
        checkpoint.export_hf(source, out, config=config, progress=False)
    assert set(source.parent.iterdir()) == before


def test_truncated_file(broken, hf_folder):
    file = broken / "weights" / "__0_0.distcp"
    os.truncate(file, file.stat().st_size - 1)
    refuses(broken, hf_folder, r"not complete.*__0_0.distcp has \d+ bytes of at least")
    assert "bytes of at least" in checkpoint.incomplete_reason(broken)


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "common.pt", "metadata.json"])
def test_missing_file(broken, hf_folder, name):
    (broken / "weights" / name).unlink()
    assert not checkpoint.is_complete(broken)
    refuses(broken, hf_folder, name.replace(".", r"\."))


def test_overwritten_bytes(broken, hf_folder):
    """A file of the right length with other bytes in it: a lost block on a file system."""
    file = broken / "weights" / "__0_0.distcp"
    data = bytearray(file.read_bytes())
    data[:4096] = bytes(4096)
    file.write_bytes(data)
    refuses(broken, hf_folder, "damaged checkpoint file.*word_embeddings.weight.*is no zip")


def test_another_format(broken, hf_folder):
    files.write_json(broken / "weights" / "metadata.json", {"sharded_backend": "zarr"})
    refuses(broken, hf_folder, "format is 'zarr'")


def test_unfinished_marker(broken, hf_folder):
    (broken.parent / "step=9-unfinished").touch()
    refuses(broken, hf_folder, "step=9-unfinished says that saving it did not end")


def _config(folder: Path, source: Path, **changes: object) -> Path:
    file = folder / "changed.json"
    files.write_json(file, {**files.read_json(source / "config.json"), **changes})
    return file


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_hidden_layers": 4}, r"layer_norm_weight' has shape \[3, 32\], not \[4, 32\]"),
        ({"hidden_size": 64}, r"word_embeddings.weight' has shape \[128, 32\], not at least \[100, 64\]"),
        ({"intermediate_size": 40}, r"linear_fc1.weight' has shape \[3, 96, 32\], not \[3, 80, 32\]"),
        ({"num_key_value_heads": 4}, r"linear_qkv.weight' has shape \[3, 64, 32\], not \[3, 96, 32\]"),
        ({"vocab_size": 129}, r"not at least \[129, 32\]"),
        ({"tie_word_embeddings": True}, "does not foresee, such as 'module.output_layer.weight'"),
    ],
)
def test_config_of_another_model(broken, hf_folder, tmp_path, changes, match):
    refuses(broken, _config(tmp_path, hf_folder, **changes), match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_attention_heads": 3}, "'num_attention_heads' 3 is not a multiple of 'num_key_value_heads' 2"),
        ({"num_attention_heads": 6}, "'hidden_size' 32 is not a multiple"),
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"hidden_size": "32"}, "'hidden_size' is '32', not a whole number"),
        ({"num_hidden_layers": 10**12}, "not a whole number from 1 to 10000"),
        ({"num_hidden_layers": True}, "not a whole number"),
        ({"vocab_size": 0}, "'vocab_size' is 0"),
        ({"rope_theta": -1}, "'rope_theta' is -1"),
        ({"rope_scaling": [1]}, "is not an object"),
        ({"tie_word_embeddings": "no"}, "not true or false"),
        ({"model_type": "gpt2"}, "'model_type' is 'gpt2'"),
        ({"attention_bias": True}, "'attention_bias' is True"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_impossible_config(hf_folder, tmp_path, changes, match):
    with pytest.raises(CheckpointError, match="(?i)" + match):
        checkpoint.read_shape(_config(tmp_path, hf_folder, **changes))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe{\x00}\x00", b"[" * 100_000])
def test_config_that_is_no_config(broken, tmp_path, data):
    (tmp_path / "config.json").write_bytes(data)
    refuses(broken, tmp_path / "config.json", "config.json")


def _rewritten(folder: Path, change) -> None:
    """Change a checkpoint's metadata through torch's own classes."""
    file = folder / "weights" / ".metadata"
    metadata = pickle.loads(file.read_bytes())
    change(metadata)
    file.write_bytes(pickle.dumps(metadata))


QKV = "module.decoder.layers.self_attention.linear_qkv.weight"


def test_missing_tensor(broken, hf_folder):
    _rewritten(broken, lambda m: m.state_dict_metadata.pop(QKV))
    refuses(broken, hf_folder, f"tensor '{QKV}' is missing")


def test_unknown_tensor(broken, hf_folder):
    def change(m):
        m.state_dict_metadata["module.decoder.layers.mlp.router.weight"] = m.state_dict_metadata[
            "module.decoder.final_layernorm.weight"
        ]
        for index, info in list(m.storage_data.items()):
            if index.fqn.endswith("final_layernorm.weight"):
                other = type(index)("module.decoder.layers.mlp.router.weight", index.offset)
                m.storage_data[other] = info

    _rewritten(broken, change)
    refuses(broken, hf_folder, "router.weight")


def test_missing_chunk(broken, hf_folder):
    _rewritten(broken, lambda m: m.state_dict_metadata[QKV].chunks.pop())
    refuses(broken, hf_folder, f"chunks of tensor '{QKV}' do not cover it")


def test_overlapping_chunks(broken, hf_folder):
    _rewritten(broken, lambda m: m.state_dict_metadata[QKV].chunks.append(m.state_dict_metadata[QKV].chunks[0]))
    refuses(broken, hf_folder, f"two chunks of '{QKV}' overlap")


def test_metadata_of_another_checkpoint(broken, hf_folder, tmp_path):
    checkpoint.make_random_hf(tmp_path / "wider", **{**SMALL, "ffn": 64})
    checkpoint.import_hf(tmp_path / "wider", tmp_path / "wider_in", progress=False)
    shutil.copy(tmp_path / "wider_in" / "weights" / ".metadata", broken / "weights" / ".metadata")
    refuses(broken, tmp_path / "wider", "not complete.*bytes of at least")


@pytest.mark.parametrize("name", ["../outside.distcp", "/etc/passwd", "sub/__0_0.distcp", ".."])
def test_metadata_that_points_outside(broken, hf_folder, name):
    def change(m):
        for info in m.storage_data.values():
            info.relative_path = name

    _rewritten(broken, change)
    refuses(broken, hf_folder, "outside the checkpoint")


class _Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def _by_name(module: str, name: str, argument: str) -> bytes:
    """A protocol 0 pickle that calls module.name(argument), for names that cannot be pickled as they are."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def _hostile(trap: Path) -> dict[str, bytes]:
    touch = f"open({str(trap)!r}, 'w').close()"
    nested = {"state_dict_metadata": {}, "storage_data": _Calls(os.system, f"touch {trap}")}
    chain = _Calls(getattr, _Calls(__import__, "os"), "system")
    build = b"\x80\x04ctorch.distributed.checkpoint.metadata\nMetadata\nN}(V__setstate__\ncos\nsystem\nu\x86b."
    return {
        "os.system": pickle.dumps(_Calls(os.system, f"touch {trap}")),
        "eval": pickle.dumps(_Calls(builtins.eval, touch)),
        "exec": pickle.dumps(_Calls(builtins.exec, touch)),
        "nested": pickle.dumps(nested),
        "getattr": pickle.dumps(chain),
        "getattr of a type": pickle.dumps(_Calls(getattr, object, "__subclasses__")),
        "subprocess": pickle.dumps(_Calls(subprocess.check_call, ["touch", str(trap)])),
        "dotted name": _by_name("collections", "OrderedDict.__init__.__globals__", "x"),
        "torch.load": pickle.dumps(_Calls(torch.load, str(trap))),
        "torch attribute": _by_name("torch", "os.system", f"touch {trap}"),
        "torch.hub": _by_name("torch.hub", "load", str(trap)),
        "runpy": _by_name("runpy", "run_path", str(trap)),
        "class state": build,
        "persistent id": b"Pos.system\n.",
        "extension": b"\x82\x01.",
        "endless depth": b"(" * 200_000 + b"t" * 200_000 + b".",
        "no pickle": b"PK\x03\x04 not a pickle",
        "empty": b"",
        "other object": pickle.dumps({"a": 1}),
        "number": pickle.dumps(7),
    }


@pytest.mark.parametrize("trick", list(_hostile(Path("x"))))
def test_hostile_metadata_runs_nothing(broken, hf_folder, tmp_path, trick):
    trap = tmp_path / "trap"
    (broken / "weights" / ".metadata").write_bytes(_hostile(trap)[trick])
    refuses(broken, hf_folder, r"\.metadata")
    with pytest.raises(CheckpointError):
        checkpoint.inspect(broken)
    assert not trap.exists()


class _OldPickler(pickle.Pickler):
    """Python before 3.11.4 writes an enum's member as getattr(Class, name)."""

    def reducer_override(self, value):
        return (getattr, (type(value), value.name)) if isinstance(value, enum.Enum) else NotImplemented


def test_metadata_of_an_older_python_is_read(broken):
    before = checkpoint.inspect(broken)
    path = broken / "weights" / ".metadata"
    stream = io.BytesIO()
    _OldPickler(stream, protocol=4).dump(pickle.loads(path.read_bytes()))
    assert b"getattr" in stream.getvalue()
    path.write_bytes(stream.getvalue())
    assert checkpoint.inspect(broken).tensors == before.tensors


def test_the_tricks_would_work_on_an_open_door(tmp_path):
    """The traps above are real: the plain unpickler falls into them."""
    trap = tmp_path / "trap"
    for trick in ("os.system", "eval", "nested", "subprocess"):
        pickle.loads(_hostile(trap)[trick])
        assert trap.exists()
        trap.unlink()


@pytest.mark.parametrize("storage", [True, False])
def test_hostile_tensor_runs_nothing(broken, hf_folder, tmp_path, storage):
    """The payload of a chunk replaced by a pickle that calls os.system, in an archive that torch would take."""
    trap = tmp_path / "trap"
    hostile = _Calls(os.system, f"touch {trap}")
    torch.save([torch.zeros(3), hostile] if storage else hostile, tmp_path / "payload")
    payload = (tmp_path / "payload").read_bytes()
    (broken / "weights" / "__0_0.distcp").write_bytes(payload + bytes(300_000))

    def change(m):
        for info in m.storage_data.values():
            info.offset, info.length = 0, len(payload)

    _rewritten(broken, change)
    refuses(broken, hf_folder, "it names (posix|nt).system, which no tensor" if storage else "no member 'data/0'")
    assert not trap.exists()
    torch.load(tmp_path / "payload", weights_only=False)
    assert trap.exists()  # the trap was real


def test_one_file_cannot_alter_how_the_next_is_read(broken, imported, hf_folder):
    """State given to a stand-in class of one unpickler must not be there in another."""
    data = b"\x80\x04ctorch.distributed.checkpoint.metadata\nMetadata\nN}(V__init__\nctorch\nfloat32\nu\x86b."
    (broken / "weights" / ".metadata").write_bytes(data)
    with pytest.raises(CheckpointError):
        checkpoint.inspect(broken)
    assert checkpoint.inspect(imported).parameters > 0


# ---- Hugging Face folders


@pytest.mark.parametrize("verb", [checkpoint.check_hf, lambda p: checkpoint.import_hf(p, p.parent / "out")])
def test_hf_folder_without_weights(broken_hf, verb):
    (broken_hf / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        verb(broken_hf)
    (broken_hf / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="only pickled weights"):
        verb(broken_hf)
    (broken_hf / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        verb(broken_hf)
    with pytest.raises(CheckpointError, match="no such folder"):
        verb(broken_hf / "nothing")
    assert not (broken_hf.parent / "out").exists()


def _header(file: Path, change) -> None:
    """Rewrite the header of a safetensors file."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(change(header) or header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def _swap(header: dict) -> None:
    a, b = "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"
    header[a]["data_offsets"] = header[b]["data_offsets"]


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda f: os.truncate(f, f.stat().st_size - 1), "end at byte"),
        (lambda f: os.truncate(f, 5), "it has 5 bytes"),
        (lambda f: os.truncate(f, 0), "it has 0 bytes"),
        (lambda f: f.write_bytes(f.read_bytes() + b"\0"), "end at byte"),
        (lambda f: f.write_bytes(struct.pack("<Q", 2**62) + f.read_bytes()[8:]), "claims 4611686018427387904 bytes"),
        (lambda f: f.write_bytes(struct.pack("<Q", 100) + f.read_bytes()[8:]), "header is not JSON"),
        (lambda f: f.write_bytes(struct.pack("<Q", 2) + b"[]"), "not a JSON object"),
        (lambda f: f.write_bytes(b"\x80\x04cos\nsystem\n"), "claims"),
        (lambda f: _header(f, _swap), "the bytes of 'model.layers.0.mlp.*' begin at"),
        (lambda f: _header(f, lambda h: h["model.norm.weight"].update(shape=[33])), r"F32 \[33\] and has 128 bytes"),
        (lambda f: _header(f, lambda h: h["model.norm.weight"].update(shape=[-32])), "malformed"),
        (lambda f: _header(f, lambda h: h["model.norm.weight"].update(dtype="X9")), "unknown type 'X9'"),
        (lambda f: _header(f, lambda h: h["model.norm.weight"].update(data_offsets=3)), "malformed"),
        (lambda f: _header(f, lambda h: h["model.norm.weight"].update(dtype="I32")), "has type I32"),
        (lambda f: _header(f, lambda h: h["lm_head.weight"].update(shape=[32, 100])), r"\[32, 100\], not \[100, 32\]"),
        (lambda f: _header(f, lambda h: h.update(x=h.pop("model.norm.weight"))), "'model.norm.weight' is missing"),
        (lambda f: f.write_bytes(struct.pack("<Q", 15) + b'{"a": 1,"a": 2}' + f.read_bytes()), "'a' is there twice"),
    ],
)
def test_damaged_safetensors(broken_hf, damage, match):
    damage(broken_hf / "model.safetensors")
    with pytest.raises(CheckpointError, match="(?i)" + match):
        checkpoint.check_hf(broken_hf)
    with pytest.raises(CheckpointError, match="(?i)" + match):
        checkpoint.import_hf(broken_hf, broken_hf.parent / "out", progress=False)
    assert [path.name for path in broken_hf.parent.iterdir()] == ["hf"]


def test_tensor_beyond_the_table(broken_hf):
    from safetensors.torch import save_file

    tensors = read_all(broken_hf)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)  # old conversions have it: harmless
    save_file(tensors, broken_hf / "model.safetensors")
    checkpoint.check_hf(broken_hf)
    save_file({**tensors, "model.layers.0.self_attn.q_proj.bias": torch.ones(32)}, broken_hf / "model.safetensors")
    with pytest.raises(CheckpointError, match="q_proj.bias"):
        checkpoint.check_hf(broken_hf)


def test_one_tensor_of_another_type(broken_hf):
    from safetensors.torch import save_file

    tensors = read_all(broken_hf)
    tensors["model.layers.1.self_attn.k_proj.weight"] = tensors["model.layers.1.self_attn.k_proj.weight"].half()
    save_file(tensors, broken_hf / "model.safetensors")
    with pytest.raises(CheckpointError, match="is float16.*one tensor of the checkpoint|one tensor of the checkpoint"):
        checkpoint.import_hf(broken_hf, broken_hf.parent / "out", progress=False)


@pytest.mark.parametrize(
    ("weight_map", "match"),
    [
        (
            {"a": "model-00001-of-00002.safetensors"},
            "names the file model-00001-of-00002.safetensors, which is missing",
        ),
        ({"a": "../model.safetensors"}, "outside its folder"),
        ({"a": 7}, "weight_map"),
        ({}, "weight_map"),
    ],
)
def test_index_that_names_other_files(broken_hf, weight_map, match):
    (broken_hf / "model.safetensors").rename(broken_hf / "weights.safetensors")
    files.write_json(broken_hf / "model.safetensors.index.json", {"weight_map": weight_map})
    with pytest.raises(CheckpointError, match="(?i)" + match):
        checkpoint.check_hf(broken_hf)


def test_tokenizer_folder_without_a_tokenizer(imported, hf_folder, tmp_path):
    with pytest.raises(CheckpointError, match="no tokenizer"):
        checkpoint.export_hf(imported, tmp_path / "out", config=hf_folder, tokenizer=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


# ---- outputs


def test_output_never_replaces_what_is_not_ours(imported, hf_folder, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("three years")
    for out, match in (
        (mine, "not empty"),
        (hf_folder, "replace its source"),
        (hf_folder.parent, "replace its source"),
    ):
        with pytest.raises(CheckpointError, match="(?i)" + match):
            checkpoint.import_hf(hf_folder, out, progress=False)
    with pytest.raises(CheckpointError, match="is a file"):
        checkpoint.export_hf(imported, mine / "thesis.txt", config=hf_folder, progress=False)
    assert (mine / "thesis.txt").read_text() == "three years"
    for _ in range(2):  # an earlier result is replaced
        checkpoint.export_hf(imported, tmp_path / "out", config=hf_folder, progress=False)
    with pytest.raises(CheckpointError, match="not written by this conversion"):  # but not by one of another kind
        checkpoint.import_hf(hf_folder, tmp_path / "out", progress=False)
    (tmp_path / "out" / "adapter").mkdir()
    (tmp_path / "out" / "adapter" / "weights").write_text("a week of training")  # nor what somebody has added
    with pytest.raises(CheckpointError, match="No conversion has written adapter/weights"):
        checkpoint.export_hf(imported, tmp_path / "out", config=hf_folder, progress=False)
    assert (tmp_path / "out" / "adapter" / "weights").read_text() == "a week of training"


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("asked_first", [True, False])
def test_full_disk(small_disk, tmp_path, monkeypatch, asked_first):
    """A disk too small from the start is refused; one that fills up on the way leaves nothing behind."""
    checkpoint.make_random_hf(tmp_path / "hf", **{**SMALL, "ffn": 4096})  # 4.6 MB
    checkpoint.import_hf(tmp_path / "hf", tmp_path / "imported", progress=False)
    if not asked_first:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 10**12))
    match = "nothing was written" if asked_first else "has been removed"
    for convert in (
        lambda out: checkpoint.import_hf(tmp_path / "hf", out, progress=False),
        lambda out: checkpoint.export_hf(tmp_path / "imported", out, config=tmp_path / "hf", progress=False),
    ):
        with pytest.raises(DiskFull, match="no space") as caught:
            convert(small_disk / "out")
        assert match in str(caught.value).lower()
        assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("verb", ["import", "export"])
def test_killed_in_the_middle_and_gone_on_with(tmp_path, verb, with_signal):
    """A process ended while it writes weights leaves no output. The same command then writes what was left, and the
    whole is what an uninterrupted one gives, to the last bit.
    """
    checkpoint.make_random_hf(tmp_path / "hf", **{**SMALL, "layers": 12, "hidden": 256, "ffn": 2048})  # 85 MB
    source = tmp_path / "hf"
    if verb == "export":
        checkpoint.import_hf(tmp_path / "hf", tmp_path / "source", progress=False)
        source = tmp_path / "source"
    work = tmp_path / "work"
    work.mkdir()

    def command(out: Path) -> list[str]:
        words = [sys.executable, "-c", _IN_SMALL_FILES, verb, str(source), str(out)]
        return [*words, "--workers", "1", *(["--config", str(tmp_path / "hf")] if verb == "export" else [])]

    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(work / "out"), env=env, stderr=subprocess.PIPE, text=True)
    journal = work / ".out.unfinished" / ".finished.jsonl"
    while not (journal.is_file() and journal.read_bytes().count(b"\n") >= 4):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    process.send_signal(with_signal)
    err = process.communicate()[1]
    assert not (work / "out").exists()
    if with_signal == signal.SIGINT:
        assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert [path.name for path in work.iterdir()] == [".out.unfinished"]
    kept = [json.loads(line)["name"] for line in journal.read_text().splitlines()[1:]]
    spoilt, *kept = kept  # one of them is damaged meanwhile
    before = {name: (journal.parent / name).stat().st_mtime_ns for name in kept}
    data = bytearray((journal.parent / spoilt).read_bytes())
    data[-1] ^= 1
    (journal.parent / spoilt).write_bytes(data)
    subprocess.run(command(work / "out"), env=env, check=True, stdout=subprocess.DEVNULL)
    assert [path.name for path in work.iterdir()] == ["out"]
    assert {name: (work / "out" / name).stat().st_mtime_ns for name in kept} == before  # not written again
    subprocess.run(command(tmp_path / "whole"), env=env, check=True, stdout=subprocess.DEVNULL)
    assert files.fingerprint(work / "out") == files.fingerprint(tmp_path / "whole")


# Files of a few MB, so that many are finished when the process is ended; else the command itself.
_IN_SMALL_FILES = """
import sys
from toolkit import cli
from toolkit.checkpoint import __main__ as verb, distcp
distcp.Layout.__init__.__kwdefaults__["file_bytes"] = 4 << 20
sys.argv += ["--shard-size", "4MB"] if sys.argv[1] == "export" else []
sys.exit(cli.run(verb.main))
"""


def test_two_conversions_into_one_place(tmp_path, hf_folder):
    """The second is told, and leaves the first alone."""
    with growing(tmp_path / "out", "first") as first:
        (first.folder / "weights").write_text("half")
        with pytest.raises(RunBusy, match="another process"):
            checkpoint.import_hf(hf_folder, tmp_path / "out", progress=False)
        assert (first.folder / "weights").read_text() == "half"


def test_a_place_whose_owner_has_just_finished_is_not_taken(tmp_path, monkeypatch):
    """The second has opened the lock when the first ends, and takes the folder with the lock along."""
    flock = fcntl.flock

    def late(fd: int, how: int) -> None:
        shutil.rmtree(tmp_path / ".out.unfinished")
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(RunBusy), growing(tmp_path / "out", "second"):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_what_was_begun_from_something_else_is_not_gone_on_with(tmp_path, hf_folder):
    with pytest.raises(KeyboardInterrupt), growing(tmp_path / "out", "another model") as first:
        (first.folder / "model.safetensors").write_text("x")
        first.finish("model.safetensors", 1, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")
        raise KeyboardInterrupt
    assert (tmp_path / ".out.unfinished" / "model.safetensors").is_file()
    checkpoint.import_hf(hf_folder, tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not (tmp_path / "out/model.safetensors").exists()
