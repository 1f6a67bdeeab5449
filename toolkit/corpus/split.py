"""Which documents validate: decided for each by a hash of the seed and its id, whatever the order or the neighbours."""

from __future__ import annotations

import hashlib


def position(seed: int, document_id: str) -> float:
    """A number in [0, 1) that looks random and is the same everywhere; below `valid_fraction` a document validates."""
    digest = hashlib.sha256(f"{seed}\0{document_id}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
