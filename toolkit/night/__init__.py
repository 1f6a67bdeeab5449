"""Nights: what has been scored of watched trainings, what is due, what was good, and who is told when it got worse.

Decides all that from the files of one history folder; knows neither recipes nor Slurm, and scores nothing itself.
"""

from toolkit.night.due import Choice, Found, choose
from toolkit.night.history import History, Scored

__all__ = ["Choice", "Found", "History", "Scored", "choose"]
