"""The page of a run: one self-contained HTML file from what a run folder holds. Computes no score and trains nothing.

`build(run)` writes `report.html` into the run folder and returns its path.
"""

from __future__ import annotations

from toolkit.report.page import build

__all__ = ["build"]
