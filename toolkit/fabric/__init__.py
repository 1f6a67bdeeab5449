"""The fabric between nodes: what a node's /sys tells of it, what NCCL is told, and how nodes differ.

Decides nothing about jobs: who detects where, and what becomes of a node that differs, is for others. Loads nothing
heavy.
"""

from toolkit.fabric.choose import ceiling_gb_s, kind_of, need, select
from toolkit.fabric.compare import Difference, differences
from toolkit.fabric.envfile import parse, text
from toolkit.fabric.model import Fabric, Gid, Gpu, Netdev, Port, from_dict
from toolkit.fabric.node import detect
from toolkit.fabric.settings import Value, pinned, values, with_caller

__all__ = [
    "Difference",
    "Fabric",
    "Gid",
    "Gpu",
    "Netdev",
    "Port",
    "Value",
    "ceiling_gb_s",
    "detect",
    "differences",
    "from_dict",
    "kind_of",
    "need",
    "parse",
    "pinned",
    "select",
    "text",
    "values",
    "with_caller",
]
