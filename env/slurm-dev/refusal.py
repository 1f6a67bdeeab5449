"""The one error that slurm-dev shows its user: a sentence or a short list, and an exit code."""

from __future__ import annotations


class Refused(Exception):
    """1 it did not work, 2 wrong usage, 4 the machine lacks something."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
