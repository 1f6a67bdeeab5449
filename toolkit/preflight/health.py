"""What of that which hosts told is a fault, and of which node. Pure: what `host.facts` made goes in, words come out.

Takes nothing for granted of the values: they come from files that other nodes wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.hardware import GPUS, is_gpu
from toolkit.preflight.judge import Fault
from toolkit.recipe.schema import Cluster

_KIB_GIB = 1 << 20
_GPU_SHM_GIB = 1.0  # NCCL's buffers between the processes of a node: its documentation asks for 1 GiB with Docker
_MOST = 300


def judge(hosts: Mapping[str, Any], site: Cluster, *, rdma: bool) -> tuple[list[Fault], list[Fault]]:
    """(faults, warnings) of {node: facts of its host}; `rdma` says whether ranks will lock memory for it."""
    found: list[Fault] = []
    warned: list[Fault] = []
    for node in sorted(hosts):
        told = _dict(hosts[node])
        found += [Fault(node=node, what=what[:_MOST]) for what in _host(told, site, rdma)]
        if "gpu" in told:
            found += [Fault(node=node, what=what[:_MOST]) for what in _gpus(_dict(told["gpu"]), site)]
            gens = _alike([(gpu, list(_gen(gpu))) for gpu in _dicts(_dict(told["gpu"]).get("gpus"))])
            warned += [Fault(node=node, what=what[:_MOST]) for what in gens]
        if "dcgm" in told:
            for grade, what in _dcgm(_dict(told["dcgm"])):
                (found if grade == "fail" else warned).append(Fault(node=node, what=what[:_MOST]))
    return found, warned


def _host(told: dict[str, Any], site: Cluster, rdma: bool) -> Iterator[str]:
    asked = site.preflight
    locked = _number(told.get("memlock_kib"))
    if rdma and asked.memlock_gib is not None and locked is not None and locked < asked.memlock_gib * _KIB_GIB:
        yield (
            f"memory that may be locked is limited to {locked:,.0f} KiB, cluster.preflight.memlock_gib asks for "
            f"{asked.memlock_gib:g} GiB"
        )
    least = asked.shm_gib if asked.shm_gib is not None else (_GPU_SHM_GIB if site.device == "gpu" else 0.0)
    size = _number(told.get("shm_gib"))
    if size is not None and size < least:
        yield f"/dev/shm has {size:g} GiB, {least:g} are needed"
    if least and "shm_gib" in told and size is None:
        yield "there is no /dev/shm"
    scratch = _dict(told.get("scratch"))
    if scratch:
        free, path, error = _number(scratch.get("free_gib")), _word(scratch.get("path")), _word(scratch.get("error"))
        if error:
            yield f"cluster.scratch, {path}: {error}"
        elif free is not None and free < asked.scratch_gib:
            yield f"cluster.scratch, {path}, has room for {free:.1f} GiB, {asked.scratch_gib:g} are needed"


def _gpus(told: dict[str, Any], site: Cluster) -> Iterator[str]:
    asked = site.preflight
    gpus = _dicts(told.get("gpus"))
    if error := _word(told.get("error")):
        yield error
    if not gpus:
        return
    attached = _number(told.get("attached"))
    if len(gpus) < site.devices_per_node:
        yield f"the driver finds {len(gpus)} GPUs, {site.devices_per_node} were asked for"
    elif attached is not None and attached != len(gpus):
        yield f"the driver knows of {attached:.0f} GPUs and tells of {len(gpus)}"
    driver = _word(told.get("driver"))
    if asked.driver is not None and not f"{driver}.".startswith(f"{asked.driver}."):
        yield f"driver {driver or '(unknown)'}, cluster.preflight.driver asks for {asked.driver}"
    yield from _alike([(gpu, list(_gpu(gpu, site))) for gpu in gpus])


def _alike(found: list[tuple[dict[str, Any], list[str]]]) -> Iterator[str]:
    """What several GPUs share is said once."""
    by_words: dict[str, list[str]] = {}
    for gpu, words in found:
        for what in words:
            by_words.setdefault(what, []).append(str(gpu.get("index", "?"))[:4])
    for what, who in by_words.items():
        name = f"all {len(found)} GPUs" if 1 < len(found) == len(who) else f"GPU{'s' * (len(who) > 1)} {', '.join(who)}"
        yield f"{name}: {what}"


def _gpu(gpu: dict[str, Any], site: Cluster) -> Iterator[str]:
    name, memory = _word(gpu.get("name")), _number(gpu.get("memory_mib"))
    if site.gpu is not None and name and not is_gpu(site.gpu, name, None if memory is None else int(memory)):
        told = f"{name}{f' of {memory / 1024:.0f} GiB' if memory else ''}"
        yield f"{told}, where the profile says {GPUS[site.gpu].title}"
    if uncorrected := _number(gpu.get("uncorrected")):
        yield f"{uncorrected:.0f} uncorrected ECC errors since the driver was loaded"
    for what in _words(gpu.get("pending")):
        yield f"{what} are pending: it must be reset" if what.endswith("s") else f"{what} is pending: it must be reset"
    yield from _words(gpu.get("failed"))
    if reset := _word(gpu.get("reset")):
        yield reset
    for reason in _words(gpu.get("slowdowns")):
        yield f"its clocks are held down: {reason.replace('_', ' ')}"
    width, most = _number(gpu.get("width")), _number(gpu.get("width_max"))
    if width is not None and most is not None and width < most:
        yield f"PCIe x{width:.0f}, where x{most:.0f} is possible"
    if gpu.get("mig") is True:
        yield "MIG is on, and a rank takes a whole GPU"
    fabric = _word(gpu.get("nvlink_fabric"))
    if fabric and not all(word.strip().lower() in ("completed", "success") for word in fabric.split(",")):
        yield f"NVLink's switches: {fabric}; is the fabric manager running?"
    used = _number(gpu.get("used_mib"))
    if used is not None and used > site.preflight.idle_mib:
        by = ", ".join(_words(gpu.get("processes"))[:3])
        yield f"{used:,.0f} MiB of its memory are in use before the job{f': {by}' if by else ''}"
    broken = _words(gpu.get("broken"))
    if broken:
        yield f"the driver cannot read it: {', '.join(broken[:3])}"


def _gen(gpu: dict[str, Any]) -> Iterator[str]:
    """An idle GPU lowers its link's speed to save power, so that a low one is worth no more than a word."""
    gen, most = _number(gpu.get("gen")), _number(gpu.get("gen_max"))
    if gpu.get("pstate") == "P0" and gen is not None and most is not None and gen < most:
        yield f"PCIe generation {gen:.0f}, where {most:.0f} is possible, and it is not asleep (P0)"


def _dcgm(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if error := _word(told.get("error")):
        yield "fail", error
    for finding in _dicts(told.get("findings")):
        test, gpu, said = (_word(finding.get(key)) for key in ("test", "gpu", "said"))
        grade = _word(finding.get("grade"))
        yield grade, f"DCGM, {test}{f' of GPU {gpu}' if gpu else ''}: {said or grade}"


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, (list, tuple)) else []


def _number(value: Any) -> float | None:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15
    return value if fine else None


def _word(value: Any) -> str:
    return " ".join(value.split())[:200] if isinstance(value, str) else ""


def _words(value: Any) -> list[str]:
    return [_word(one) for one in value if _word(one)] if isinstance(value, (list, tuple)) else []
