"""A measuring process that is not well: `slow` waits before each all-reduce, `hangs` never joins one over two nodes,
`dies` is killed in it. All of the rest is the real one.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from toolkit.preflight import worker

SLOW_S = 0.2


def main() -> int:
    import torch.distributed as dist

    real = dist.all_reduce

    def odd(*args: object, **options: object) -> object:
        if sys.argv[1] == "slow":
            time.sleep(SLOW_S)
        elif sys.argv[1] == "hangs":
            time.sleep(3600)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)

    dist.all_reduce = odd  # type: ignore[assignment]
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
