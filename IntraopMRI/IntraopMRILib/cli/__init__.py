"""The command line: ``python -m IntraopMRILib.cli``."""

from .commands import main, plan_of_case
from .results import finished_or_nothing

__all__ = ["finished_or_nothing", "main", "plan_of_case"]
