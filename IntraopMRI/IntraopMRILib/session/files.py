"""Cases and drawings as files: what Slicer saves, read for procedures that are about measures.

A case folder holds ``plan.json`` and ``preop.nrrd`` or ``spine_preop.nrrd``; beside them, as far as the measure needs
it, ``nidus.nrrd``, ``landmarks.mrk.json``, ``centreline.mrk.json`` and ``correction.json``, all of the preoperative
frame. Markups are LPS on disk unless they say RAS; a correction is {"preop_from_preop": 4 x 4}, RAS, mm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Matrix, checked_rigid
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS, apply

from ..dicom_series import is_dicom, read_series
from ..segmentations import check_within, read_segmentation, read_structure
from .measures import RECIPES
from .plan import Plan

#: What a case folder may hold beside the volume, by the name that the plan gives it.
DRAWN_BEFORE = {
    "nidus": "nidus.nrrd",
    "landmarks": "landmarks.mrk.json",
    "centreline": "centreline.mrk.json",
    "correction": "correction.json",
}
Points = tuple[tuple[str, npt.NDArray[np.float64]], ...]


def plan_of_files(case: Path, kind: str) -> Plan:
    """The plan of a procedure that is about one measure. Raises an IntraopError that names what is missing."""
    from IntraopMRIReconstructionLib.simulate.case_files import read_case

    content = read_case(case)
    place = case / "case" if (case / "case").is_dir() else case
    preop = content.preop if content.preop is not None else content.spine_preop
    assert preop is not None, "a case has one of them"

    files = {name: place / file for name, file in DRAWN_BEFORE.items() if (place / file).exists()}
    plan = _plan(content.plan.patient_id, preop, kind, files)
    # Only then: a tumour makes a session that follows the brain shift and looks for residual.
    return replace(plan, tumour=content.tumour) if kind == "nonenhancing" else plan


def plan_of_volume(preop: Path, patient_id: str, kind: str, files: Mapping[str, Path]) -> Plan:
    """The same of a volume (NIfTI, NRRD or DICOM) without a case folder. ``files``: by the names of DRAWN_BEFORE.

    Raises an IntraopError that names what is missing, and when the volume is of another patient.
    """
    from IntraopMRIReconstructionLib.simulate.volumes import read_volume

    if not is_dicom(preop):
        return _plan(patient_id, read_volume(preop), kind, files)
    image, header = read_series(preop)
    return _plan(patient_id, replace(image, patient_id=header.patient_id), kind, files)


def _plan(patient_id: str, preop: Image, kind: str, files: Mapping[str, Path]) -> Plan:
    nidus, landmarks, line, correction = (files.get(name) for name in DRAWN_BEFORE)
    return Plan(
        patient_id,
        f"{RECIPES[kind].title}, intraoperative control",
        preop,
        landmarks={} if landmarks is None else named(read_points(landmarks), landmarks),
        measures=(kind,),
        nidus=None if nidus is None else read_outline(nidus, preop),
        centreline=None if line is None else np.array([point for _name, point in read_points(line)]),
        correction=None if correction is None else read_correction(correction),
    )


def read_outline(path: Path, drawn_on: Image | None = None) -> Image:
    """A label (0 outside) as the Segment Editor saves it, empty when nothing is left; or the only structure of a DICOM
    object. ``drawn_on``: see :func:`.segmentations.read_segmentation`. Raises DataError.
    """
    from IntraopMRIReconstructionLib.simulate.volumes import read_volume

    if is_dicom(path):
        return read_structure(path, "", drawn_on, "a file that holds it alone")
    label = read_volume(path, smallest=1)
    if not np.array_equal(label.array, np.rint(label.array)):
        raise DataError(f"{path} holds {label.array.dtype}, expected a label of whole numbers: save the segmentation")
    return label.with_array(label.array.astype(np.int32))


def read_structures(named: str, drawn_on: Image) -> dict[str, Image]:
    """Outlined structures (0 outside) by their names: all that a segmentation of Slicer (.seg.nrrd) or a DICOM object
    names (its path), or a file of one with the name that is given to it ('L3=label.nii.gz'). Raises DataError.
    """
    name, given, file = named.rpartition("=")
    if not file or (given and not name.strip()):
        raise DataError(f"'{named}' names no structure: give a segmentation, or NAME=LABEL, such as 'L3=label.nii.gz'")
    path = Path(file)
    if given:
        one = read_structure(path, "", drawn_on, "a file that holds it alone")
        return {name.strip(): replace(one, name=name.strip())}
    found = read_segmentation(path, drawn_on)
    if not found or not all(structure.name for structure in found):
        raise DataError(
            f"{path} does not say how its segments are called: name a segmentation that Slicer saved as .seg.nrrd, or "
            "give the name with NAME=LABEL"
        )
    labels: dict[str, Image] = {}
    for structure in found:
        if structure.name in labels:
            raise DataError(f"two segments of {path} are called '{structure.name}': name them apart")
        labels[structure.name] = structure.mask()
        check_within(labels[structure.name], drawn_on, f"'{structure.name}' of {path}")
    return labels


def read_points(path: Path) -> Points:
    """Name and place (3,), RAS mm, of each point of a markups file (.mrk.json), in order. Raises DataError."""
    content = _read_json(path)
    try:
        (markup,) = content["markups"]
        frame = str(markup.get("coordinateSystem", "LPS"))
        points = [(str(p["label"]), p.get("positionStatus", "defined"), p["position"]) for p in markup["controlPoints"]]
        places = np.array([place for _, _, place in points], dtype=np.float64).reshape(-1, 3)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is no file of one markup with control points: {error!r}; save it from Slicer"
        ) from error
    if frame not in ("LPS", "RAS"):
        raise DataError(f"{path} is in '{frame}', expected LPS or RAS: save it from Slicer again")
    undefined = [name for name, status, _ in points if status != "defined"]
    if undefined or not np.isfinite(places).all():
        raise DataError(f"points of {path} are not placed: {undefined or 'some'}; place them or remove them")
    ras = places if frame == "RAS" else apply(RAS_FROM_LPS, places)
    return tuple((name, place) for (name, _, _), place in zip(points, ras, strict=True))


def named(points: Points, path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Points by their names. Raises SessionError when two have one name."""
    found = dict(points)
    if len(found) < len(points):
        raise SessionError(f"two points of {path} have one name: number them apart, as 'upper 1' and 'upper 2'")
    return found


def read_correction(path: Path) -> Matrix:
    """The planned motion (4, 4) of a bone, RAS mm. Raises DataError when it is none."""
    content = _read_json(path)
    try:
        matrix = np.array(content["preop_from_preop"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f'{path} is no correction: {error!r}; it needs "preop_from_preop", four rows of four'
        ) from error
    return checked_rigid(matrix, f"preop_from_preop of {path.name}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): name a JSON file that is there") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): Slicer saves markups as .mrk.json") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object")
    return content
