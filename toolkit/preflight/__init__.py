"""Whether the nodes of a job are as a training needs them, found out by its own ranks meeting where they would train.

Decides what hosts and ranks tell of themselves, what is measured between them, and what is a fault of which node;
leaves starting them and showing the result to others. Loads nothing heavy.
"""

from toolkit.preflight.bandwidth import Bandwidth, Plan, budget_s, measure
from toolkit.preflight.facts import Facts, gather
from toolkit.preflight.hands import Hands
from toolkit.preflight.host import facts as host_facts
from toolkit.preflight.host import limit_s as host_limit_s
from toolkit.preflight.judge import Fault, Wanted, faults, measurable, warnings
from toolkit.preflight.localise import Limits, Measured
from toolkit.preflight.meeting import Meeting, Table, meet
from toolkit.preflight.outcome import Nodes, Outcome
from toolkit.preflight.show import as_dict, table

__all__ = [
    "Bandwidth",
    "Facts",
    "Fault",
    "Hands",
    "Limits",
    "Measured",
    "Meeting",
    "Nodes",
    "Outcome",
    "Plan",
    "Table",
    "Wanted",
    "as_dict",
    "budget_s",
    "faults",
    "gather",
    "host_facts",
    "host_limit_s",
    "measurable",
    "measure",
    "meet",
    "table",
    "warnings",
]
