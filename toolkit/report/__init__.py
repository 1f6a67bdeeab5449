"""The page of a run: one self-contained HTML file from what a run folder holds. Computes no score and trains nothing.

`build(run)` writes `report.html` into the run folder and returns its path; `nights` has the pages of the
nights, `scores` those of scores on their own.
"""

from __future__ import annotations

from toolkit.report.page import build

__all__ = ["build"]
