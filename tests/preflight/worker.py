"""A rank of a preflight, run as a script: `worker.py FOLDER LIMIT_S [RANK=CHANGE ...] [measure]`. Rank 0 leaves what it
found in found.json, and with `measure`, where each rank is a node of its own, what was measured in preflight.json.

A CHANGE is what is wrong with a rank: `gone`, `rank:N`, `local:N`, `master:ADDRESS:PORT`, `version:TEXT`,
`clock:SECONDS` (on a node of its own), `elsewhere` (it sees another folder), `slow`, `hangs`, `dies` (it measures so).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import toolkit
from toolkit import files, preflight
from toolkit.preflight import hands, outcome
from toolkit.recipe.schema import Cluster, Preflight

ODD = Path(__file__).with_name("odd_worker.py")
PLAN = Preflight(size_mib=4, limit_s=10.0, start_s=120.0)


def main() -> int:
    folder, limit_s = Path(sys.argv[1]), float(sys.argv[2])
    changes = dict(word.split("=", 1) for word in sys.argv[3:] if "=" in word)
    measured = "measure" in sys.argv
    what, _, value = changes.get(os.environ["RANK"], "").partition(":")
    if what == "gone":
        time.sleep(limit_s + 2)  # it lives, and says nothing
        return 0
    if measured:
        os.environ.update(SLURMD_NODENAME=f"n{os.environ['RANK']}", NODE_RANK=os.environ["RANK"], LOCAL_RANK="0")
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
    world = int(os.environ["WORLD_SIZE"])
    wanted = preflight.Wanted(world=world, per_node=1 if measured else world, gpu=False)
    command = [sys.executable, str(ODD), what] if what in ("slow", "hangs", "dies") else hands.WORKER
    own_hands = preflight.Hands(own, gpu=False, command=command)
    site = Cluster(name="test", device="cpu", nodes=world, devices_per_node=1, preflight=PLAN)

    def lead(table: preflight.Table) -> object:
        from toolkit.stages import preflight as stage

        return stage.lead(table, wanted, site, folder / "nodes")

    try:
        heard, why = preflight.meet(
            own, folder=folder, limit_s=limit_s, obey=own_hands, lead=lead if measured else None
        )
    finally:
        own_hands.close()
    if heard is None:
        print("alone:", why, flush=True)
        return 3 if why else 0
    met = preflight.faults(heard.told, wanted, heard.unheard)
    found = outcome.judge(met, [], preflight.Nodes(), heard.led, site, world if measured else 1)
    files.write_json(folder / "found.json", [str(fault) for fault in found.faults])
    files.write_json(folder / "preflight.json", preflight.as_dict(heard.told, found, None, heard.led))
    print(preflight.table(heard.told, found, heard.led), flush=True)
    return 4 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
