"""Shards: documents as token ids in Megatron's `.bin/.idx` format, written, checked and read back.

Decides how documents become shards and when shards can be trusted; leaves what is in the text to `corpus`, and mixing
and sampling to `train`.
"""

from __future__ import annotations

from toolkit.shards.against import against
from toolkit.shards.blend import Blend
from toolkit.shards.build import BadRow, Built, Parts, build, build_parts, encode_parts
from toolkit.shards.check import ShardInfo, info, read, show, verify
from toolkit.shards.given import Given, given
from toolkit.shards.join import merge
from toolkit.shards.sample import sample
from toolkit.shards.sources import Source, corpus, sources
from toolkit.shards.texts import texts

__all__ = [
    "BadRow",
    "Blend",
    "Built",
    "Given",
    "Parts",
    "ShardInfo",
    "Source",
    "against",
    "build",
    "build_parts",
    "corpus",
    "encode_parts",
    "given",
    "info",
    "merge",
    "read",
    "sample",
    "show",
    "sources",
    "texts",
    "verify",
]
