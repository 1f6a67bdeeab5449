"""What a finetuning is on: one benchmark, or several with weights, in one word.

Decides how that word is read; leaves what a benchmark is, and whether it is known, to others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from toolkit.errors import RecipeError

KNOWN = {
    # The released code counts 369,847 rows: 10,178 + 159,669 + 200,000.
    "mixedmed": "medqa+medmcqa+pubmedqa",
}
"""Mixtures by name, as the paper's finetuning code has them."""


def parse(word: str, where: object = "finetune.benchmark") -> Mapping[str, float]:
    """Benchmark -> how often each of its rows comes in an epoch: `medqa`, `medqa+medmcqa`, `medqa*2+medmcqa*0.5`.

    Raises `RecipeError` for a name that is missing or stands twice, and for a weight that is no number above 0.
    """
    found: dict[str, float] = {}
    for part in KNOWN.get(word, word).split("+"):
        name, times, weight = part.strip().partition("*")
        name = name.strip()
        try:
            value = float(weight) if times else 1.0
        except ValueError:
            value = math.nan
        if not name or not 0 < value < 1000:
            what = f"'{part.strip()}' in '{word}' is no benchmark, nor one with a weight above 0"
            raise RecipeError(what, where=str(where), do="write it as medqa, medqa+medmcqa or medqa*2+medmcqa*0.5")
        if name in found:
            raise RecipeError(f"'{name}' stands twice in '{word}'", where=str(where), do=f"give a weight: {name}*2")
        found[name] = value
    return found
