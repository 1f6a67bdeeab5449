"""Shards: JSONL documents as token ids in Megatron's `.bin/.idx` format, written, checked and read back.

Decides how documents become a shard and when a shard can be trusted; leaves what is in the text to `corpus`, and mixing
and sampling to `train`.
"""

from __future__ import annotations

from toolkit.shards.build import BadRow, Built, build
from toolkit.shards.check import ShardInfo, info, read, show, verify
from toolkit.shards.parts import Part, build_part, merge

__all__ = ["BadRow", "Built", "Part", "ShardInfo", "build", "build_part", "info", "merge", "read", "show", "verify"]
