"""From sources to a clean corpus: documents read, filtered by licence, split by hash, every loss counted.

Decides what enters `train.jsonl` and `valid.jsonl`; leaves tokens to `shards`. `toolkit.corpus.world` invents text.
"""

from __future__ import annotations

from toolkit.corpus.builder import CorpusReport, build, build_part
from toolkit.corpus.document import BadRow, Document
from toolkit.corpus.sift import Source

__all__ = ["BadRow", "CorpusReport", "Document", "Source", "build", "build_part"]
