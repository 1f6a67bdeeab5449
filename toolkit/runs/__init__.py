"""Run folders: where a launch keeps everything, as files. Light; knows nothing of what a stage does."""

from toolkit.runs.folder import Run, create, find
from toolkit.runs.lock import held
from toolkit.runs.records import done, is_done, record_done

__all__ = ["Run", "create", "done", "find", "held", "is_done", "record_done"]
