"""What a process of its own answers: that a module can be imported, what torch finds here, that a kernel is right.

Started by `asking` alone, as `python -m toolkit.doctor.questions FD QUESTION...`. Answers with facts; judges nothing.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1
_MOST = 500


def main(argv: Sequence[str]) -> int:
    _tame()
    to = os.fdopen(int(argv[0]), "w", encoding="utf-8")
    os.set_inheritable(to.fileno(), False)  # what a module starts must not keep the pipe open
    for question in argv[1:]:
        _say(to, {"begin": question})
        try:
            _say(to, {"end": question, "value": answer(question)})
        except BaseException as err:  # SystemExit and worse: any module may be imported here
            _say(to, {"end": question, "kind": type(err).__name__, "why": _line(err)})
            break
    to.flush()
    os._exit(0)  # what was imported has nothing left to say, and some of it hangs when Python ends


def answer(question: str) -> dict[str, Any]:
    """`import MODULE`, or a name of `QUESTIONS` with its arguments behind it."""
    name, *rest = question.split()
    return QUESTIONS[name](*rest)


def imported(module: str) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    made = importlib.import_module(module)
    version = getattr(made, "__version__", None)
    return {"file": getattr(made, "__file__", None), "version": version if isinstance(version, str) else None}


def torch_facts() -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available(),
        "nccl": None,
        "cudnn": None,
        "built_for": list(torch.cuda.get_arch_list()) if torch.version.cuda else [],
        "gpus": [],
    }
    if torch.version.cuda:
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else None
        facts["cudnn"] = torch.backends.cudnn.version()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            of = torch.cuda.get_device_properties(index)
            facts["gpus"].append(
                {
                    "name": of.name,
                    "capability": f"{of.major}.{of.minor}",
                    "memory_gib": round(of.total_memory / 2**30, 1),
                    "bf16": of.major >= 8,
                }
            )
    elif torch.version.cuda:
        try:
            torch.zeros(1, device="cuda")
        except Exception as err:  # why there is none is in the words of its error
            facts["no_gpu"] = _line(err)
    return facts


def kernel(name: str, *given: str) -> dict[str, Any]:
    from toolkit.doctor import kernels

    return kernels.KERNELS[name](*given)


QUESTIONS: dict[str, Callable[..., dict[str, Any]]] = {"import": imported, "torch": torch_facts, "kernel": kernel}


def _tame() -> None:
    """Go when the one that asked is gone, and leave no core file."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _say(to: Any, line: dict[str, Any]) -> None:
    to.write(json.dumps(line, default=str) + "\n")
    to.flush()


def _line(err: BaseException) -> str:
    """What the error says, in one line."""
    text = " ".join(str(err).split()) or type(err).__name__
    return text[:_MOST]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
