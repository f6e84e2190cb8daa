"""Saves a session's scene so that Slicer opens it, completely or not at all, and loads it again."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import slicer
from IntraopMRIReconstructionLib.errors import DataError, SessionError

BUNDLE = ".mrb"


def saveScene(scene: Any, target: str | os.PathLike[str]) -> Path:
    """Save the scene and all its data, with relative paths, as ``NAME.mrb`` or as a folder ``NAME``.

    The folder holds ``NAME.mrml`` and ``Data/`` (compressed .nrrd and .seg.nrrd, .mrk.json, .vtk, .h5). An earlier
    scene of that name is replaced only when the new one is complete. Returns the file that Slicer opens.
    Raises DataError for a target that is something else, SessionError when the scene cannot be written.
    """
    path = Path(target).absolute()
    asBundle = path.suffix == BUNDLE
    if path.exists() and not _isScene(path):
        raise DataError(f"'{path}' exists and is no saved scene; choose another name")
    if not path.parent.is_dir():
        raise DataError(f"the folder '{path.parent}' does not exist; create it first")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as workplace:
        folder = Path(workplace) / path.stem
        folder.mkdir()
        messages = slicer.vtkMRMLMessageCollection()
        if not scene.SaveSceneToSlicerDataBundleDirectory(str(folder), None, messages):
            free_mb = shutil.disk_usage(path.parent).free / 1e6
            raise SessionError(
                f"the scene could not be saved to '{path}', where {free_mb:.0f} MB are free: {_first(messages)}"
            )
        finished = _zipped(folder) if asBundle else folder
        if path.is_dir():
            # A folder cannot be replaced in one step: the old one stands aside until the new one is in place.
            path.rename(Path(workplace) / "before")
        finished.replace(path)
    return path if asBundle else path / f"{path.name}.mrml"


def loadScene(scene: Any, source: str | os.PathLike[str]) -> None:
    """Load a saved scene (``.mrb``, ``.mrml`` or the folder) into an empty scene.

    Raises DataError when it is missing, SessionError when it cannot be read.
    """
    path = Path(source).absolute()
    if path.is_dir() and path.suffix != BUNDLE:
        path = path / f"{path.name}.mrml"
    if not path.is_file():
        raise DataError(f"there is no scene at '{path}'; choose a .mrb or .mrml file, or a folder saved by this module")
    if path.suffix != BUNDLE:
        _read(scene, path)
        return
    with tempfile.TemporaryDirectory() as unpacked:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(unpacked)
        except zipfile.BadZipFile as error:
            raise SessionError(f"'{path}' is no scene bundle or is damaged: {error}; choose another file") from error
        found = sorted(Path(unpacked).rglob("*.mrml"))
        if len(found) != 1:
            raise SessionError(f"'{path}' holds {len(found)} scenes, expected one; choose another file")
        _read(scene, found[0])


def _read(scene: Any, path: Path) -> None:
    messages = slicer.vtkMRMLMessageCollection()
    scene.SetURL(str(path))
    if not scene.Import(messages):
        raise SessionError(f"the scene '{path}' could not be read: {_first(messages)}")


def _first(messages: Any) -> str:
    """What went wrong first; a full disk is told of every node, over many lines."""
    return next((line for line in messages.GetAllMessagesAsString().splitlines() if line.strip()), "no reason is given")


def _isScene(path: Path) -> bool:
    if path.is_file():
        return path.suffix == BUNDLE
    return not any(path.iterdir()) or (path / f"{path.name}.mrml").is_file()


def _zipped(folder: Path) -> Path:
    bundle = folder.with_suffix(BUNDLE)
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    shutil.rmtree(folder)
    return bundle
