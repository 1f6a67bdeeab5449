"""The seams that let unmodified megatron-core and NeMo run on a CPU over gloo. With a GPU present they do nothing.

Each seam names the upstream line that it works around (megatron-core 0.15.0, nemo-toolkit 2.6.0). They replace
process-wide names of torch, so they belong in a training process of its own, never in one that does other work.
"""

from __future__ import annotations

import contextlib
import logging
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")
_device = _CPU  # where tensors are made that megatron-core asks for on "cuda"
_installed = False


def install(device: str | None = None) -> None:
    """Everything megatron-core needs; call before it is imported. Idempotent.

    `device`: where tensors are made; "meta" in a process that builds models and never computes with them.
    """
    global _installed, _device
    if torch.cuda.is_available():
        return
    _device = torch.device(device) if device else _device
    if _installed:
        return
    _installed = True
    _cuda_names()
    _NamesCuda().__enter__()  # for the life of the process
    _rng_state()
    _distributed_optimizer()


def install_nemo(device: str | None = None) -> None:
    """What NeMo needs on top; call before its recipes are built."""
    install(device)
    if torch.cuda.is_available():
        return
    _nemo_seed()
    _nemo_load()


class _NamesCuda(TorchFunctionMode):
    """Tensors that megatron-core asks for on "cuda" are made on the CPU.

    `Tensor.type()` keeps saying `torch.cuda.*`: the distributed and the mixed precision optimizers compare that string
    (megatron/core/optimizer/distrib_optimizer.py:416, optimizer.py:686).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            return func(*args).replace("torch.meta.", "torch.").replace("torch.", "torch.cuda.", 1)
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = _device
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        if func is torch.Tensor.to and len(args) > 1 and _is_cuda(args[1]):
            args = (args[0], _device, *args[2:])
        return func(*args, **kwargs)


def _is_cuda(device: Any) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"


class _NoStream:
    """A CUDA stream where there is none: everything is in order already."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_stream(self, *_: Any) -> None: ...

    def wait_event(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...

    def record_event(self, *_: Any) -> None: ...


def _cuda_names() -> None:
    """megatron-core calls torch.cuda unconditionally (parallel_state, random, pipeline schedules,
    param_and_grad_buffer).
    """
    cuda = torch.cuda
    cuda.current_device = lambda: _device
    cuda.set_device = lambda *_, **__: None
    cuda.synchronize = lambda *_, **__: None
    cuda.empty_cache = lambda: None
    cuda.manual_seed = torch.manual_seed
    cuda.get_rng_state = cuda.random.get_rng_state = lambda device=None: torch.get_rng_state()
    cuda.set_rng_state = cuda.random.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    cuda.Stream = _NoStream
    cuda.current_stream = cuda.default_stream = lambda *_, **__: _NoStream()
    cuda.stream = lambda _: contextlib.nullcontext()
    for name in ("LongTensor", "IntTensor", "FloatTensor"):  # NeMo's finetuning index: torch.cuda.LongTensor([1])
        setattr(cuda, name, getattr(torch, name))


def _rng_state() -> None:
    """megatron/core/tensor_parallel/random.py:72 reaches for `torch.cuda.default_generators`."""
    from megatron.core.tensor_parallel import random as mcore_random

    mcore_random._set_cuda_rng_state = lambda new_state, device=-1, graph_safe=False: torch.set_rng_state(new_state)
    # Here the "GPU" generator *is* the CPU generator, so this warning has no meaning.
    logging.getLogger(mcore_random.__name__).addFilter(
        lambda record: "CPU RNG state changed" not in record.getMessage()
    )


def without_te() -> None:
    """What a GPU needs for layers without Transformer Engine, where that is not installed."""
    _distributed_optimizer()


def _distributed_optimizer() -> None:
    """Loading a distributed optimizer whose inner optimizer is torch's AdamW (no Transformer Engine, no Apex).

    Three faults in megatron/core/optimizer/distrib_optimizer.py: before the first step there is no "step" to read
    (:638, bare assertion); the loaded tensors hold none (:928, KeyError); and every parameter is given the *same*
    step tensor (:817), so each update counts it up once per parameter and training goes on wrongly without a word.
    """
    from megatron.core.optimizer import distrib_optimizer

    if distrib_optimizer.HAVE_APEX_OR_TE:
        return
    cls = distrib_optimizer.DistributedOptimizer
    sharded, load, set_states = cls.sharded_state_dict, cls.load_state_dict, cls._set_main_param_and_optimizer_states

    def sharded_state_dict(self: Any, model_sharded_state_dict: Any, is_loading: bool = False, **kwargs: Any) -> Any:
        if is_loading and not self.optimizer.state:
            for param in (p for group in self.optimizer.param_groups for p in group["params"]):
                zeros = {name: torch.zeros_like(param) for name in ("exp_avg", "exp_avg_sq")}
                self.optimizer.state[param] = {"step": torch.tensor(0.0), **zeros}
        return sharded(self, model_sharded_state_dict, is_loading, **kwargs)

    def load_state_dict(self: Any, state_dict: Any) -> None:
        load(self, state_dict)
        for state in self.optimizer.state.values():
            if "step" in state:
                state["step"] = state["step"].clone()

    def set_main_param_and_states(self: Any, model_param: Any, tensors: dict[str, Any]) -> None:
        group, order = self.model_param_group_index_map[model_param]
        state = self.optimizer.state[self.optimizer.param_groups[group]["params"][order]]
        step = {"step": state["step"]} if "step" in state else {}
        set_states(self, model_param, {**step, **tensors})

    cls.sharded_state_dict = sharded_state_dict
    cls.load_state_dict = load_state_dict
    cls._set_main_param_and_optimizer_states = set_main_param_and_states


def lora_without_te() -> None:
    """nemo/collections/llm/peft/lora.py:703 asks of each module whether it is Transformer Engine's, without which the
    name stands for an error; and utils.py:53 takes names that megatron-core keeps for it for the package itself.
    """
    from nemo.collections.llm.peft import lora, utils

    if not lora.HAVE_TE:
        lora.te, utils.HAVE_TE = SimpleNamespace(Linear=_NoLayer), False


class _NoLayer:
    """No module is one."""


def _nemo_seed() -> None:
    """nemo/lightning/megatron_init.py:238 adds the model-parallel RNG state only when a GPU is counted."""
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
    from nemo.lightning import megatron_init

    seed_host = megatron_init._set_random_seed

    def seed_all(seed: int) -> None:
        seed_host(seed)
        model_parallel_cuda_manual_seed(seed + 100 * megatron_init.get_pipeline_model_parallel_rank())

    megatron_init._set_random_seed = seed_all


def _nemo_load() -> None:
    """nemo/lightning/io/pl.py:489 moves loaded tensors to this rank's GPU and asserts that CUDA is initialised."""
    from nemo.lightning.io import pl

    pl._fix_tensors_device = lambda checkpoint: checkpoint
