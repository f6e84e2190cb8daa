"""The command line: ``python -m IntraopMRILib.cli``."""

from .commands import finished_or_nothing, main, plan_of_case

__all__ = ["finished_or_nothing", "main", "plan_of_case"]
