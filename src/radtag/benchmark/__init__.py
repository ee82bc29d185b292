"""Methods x sources x folds x seeds from one file to one page of numbers.

:mod:`.plan` reads the file, :mod:`.work` does what it says, cell by cell, and :mod:`.ranking` makes one table of it.
"""

from __future__ import annotations

from radtag.benchmark.plan import Plan, read_plan
from radtag.benchmark.work import Outcome, State, benchmark, chosen, states

__all__ = ["Outcome", "Plan", "State", "benchmark", "chosen", "read_plan", "states"]
