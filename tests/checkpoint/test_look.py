"""Finding the newest whole checkpoint, looking into one, and the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit import checkpoint, cli, files
from toolkit.checkpoint.__main__ import main
from toolkit.errors import CheckpointError, UsageError


@pytest.fixture
def steps(tmp_path: Path, imported: Path) -> Path:
    """A NeMo checkpoints folder: steps 9, 99 and 99-last whole, 199 truncated, 299 still being saved, and a stray
    folder.
    """
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("step=9", "step=99", "step=99-last", "run--loss=2.10-step=199-consumed_samples=1600.0", "step=299"):
        shutil.copytree(imported, folder / name)
    (folder / "run--loss=2.10-step=199-consumed_samples=1600.0" / "weights" / "__0_0.distcp").write_bytes(b"short")
    (folder / "step=299-unfinished").touch()
    (folder / "notes").mkdir()
    return folder


def test_latest_is_the_newest_whole_one(steps):
    assert checkpoint.latest(steps).name == "step=99-last"
    shutil.rmtree(steps / "step=99-last")
    assert checkpoint.latest(steps).name == "step=99"
    (steps / "step=299-unfinished").unlink()
    assert checkpoint.latest(steps).name == "step=299"


def test_steps_are_compared_as_numbers(steps):
    for name in ("step=299", "step=99-last"):
        shutil.rmtree(steps / name)
    assert checkpoint.latest(steps).name == "step=99"  # and not step=9, which sorts after it as text


def test_no_whole_checkpoint_says_why(steps, tmp_path):
    for name in ("step=9", "step=99", "step=99-last"):
        (steps / name / "weights" / ".metadata").unlink()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.latest(steps)
    text = str(caught.value)
    assert "step=299-unfinished" in text and "has 5 bytes" in text and "step=9:" in text
    with pytest.raises(CheckpointError, match="no such folder"):
        checkpoint.latest(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="No folder there is named step="):
        checkpoint.latest(tmp_path)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step=9", 9),
        ("step=9-last", 9),
        ("m--val_loss=1.50-step=120-epoch=0", 120),
        ("footstep=3", None),
        ("x", None),
        ("iter_0000120", 120),
        ("my_iter_3", None),
    ],
)
def test_step_of_a_name(name, step):
    assert checkpoint.step_of(Path("/runs") / name) == step
    assert checkpoint.step_of(Path("/runs") / name / "weights") == step


def test_weights_folder_of_an_unfinished_step(steps):
    assert not checkpoint.is_complete(steps / "step=299" / "weights")
    assert checkpoint.is_complete(steps / "step=9" / "weights")


def test_inspect(imported, hf_folder, steps):
    seen = checkpoint.inspect(steps / "step=9")
    assert (seen.kind, seen.step, seen.incomplete, seen.optimizer_bytes) == ("checkpoint", 9, "", 0)
    tensors = {tensor.name: tensor for tensor in seen.tensors}
    qkv = tensors["module.decoder.layers.self_attention.linear_qkv.weight"]
    assert (qkv.dims, qkv.dtype, qkv.chunks) == ((3, 64, 32), "float32", 3)
    assert len(tensors) == 9 and qkv.nbytes > 4 * 3 * 64 * 32
    folder = checkpoint.inspect(hf_folder)
    assert (folder.kind, folder.step) == ("hf", None)
    assert seen.parameters == folder.parameters + 2 * 28 * 32  # the padding of both vocabulary tensors
    assert "marker" in checkpoint.inspect(steps / "step=299").incomplete


def test_optimizer_state_is_counted_and_left_alone(tmp_path, hf_folder):
    """A checkpoint with optimizer state beside the weights, in the same files."""
    torch = pytest.importorskip("torch")
    from tests.checkpoint.torch_writer import Writer, read
    from toolkit.checkpoint import distcp
    from toolkit.checkpoint.hf import check_hf

    folder = tmp_path / "step=3" / "weights"
    folder.mkdir(parents=True)
    model = check_hf(hf_folder)
    source = distcp.Reader(_import(hf_folder, tmp_path / "in"))
    with Writer(folder) as writer:
        for key, entry in source.metadata.tensors.items():
            tensor = read(source, key)
            writer.add(key, tensor, dims=entry.dims, offsets=[0] * tensor.ndim)  # one chunk that spans all layers
            for part in ("optimizer.state.exp_avg.", "chained_0.optimizer.state.exp_avg."):
                writer.add(part + key, torch.ones(4), dims=[4], offsets=[0])
    seen = checkpoint.inspect(tmp_path / "step=3")
    assert len(seen.tensors) == 9 and seen.optimizer_bytes > 0
    done = checkpoint.export_hf(tmp_path / "step=3", tmp_path / "out", config=hf_folder, progress=False)
    assert done.step == 3 and checkpoint.diff(hf_folder, tmp_path / "out").equal
    assert model.nbytes == done.nbytes


def _import(hf: Path, out: Path) -> Path:
    checkpoint.import_hf(hf, out, progress=False)
    return out


@pytest.mark.parametrize("prefix", ["", "model."])
def test_bare_checkpoints_and_keys_per_layer(tmp_path, imported, hf_folder, prefix):
    """Keys without NeMo's prefix, layers under keys of their own, a tensor in four boxes as TP saves it."""
    from tests.checkpoint.torch_writer import Writer, read
    from toolkit.checkpoint import distcp

    source = distcp.Reader(imported)
    folder = tmp_path / "bare"
    folder.mkdir()
    with Writer(folder) as writer:
        for key, entry in source.metadata.tensors.items():
            name = prefix + key.removeprefix("module.")
            for layer in range(entry.dims[0]) if ".layers." in key else [None]:
                own = name if layer is None else name.replace(".layers.", f".layers.{layer}.")
                tensor = read(source, key, layer=layer)
                if tensor.ndim == 1:
                    writer.add(own, tensor, dims=tensor.shape, offsets=[0])
                    continue
                rows, columns = (n // 2 for n in tensor.shape)
                for row in (0, rows):
                    for column in (0, columns):
                        box = tensor[row : row + rows, column : column + columns]
                        writer.add(own, box, dims=tensor.shape, offsets=[row, column])
    checkpoint.export_hf(folder, tmp_path / "out", config=hf_folder, progress=False)
    assert checkpoint.diff(hf_folder, tmp_path / "out").equal


def test_command_line(steps, hf_folder, tmp_path, capsys):
    def run(*argv: object) -> tuple[int, str, str]:
        code = cli.run(main, [str(word) for word in argv])
        out, err = capsys.readouterr()
        return code, out, err

    code, out, _ = run("export", steps, tmp_path / "out", "--config", hf_folder, "--dtype", "bf16", "--json")
    assert code == 0 and json.loads(out)["step"] == 99 and json.loads(out)["dtype"] == "bfloat16"
    code, out, _ = run("import", tmp_path / "out", tmp_path / "again", "--vocab-size", 117, "--padded-vocab-size", 128)
    assert code == 0 and "vocabulary 117 padded to 128" in out
    code, out, _ = run("inspect", tmp_path / "again", "--json")
    assert code == 0 and json.loads(out)["tensors"][0]["dtype"] == "bfloat16"
    code, out, _ = run("inspect", steps / "step=9")
    assert code == 0 and "linear_qkv.weight" in out and "step 9" in out
    code, out, _ = run("diff", hf_folder, tmp_path / "out")
    assert code == 1 and "not equal" in out and "float32 [100, 32] | bfloat16 [100, 32]" in out
    code, out, _ = run("diff", hf_folder, steps / "step=9", "--json")
    assert code == 0 and json.loads(out)["equal"] is True
    code, out, err = run("export", tmp_path, tmp_path / "no", "--config", hf_folder, "--json")
    assert code == 1 and json.loads(out)["error"] == "CheckpointError" and "Traceback" not in err
    code, _, err = run("export", steps, tmp_path / "no", "--config", hf_folder, "--dtype", "float31")
    assert code == 2 and "did you mean 'float32'" in err.lower()
    assert not (tmp_path / "no").exists()


def test_help_has_examples_and_needs_no_torch():
    code = (
        "import sys; from toolkit.checkpoint import __main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'transformers', 'safetensors'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout and "toolkit.checkpoint import" in done.stdout


def test_headers_are_checked_without_torch(hf_folder, imported):
    """A job can refuse a broken model or find its checkpoint before anything heavy is imported."""
    code = (
        "import sys; from toolkit import checkpoint\n"
        f"checkpoint.check_hf({str(hf_folder)!r}); checkpoint.inspect({str(imported)!r})\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_progress_is_seen_from_outside(tmp_path, hf_folder, monkeypatch):
    monkeypatch.setenv("TOOLKIT_PROGRESS", str(tmp_path / "progress.json"))
    checkpoint.import_hf(hf_folder, tmp_path / "imported")
    state = files.read_json(tmp_path / "progress.json")
    assert state["label"] == "import" and state["unit"] == "bytes" and state["done"] == state["total"] > 0


# As NeMo 2.6 writes it for Llama2Config7B, of which this is a small part; other lines are of no matter here.
NEMO = """\
_target_: nemo.collections.llm.gpt.model.llama.LlamaModel
config:
  _target_: nemo.collections.llm.gpt.model.llama.Llama2Config7B
  activation_func: {_call_: false, _target_: torch.nn.functional.silu}
  add_bias_linear: false
  add_qkv_bias: false
  ffn_hidden_size: 48
  gated_linear_unit: true
  hidden_size: 32
  kv_channels: null
  layernorm_epsilon: 1.0e-05
  normalization: RMSNorm
  num_attention_heads: 4
  num_layers: 3
  num_moe_experts: null
  num_query_groups: 2
  position_embedding_type: rope
  qk_layernorm: false
  rotary_base: 10000
  rotary_percent: 1.0
  seq_length: 64
  share_embeddings_and_output_weights: false
  vocab_size: null
"""


def test_nemos_own_context_says_the_shape(tmp_path, imported, hf_folder):
    """A checkpoint as NeMo leaves it needs no config.json; only its tokens are to be told."""
    step = tmp_path / "step=5"
    shutil.copytree(imported / "weights", step / "weights")
    with pytest.raises(UsageError, match="does not say which model"):
        checkpoint.export_hf(step, tmp_path / "out", progress=False)
    (step / "context").mkdir()
    (step / "context" / "model.yaml").write_text(NEMO)
    with pytest.raises(UsageError, match="how many tokens"):
        checkpoint.export_hf(step, tmp_path / "out", progress=False)
    checkpoint.export_hf(step, tmp_path / "out", vocab_size=100, progress=False)
    assert checkpoint.diff(hf_folder, tmp_path / "out").equal
    told, own = (files.read_json(folder / "config.json") for folder in (tmp_path / "out", hf_folder))
    assert all(told[key] == own[key] for key in told if key in own and key != "torch_dtype")
    more = "  scale_factor: 8.0\n  low_freq_factor: 1.0\n  high_freq_factor: 4.0\n  old_context_len: 8192\n"
    more += "  vocab_size: 100\n"
    (step / "context" / "model.yaml").write_text(NEMO.replace("  vocab_size: null\n", more))
    checkpoint.export_hf(step, tmp_path / "scaled", progress=False)
    scaling = checkpoint.read_shape(tmp_path / "scaled").rope_scaling
    assert scaling["rope_type"] == "llama3" and scaling["original_max_position_embeddings"] == 8192


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("RMSNorm", "LayerNorm", "normalization is 'LayerNorm'"),
        ("add_qkv_bias: false", "add_qkv_bias: true", "add_qkv_bias is True"),
        ("  rotary_percent: 1.0\n", "", "rotary_percent is not stated"),
        ("functional.silu", "functional.gelu", "activation is not silu"),
        ("  num_layers: 3\n", "", "no num_layers"),
        ("num_layers: 3", "num_layers: three", "num_hidden_layers"),
        ("config:", "konfig:", "no config"),
        ("config:\n", "config: !!python/object/apply:os.system [id]\n", "cannot be read"),
        ("config:", "config: [", "cannot be read"),
    ],
)
def test_a_context_that_is_no_llamas(tmp_path, imported, old, new, why):
    shutil.copytree(imported / "weights", tmp_path / "step=5" / "weights")
    (tmp_path / "step=5" / "context").mkdir()
    (tmp_path / "step=5" / "context" / "model.yaml").write_text(NEMO.replace(old, new, 1))
    with pytest.raises(CheckpointError, match=f"(?i){why}"):
        checkpoint.export_hf(tmp_path / "step=5", tmp_path / "out", vocab_size=100, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["step=5"]
