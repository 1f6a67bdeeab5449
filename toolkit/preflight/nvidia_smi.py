"""What `nvidia-smi -q -x` tells of a node's GPUs. Its XML and not `--query-gpu`, which refuses a whole list for one
field that a driver does not know. Decides which fields mean what over the drivers' versions; judges none of them.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

COMMAND = ("nvidia-smi", "-q", "-x")
_LONGEST = 16 << 20
_NOTHING = {"", "N/A", "[N/A]", "NOT SUPPORTED", "[NOT SUPPORTED]", "NONE"}
_NOTHING |= {"REQUESTED FUNCTIONALITY HAS BEEN DEPRECATED"}
_BROKEN = re.compile(r"ERR!|unknown error|gpu is lost|requires reset|insufficient permissions", re.IGNORECASE)
_MOST = 20
# Reasons of a clock that is held down which are no fault: idleness, limits that somebody set, and the power cap.
_SLOWDOWNS = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU; None where the driver does not tell. Widths are PCIe lanes, `uncorrected` counts ECC errors since the
    driver was loaded, `slowdowns` what holds its clocks down, `broken` fields that the driver could not read.
    """

    index: int
    name: str = ""
    bus: str = ""
    memory_mib: int | None = None
    used_mib: int | None = None
    ecc: str = ""
    uncorrected: int | None = None
    retired: int | None = None
    remapped: int | None = None
    pending: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    slowdowns: tuple[str, ...] = ()
    pstate: str = ""
    gen: int | None = None
    gen_max: int | None = None
    width: int | None = None
    width_max: int | None = None
    mig: bool = False
    nvlink_fabric: str = ""
    reset: str = ""
    processes: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    driver: str = ""
    cuda: str = ""
    attached: int | None = None
    gpus: tuple[Gpu, ...] = ()


def read(text: str) -> Report:
    """Raises `ValueError`, in words for people, for what is no such report: empty, cut off, or an error instead."""
    start = text.find("<nvidia_smi_log")
    if start < 0:
        said = " ".join(text.split())[:200]
        raise ValueError(f"nvidia-smi made no report: {said}" if said else "nvidia-smi said nothing")
    if len(text) > _LONGEST or "<!ENTITY" in text:
        raise ValueError("nvidia-smi's report is none that a driver writes")
    try:
        root = ElementTree.fromstring(text[start:])  # without its DOCTYPE, which names a file of the driver's
    except (ElementTree.ParseError, ValueError) as err:
        raise ValueError(f"nvidia-smi's report is cut off or damaged: {err}") from None
    return Report(
        driver=_word(root, "driver_version"),
        cuda=_word(root, "cuda_version"),
        attached=_number(root, "attached_gpus"),
        gpus=tuple(_gpu(number, node) for number, node in enumerate(root.findall("gpu"))),
    )


def _gpu(number: int, node: ElementTree.Element) -> Gpu:
    clocks = [part for name in ("clocks_event_reasons", "clocks_throttle_reasons") for part in node.findall(name)]
    held = {
        reason.tag.partition("_reason_")[2] for part in clocks for reason in part if _text(reason).lower() == "active"
    }
    errors = node.find("ecc_errors/volatile")
    pages = [_number(node, f"retired_pages/{kind}/retired_count")
             for kind in ("multiple_single_bit_retirement", "double_bit_retirement")]  # fmt: skip
    rows = [_number(node, f"remapped_rows/remapped_row_{kind}") for kind in ("corr", "unc")]
    pending = {
        "retired pages": ("retired_pages/pending_retirement", "retired_pages/pending_blacklist"),
        "remapped rows": ("remapped_rows/remapped_row_pending",),
        "a repair of its memory": ("ecc_errors/channel_repair_pending", "ecc_errors/tpc_repair_pending"),
    }
    failed = {
        "row remapping has failed": ("remapped_rows/remapped_row_failure",),
        "its memory cannot be repaired": ("ecc_errors/unrepairable_memory",),
        "SRAM errors are beyond their threshold": ("ecc_errors/aggregate/sram_threshold_exceeded",),
    }
    fabric = [word for name in ("state", "status") if (word := _word(node, f"fabric/{name}"))]
    resets = {"gpu_reset_status/reset_required": "reset required", "gpu_recovery_action": "recovery action"}
    reset = [
        label if said.lower() == "yes" else f"{label}: {said}"
        for path, label in resets.items()
        if (said := _word(node, path)) and said.lower() not in ("no", "none")
    ]
    link = "pci/pci_gpu_link_info"
    return Gpu(
        index=number,
        name=_word(node, "product_name"),
        bus=_word(node, "pci/pci_bus_id") or str(node.get("id", ""))[:40],
        memory_mib=_number(node, "fb_memory_usage/total"),
        used_mib=_number(node, "fb_memory_usage/used"),
        ecc=_word(node, "ecc_mode/current_ecc"),
        uncorrected=_sum([_of(part) for part in _uncorrectable(errors)]),
        retired=_sum(pages),
        remapped=_sum(rows),
        pending=tuple(what for what, paths in pending.items() if any(_yes(node, path) for path in paths)),
        failed=tuple(what for what, paths in failed.items() if any(_yes(node, path) for path in paths)),
        slowdowns=tuple(name for name in _SLOWDOWNS if name in held),
        pstate=_word(node, "performance_state"),
        gen=_number(node, f"{link}/pcie_gen/current_link_gen"),
        gen_max=_number(node, f"{link}/pcie_gen/max_link_gen"),
        width=_number(node, f"{link}/link_widths/current_link_width"),
        width_max=_number(node, f"{link}/link_widths/max_link_width"),
        mig=_word(node, "mig_mode/current_mig").lower() == "enabled",
        nvlink_fabric=", ".join(fabric),
        reset=", ".join(reset),
        processes=tuple(_process(part) for part in node.findall("processes/process_info")[:_MOST]),
        broken=tuple(
            f"{part.tag}: {' '.join(_text(part).split())[:60]}" for part in node.iter() if _BROKEN.search(_text(part))
        )[:_MOST],
    )


def _uncorrectable(errors: ElementTree.Element | None) -> list[ElementTree.Element]:
    """Since driver 440 by memory, before as totals of double bit errors; newer ones split those of the SRAM."""
    if errors is None:
        return []
    named = [part for part in errors if "uncorrectable" in part.tag]
    return named or errors.findall("double_bit/total")


def _process(node: ElementTree.Element) -> str:
    return f"{_word(node, 'process_name') or '?'} (process {_word(node, 'pid') or '?'})"


def _text(node: ElementTree.Element) -> str:
    return (node.text or "").strip()


def _word(node: ElementTree.Element, path: str) -> str:
    found = node.find(path)
    word = "" if found is None else " ".join(_text(found).split())[:120]
    return "" if word.upper() in _NOTHING else word


def _yes(node: ElementTree.Element, path: str) -> bool:
    return _word(node, path).lower() == "yes"


def _number(node: ElementTree.Element, path: str) -> int | None:
    found = node.find(path)
    return None if found is None else _of(found)


def _of(node: ElementTree.Element) -> int | None:
    """`81920 MiB`, `16x`, `0`: the number at its begin."""
    match = re.match(r"\d{1,15}(?![\d.,])", _text(node), re.ASCII)
    return int(match[0]) if match else None


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
