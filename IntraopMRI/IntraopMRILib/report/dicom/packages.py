"""Packages that the objects and their way to the archive need, loaded when they are first used."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from IntraopMRIReconstructionLib.errors import SessionError

#: What Slicer installs and what a person would, by the module's name. Slicer bundles the first one.
REQUIREMENTS = {"highdicom": "highdicom>=0.27", "pynetdicom": "pynetdicom>=3.0"}


def missing(*names: str) -> list[str]:
    """Requirements of those modules that are not installed."""
    return [REQUIREMENTS[name] for name in names if importlib.util.find_spec(name) is None]


def highdicom() -> ModuleType:
    """The library for segmentations and reports. Raises SessionError when it is not installed."""
    for part in ("color", "seg", "sr"):
        _loaded(f"highdicom.{part}")
    return _loaded("highdicom")


def pynetdicom() -> ModuleType:
    """The library for the network. Raises SessionError when it is not installed."""
    return _loaded("pynetdicom")


def _loaded(name: str) -> ModuleType:
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SessionError(
            f"the Python package '{package}' is not installed ({error}): pip install '{REQUIREMENTS[package]}', then "
            "repeat"
        ) from error
