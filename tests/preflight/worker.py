"""A rank of a preflight, run as a script: `worker.py FOLDER LIMIT_S [RANK=CHANGE ...]`. Rank 0 leaves what it found.

A CHANGE is what is wrong with a rank: `gone`, `rank:N`, `local:N`, `master:ADDRESS:PORT`, `version:TEXT`,
`clock:SECONDS` (on a node of its own), `elsewhere` (it sees another folder).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import toolkit
from toolkit import files, preflight


def main() -> int:
    folder, limit_s = Path(sys.argv[1]), float(sys.argv[2])
    changes = dict(word.split("=", 1) for word in sys.argv[3:])
    what, _, value = changes.get(os.environ["RANK"], "").partition(":")
    if what == "gone":
        time.sleep(limit_s + 2)  # it lives, and says nothing
        return 0
    if what in ("rank", "local"):
        os.environ["RANK" if what == "rank" else "LOCAL_RANK"] = value
    if what == "master":
        os.environ["MASTER_ADDR"], _, os.environ["MASTER_PORT"] = value.rpartition(":")
    if what == "version":
        toolkit.__version__ = value
    if what == "clock":
        os.environ.update(SLURMD_NODENAME="late", NODE_RANK="1")
        true, off = time.time, float(value)
        time.time = lambda: true() + off
    if what == "elsewhere":
        folder = folder / "elsewhere"
    own = preflight.gather(gpu=False)
    heard, why = preflight.meet(own, folder=folder, limit_s=limit_s)
    if heard is None:
        print("alone:", why, flush=True)
        return 3 if why else 0
    wanted = preflight.Wanted(world=int(os.environ["WORLD_SIZE"]), per_node=int(os.environ["WORLD_SIZE"]), gpu=False)
    found = preflight.faults(heard.told, wanted, heard.unheard)
    files.write_json(folder / "found.json", [str(fault) for fault in found])
    print(preflight.table(heard.told, found, []), flush=True)
    return 4 if found else 0


if __name__ == "__main__":
    sys.exit(main())
