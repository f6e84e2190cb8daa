"""One intraoperative session: what comes in, which stage works on it, what a person decides, what the record keeps."""

from .links import Link
from .plan import Plan
from .receive import role_of
from .session import Session

__all__ = ["Link", "Plan", "Session", "role_of"]
