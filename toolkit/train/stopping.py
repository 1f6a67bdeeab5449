"""Hearing that a training is asked to stop, and showing its stacks when asked where it hangs. Decides what the signals
of a training process mean; when and how it stops is left to `saving`. Loads nothing heavy: it comes before all else.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

ASKED_BY = (signal.SIGUSR2, signal.SIGTERM)  # a time limit that comes near; preemption, a cancelled job, Ctrl-C

_installed = False
_asked = False


def install() -> None:
    """From now on SIGUSR2 and SIGTERM, however often and in whatever order, only ask this process to stop; SIGQUIT
    writes the stacks of all threads to stderr and the process lives on. Call it in the main thread.
    """
    global _installed
    if not _installed:
        os.register_at_fork(after_in_child=_deaf)
    _installed = True
    faulthandler.enable(all_threads=True)
    faulthandler.unregister(signal.SIGQUIT)  # else registering again does nothing, and Lightning may have put it back
    faulthandler.register(signal.SIGQUIT, all_threads=True, chain=False)
    for signum in ASKED_BY:
        signal.signal(signum, _ask)
        signal.siginterrupt(signum, False)  # a system call under way, such as a collective's, goes on


def renew() -> None:
    """Again, if it was done before: Lightning puts handlers of its own, and at the end those that Python knows of."""
    if _installed:
        install()


def over() -> None:
    """Nothing is left to be stopped: what still asks is ignored. Whoever asks does so again until this process is gone,
    and on its way out Python would put back the signals' own meaning, to die.
    """
    if _installed:
        for signum in ASKED_BY:
            signal.signal(signum, signal.SIG_IGN)


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _asked


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """A process that is started anew inside (not forked) never hears that a whole process group is asked to stop. This
    one hears it afterwards.
    """
    resource_tracker.ensure_running()  # it would be started inside, and leave SIGTERM unblocked behind it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKED_BY)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ask(signum: int, frame: object) -> None:
    global _asked
    _asked = True


def _deaf() -> None:
    """What the trainer forks (readers of data, writers of checkpoints) does not stop when a whole process group is
    asked to: the step and the save need it. It still ends when the trainer itself ends it, as PyTorch's readers do.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKED_BY)
    threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    while True:
        told = signal.sigwaitinfo(ASKED_BY)
        if told.si_signo == signal.SIGTERM and told.si_pid == parent:
            os._exit(0)
