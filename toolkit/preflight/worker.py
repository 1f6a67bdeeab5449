"""The process that measures for a rank of a preflight, and that may hang or crash without taking the rank with it.

`python -m toolkit.preflight.worker` takes orders, JSON lines on stdin, and answers each with one on stdout: `hello`
loads torch, `open` makes a store for a group to meet at, `run` measures all-reduces in a group. Torch lives only here.
"""

from __future__ import annotations

import contextlib
import datetime
import faulthandler
import fcntl
import json
import os
import socket
import struct
import sys
import time
from typing import Any

from toolkit.preflight import nccl_tests

_SIZES = (16, 4, 1)  # parts of the largest message
_SECONDS = 0.3  # of measuring a size
_MOST_ROUNDS = 20
_SIOCGIFADDR = 0x8915
_LATER_S = 30.0


class Bench:
    """What stays from one order to the next: torch, and the store that this process serves."""

    def __init__(self) -> None:
        self._store: Any = None
        self._met = 0

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        if order["do"] == "hello":
            return self.hello(gpu=order["gpu"], local_rank=order["local_rank"])
        if order["do"] == "open":
            return self.open(order["limit_s"])
        return {"table": nccl_tests.write(self.run(order))}

    def hello(self, *, gpu: bool, local_rank: int) -> dict[str, Any]:
        missing_interface("NCCL_SOCKET_IFNAME" if gpu else "GLOO_SOCKET_IFNAME")
        import torch
        import torch.distributed  # noqa: F401  # a part of its own in some builds

        told = {"torch": torch.__version__}
        if gpu:
            if not torch.cuda.is_available():
                raise RuntimeError(f"torch {torch.__version__} finds no GPU")
            torch.cuda.set_device(local_rank)
            told["device"] = torch.cuda.get_device_name(local_rank)
            told["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        return told

    def open(self, limit_s: float) -> dict[str, Any]:
        from torch.distributed import TCPStore

        limit = datetime.timedelta(seconds=limit_s)
        self._store = TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False, timeout=limit)
        return {"port": self._store.port}

    def run(self, order: dict[str, Any]) -> list[nccl_tests.Row]:
        """The group's rows; the same on all of its members."""
        import torch
        import torch.distributed as dist

        rank, world, gpu = order["rank"], order["world"], order["gpu"]
        limit = datetime.timedelta(seconds=order["limit_s"])
        # Where torch itself does not end in time, as in a call that never comes back.
        faulthandler.dump_traceback_later(order["limit_s"] + _LATER_S, exit=True)
        if not gpu and (name := interface(order["store"][0])):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        device = torch.device("cuda", order["local_rank"]) if gpu else torch.device("cpu")
        self._met += 1
        store = dist.TCPStore(order["store"][0], order["store"][1], is_master=False, timeout=limit)
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            store=dist.PrefixStore(order["key"], store),
            rank=rank,
            world_size=world,
            timeout=limit,
            **({"device_id": device} if gpu else {}),
        )
        try:
            return [measure(order["size_bytes"] // part, world, rank, device) for part in _SIZES]
        finally:
            with contextlib.suppress(Exception):
                dist.destroy_process_group()
            faulthandler.cancel_dump_traceback_later()


def measure(size_bytes: int, world: int, rank: int, device: Any) -> nccl_tests.Row:
    """All-reduces of one message size in the group that there is; the mean time of its members, as nccl-tests'."""
    import torch
    import torch.distributed as dist

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    buffer = torch.full((max(1, size_bytes // 4),), float(rank + 1), dtype=torch.float32, device=device)
    dist.all_reduce(buffer)
    wrong = (buffer != world * (world + 1) / 2).sum().float().reshape(1)
    buffer.zero_()  # sums of sums would overflow
    wait()
    begun = time.perf_counter()
    dist.all_reduce(buffer)
    wait()
    one = torch.tensor([time.perf_counter() - begun], dtype=torch.float32, device=device)
    dist.all_reduce(one, op=dist.ReduceOp.MAX)
    dist.all_reduce(wrong)
    rounds = int(min(_MOST_ROUNDS, max(2, _SECONDS / max(one.item(), 1e-6))))
    dist.barrier()
    wait()
    begun = time.perf_counter()
    for _ in range(rounds):
        dist.all_reduce(buffer)
    wait()
    took = torch.tensor([(time.perf_counter() - begun) / rounds], dtype=torch.float32, device=device)
    dist.all_reduce(took)
    seconds = took.item() / world
    algbw = buffer.numel() * 4 / seconds / 1e9
    return nccl_tests.Row(
        size_bytes=buffer.numel() * 4,
        time_us=seconds * 1e6,
        algbw_gb_s=algbw,
        busbw_gb_s=algbw * nccl_tests.bus_factor(world),
        wrong=int(wrong.item()),
    )


def missing_interface(variable: str) -> None:
    """Raise when a variable names interfaces of which this host has none: gloo and NCCL would say so much later, and
    each in words of its own. NCCL's `=a,b` and gloo's `a,b` are exact names; other forms are NCCL's to judge.
    """
    value = os.environ.get(variable, "")
    exact = value[1:] if value.startswith("=") else value if variable.startswith("GLOO") else ""
    names = [name.strip() for name in exact.split(",") if name.strip()]
    here = {name for _, name in socket.if_nameindex()}
    if names and not here & set(names):
        raise RuntimeError(f"{variable}={value}, and this host has {', '.join(sorted(here))}")


def interface(host: str) -> str:
    """The network interface by which this host reaches `host`: a host's own name may well lead to its loopback, and
    gloo takes what that leads to. '' where it cannot be told.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        own = probe.getsockname()[0]
        if own.startswith("127."):
            return "lo"
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == own:
                    return name
    return ""


def main() -> int:
    # What libraries print, NCCL_DEBUG for one, must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    bench = Bench()
    for line in sys.stdin:
        try:
            answer = bench.obey(json.loads(line))
        except Exception as err:  # whatever torch raises is a finding
            answer = {"error": f"{type(err).__name__}: {' '.join(str(err).split())}"[:1000]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
