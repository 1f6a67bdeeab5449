"""From sources to a clean corpus: documents read, mended, filtered and deduplicated, every loss counted.

Decides what enters the parts of `train/` and `valid/`; leaves tokens to `shards`. `toolkit.corpus.world` invents text.
"""

from __future__ import annotations

from toolkit.corpus.builder import CorpusReport, build, build_units, prepare
from toolkit.corpus.document import BadRow, Document, Left, Withdrawal
from toolkit.corpus.sources import Settings, Source

__all__ = [
    "BadRow",
    "CorpusReport",
    "Document",
    "Left",
    "Settings",
    "Source",
    "Withdrawal",
    "build",
    "build_units",
    "prepare",
]
