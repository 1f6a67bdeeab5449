"""Whether the nodes of a job are as a training needs them, found out by its own ranks meeting where they would train.

Decides what a rank tells of itself and what is a fault of which node; leaves starting the ranks and showing the result
to others. Loads nothing heavy.
"""

from toolkit.preflight.facts import Facts, gather
from toolkit.preflight.judge import Fault, Wanted, faults, warnings
from toolkit.preflight.meeting import Meeting, meet
from toolkit.preflight.show import as_dict, table

__all__ = ["Facts", "Fault", "Meeting", "Wanted", "as_dict", "faults", "gather", "meet", "table", "warnings"]
