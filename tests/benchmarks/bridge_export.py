"""The peer of bench_checkpoint: Megatron-Bridge's own conversion of a checkpoint, on a CPU, with its own packages.

`python bridge_export.py HF CHECKPOINT OUT`: builds the model that Bridge makes for the Hugging Face folder, loads the
checkpoint into it with megatron-core, and has Bridge write Hugging Face weights. Prints its seconds without imports and
its peak of memory. What a CPU lacks is put in place first: Transformer Engine's names, CUDA's, Megatron's own layers.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")


def stand_in_for_transformer_engine() -> None:
    """Bridge 0.3 imports it without asking (bridge/peft/lora.py); megatron-core must not find it."""
    import megatron.core.models.gpt.gpt_model  # noqa: F401  it looks for the real one
    import megatron.core.transformer.attention as attention
    import torch

    outer, inner = types.ModuleType("transformer_engine"), types.ModuleType("transformer_engine.pytorch")
    for module in (outer, inner):
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        module.__version__ = "0.0.0"
    for name in ("Linear", "LayerNormLinear", "GroupedLinear", "TransformerLayer"):
        setattr(inner, name, type(name, (torch.nn.Module,), {}))
    inner.ops = types.SimpleNamespace(Sequential=type("Sequential", (torch.nn.Module,), {}))
    outer.pytorch = inner
    sys.modules.update({outer.__name__: outer, inner.__name__: inner})
    attention.HAVE_TE = False


def main() -> None:
    hf, checkpoint, out = map(Path, sys.argv[1:4])
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from toolkit.train import seams

    seams._cuda_names()
    seams._NamesCuda().__enter__()
    seams._rng_state()
    stand_in_for_transformer_engine()
    import torch
    from megatron.bridge import AutoBridge
    from megatron.core import dist_checkpointing
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    store = tempfile.mkdtemp()
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}/store", rank=0, world_size=1)
    begin = time.perf_counter()
    bridge = AutoBridge.from_hf_pretrained(str(hf), torch_dtype=torch.bfloat16)
    provider = bridge.to_megatron_provider(load_weights=False)
    provider.tensor_model_parallel_size = provider.pipeline_model_parallel_size = 1
    provider.params_dtype = provider.pipeline_dtype = torch.bfloat16
    provider.transformer_layer_spec = lambda config, vp_stage=None: get_gpt_layer_local_spec(normalization="RMSNorm")
    provider.use_cpu_initialization, provider.perform_initialization = True, False
    for name in ("gradient_accumulation_fusion", "masked_softmax_fusion", "persist_layer_norm", "apply_rope_fusion"):
        setattr(provider, name, False)
    provider.bias_activation_fusion = provider.bias_dropout_fusion = False
    provider.finalize()
    provider.initialize_model_parallel(seed=0)
    model = provider.provide_distributed_model(wrap_with_ddp=False)
    inner = model[0].module if hasattr(model[0], "module") else model[0]
    state = inner.sharded_state_dict(prefix="module.")
    loaded = dist_checkpointing.load(state, str(checkpoint / "weights"))
    inner.load_state_dict({name.removeprefix("module."): value for name, value in loaded.items()}, strict=False)
    out.mkdir(parents=True)
    bridge.save_hf_weights(model, str(out), show_progress=False)
    took = time.perf_counter() - begin
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print("RESULT " + json.dumps({"s": took, "mib": peak / 1024}), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
