"""`built_ranks.py SPEC.json OUT.json`: recipes as NeMo builds them on the meta device, one after the other.

SPEC is a list of {recipe, overrides, ranks ("first": rank 0 alone, "distinct", "all"), rows (embedding rows instead of
the plan's)}; OUT has for each what `instantiate` gives, or of "first" what it gives of rank 0, or {"refused": why}.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any


def build(recipe: str, overrides: list[str], ranks: str, rows: int | None = None) -> dict[str, Any]:
    from toolkit.errors import PlanRefused
    from toolkit.plan.__main__ import job
    from toolkit.recipe import compose
    from toolkit.train import instantiate, seams

    asked = job(compose(recipe, overrides).recipe)
    if rows is not None:
        asked = dataclasses.replace(asked, vocab_rows=rows)
    if ranks != "first":
        try:
            return instantiate.instantiate(asked, ranks=ranks)  # type: ignore[arg-type]
        except PlanRefused as err:
            return {"refused": str(err)}
    seams.install_nemo("meta")
    from toolkit.train import built

    with built.rank(asked, 0) as made:
        return {**built.of_rank_0(made), "rank": built.look(made)}


def main() -> None:
    found = []
    for case in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        since = time.monotonic()
        found.append(build(**case))
        print(f"{case['recipe']} {case['overrides']}: {time.monotonic() - since:.1f} s", flush=True)
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
