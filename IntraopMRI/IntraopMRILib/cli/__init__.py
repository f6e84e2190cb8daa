"""The command line: ``python -m IntraopMRILib.cli``."""

from .commands import main
from .results import finished_or_nothing

__all__ = ["finished_or_nothing", "main"]
