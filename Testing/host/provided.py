"""How the host refuses what it does not provide: loudly, and with what to do."""

from __future__ import annotations

from types import ModuleType
from typing import Any


class NotProvided(AttributeError):
    """Something of the application that the host has no stand-in for."""

    def __init__(self, owner: str, name: str) -> None:
        super().__init__(
            f"the host does not provide '{owner}.{name}'. If real Slicer has it, add a stand-in to Testing/host that "
            "names its source file, and its row to Testing/host/realapi.py; otherwise the code that asks for it is "
            "wrong."
        )


class LoudModule(ModuleType):
    """A module in which every missing name is refused with an explanation."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotProvided(self.__name__, name)
