"""Runs of cheap stages, as the stages' own tests make them."""

from __future__ import annotations

from tests.stages.conftest import arguments, make, notes

__all__ = ["arguments", "make", "notes"]
