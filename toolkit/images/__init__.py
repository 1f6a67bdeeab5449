"""Apptainer images: built whole or not at all, known by digest and by what they were made from, staged on nodes.

Decides which file is which image; leaves what runs in it to the launcher, and what goes into it to containers/*.def.
"""

from __future__ import annotations

from toolkit.images.build import Built, build
from toolkit.images.check import check
from toolkit.images.listing import Entry, listing, verify
from toolkit.images.plan import Options
from toolkit.images.sidecar import identity
from toolkit.images.stage import stage

__all__ = ["Built", "Entry", "Options", "build", "check", "identity", "listing", "stage", "verify"]
