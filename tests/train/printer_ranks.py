"""Two ranks where rank 0 alone has a progress printer, as NeMo arranges it: `printer_ranks.py stock|safe`."""

from __future__ import annotations

import datetime
import sys


def main() -> None:
    from toolkit.train import seams

    seams.install_nemo()
    import torch
    from megatron.core.timers import Timers
    from nemo.lightning.pytorch.callbacks.progress_printer import ProgressPrinter

    from toolkit.train.callbacks import SafePrinter

    torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=10))
    timers = Timers(0, "minmax")
    if torch.distributed.get_rank() == 0:
        printer = ProgressPrinter() if sys.argv[1] == "stock" else SafePrinter()
        printer.log_megatron_timers(timers)
    told = [torch.distributed.get_rank()]
    torch.distributed.broadcast_object_list(told, src=0)
    assert told == [0]


if __name__ == "__main__":
    main()
