"""A case as files, in three folders: what the pipeline may read, what the simulated theatre needs, and the truth.

``case/``: ``preop.nrrd``, ``flair.nrrd``, ``tumour.seg.nrrd``, ``at_risk.seg.nrrd``, ``spine_preop.nrrd``,
``vertebrae.nrrd``, ``pedicle.nrrd``, ``plan.json``.
``theatre/``: noise-free ``brain_native.nrrd``, ``brain_contrast.nrrd``, ``spine.nrrd``, with ``pointer.json``,
``heating.json`` and ``spine_scan.json``.
``truth/``: ``truth.json``, ``pull.nrrd``, ``push.nrrd``, ``residual.nrrd``, ``residual_non_enhancing.nrrd``,
``cavity.nrrd``, ``brain.nrrd``. Points and matrices in JSON are RAS, mm; volumes are LPS on disk as NRRD wants it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

from ..data import Image
from ..errors import DataError
from ..geometry import apply
from .heating import Ablation
from .lesion import TUMOUR_LABELS
from .phantom import CONTRAST, NATIVE, BrainCase, Truth
from .planned import PlannedThings, plan_things
from .spine import LEVELS_MM, SPINE, Implant, SpineCase
from .volumes import ras_from_sitk, read_volume, sitk_from_image, write_volume

BRAIN_SCANS = {NATIVE: "brain_native.nrrd", CONTRAST: "brain_contrast.nrrd"}
SCANS = {**BRAIN_SCANS, SPINE: "spine.nrrd"}
HEATING = "heating.json"
SEGMENT_COLOURS = {"enhancing": "0.95 0.75 0.2", "necrosis": "0.45 0.3 0.2", "non-enhancing": "0.4 0.7 0.9"}
AT_RISK_COLOUR = "0.7 0.42 1.0"
#: Distances to the residual (mm) at which the simulated surgeon stops with the pointer.
POINTER_STOPS_MM = (20.0, 10.0, 5.0, 0.0)
#: Long enough for a person, and for a test, to read a number (s).
POINTER_DWELL_S = 2.0


@dataclass(frozen=True, eq=False)
class Plan:
    """``plan.json``: whose case it is, and the planned implant in the RAS of ``spine_preop.nrrd``, None without one.

    ``vertebrae``: names of the labelled ones, from head to foot. ``points``: planned points (3,) by name in the RAS of
    ``preop.nrrd``, the target first. ``at_risk``: names of the labels of structures to spare.
    """

    patient_id: str
    patient_name: str
    implant: Implant | None
    vertebrae: tuple[str, ...] = ()
    points: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    at_risk: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PreopCase:
    """What the pipeline may read of a case; what a case does not have is None.

    ``vertebrae``, ``at_risk``: labels 1, 2, ... of what the plan names. ``pedicle``: that of the planned screw.
    """

    plan: Plan
    preop: Image | None
    flair: Image | None
    tumour: Image | None
    at_risk: Image | None
    spine_preop: Image | None
    vertebrae: Image | None
    pedicle: Image | None


@dataclass(frozen=True)
class Stop:
    """A place (RAS mm, intraoperative) where the pointer's tip rests for ``dwell_s``."""

    name: str
    tip_ras_mm: tuple[float, float, float]
    dwell_s: float = POINTER_DWELL_S


def write_case(folder: Path, brain: BrainCase | None, spine: SpineCase | None, patient_id: str = "SIM-0001") -> None:
    """Write a case. Raises DataError when it has neither a brain nor a spine."""
    if brain is None and spine is None:
        raise DataError("a case needs a brain or a spine, got neither")
    case, theatre, truth = (folder / name for name in ("case", "theatre", "truth"))
    for place in (case, theatre, truth):
        place.mkdir(parents=True, exist_ok=True)
    plan: dict[str, Any] = {"patient_id": patient_id, "patient_name": "Simulated patient", "implant": None}
    known: dict[str, Any] = {"patient_id": patient_id}
    if brain is not None:
        write_volume(brain.preop, case / "preop.nrrd")
        write_volume(brain.flair, case / "flair.nrrd")
        tumour_parts = {name: (value, SEGMENT_COLOURS[name]) for name, value in TUMOUR_LABELS.items()}
        _write_segmentation(brain.tumour, case / "tumour.seg.nrrd", tumour_parts)
        things = plan_things(brain)
        names = tuple(things.at_risk)
        structures = {name: (value, AT_RISK_COLOUR) for value, name in enumerate(names, start=1)}
        labels = np.zeros(brain.tumour.array.shape, np.uint8)
        for name, (value, _colour) in structures.items():
            labels[things.at_risk[name].array != 0] = value
        _write_segmentation(brain.tumour.with_array(labels, "at risk"), case / "at_risk.seg.nrrd", structures)
        plan["points"] = {name: point.tolist() for name, point in things.points.items()}
        plan["at_risk"] = list(names)
        for name, file in BRAIN_SCANS.items():
            write_volume(brain.intraop[name], theatre / file)
        ablation = Ablation(_heated_spot(brain.truth))
        _write_json(theatre / HEATING, {key: value for key, value in asdict(ablation).items() if value != np.inf})
        stops, direction, distances = pointer_stops(brain)
        pointer = {"shaft_ras": direction.tolist(), "stops": [asdict(stop) for stop in stops]}
        _write_json(theatre / "pointer.json", pointer)
        known["brain"] = _write_brain_truth(truth, brain, distances) | {"planned": _planned_truth(brain.truth, things)}
    if spine is not None:
        write_volume(spine.preop, case / "spine_preop.nrrd")
        write_volume(spine.vertebrae, case / "vertebrae.nrrd")
        write_volume(spine.pedicle, case / "pedicle.nrrd")
        write_volume(spine.intraop[SPINE], theatre / SCANS[SPINE])
        _write_json(theatre / "spine_scan.json", spine.scan.facts())
        plan["implant"] = {**_implant_json(spine.plan), "frame": "RAS of spine_preop.nrrd"}
        plan["vertebrae"] = list(LEVELS_MM)
        known["spine"] = {
            "seed": spine.seed,
            "intraop_from_preop": spine.truth.intraop_from_preop.tolist(),
            "vertebrae": {name: pose.tolist() for name, pose in spine.truth.vertebrae.items()},
            "actual_intraop": _implant_json(spine.truth.actual),
            "deviations": dict(spine.truth.deviations),
        }
    _write_json(case / "plan.json", plan)
    _write_json(truth / "truth.json", known)


def pointer_stops(brain: BrainCase) -> tuple[list[Stop], npt.NDArray[np.float64], dict[str, float]]:
    """Where the pointer goes, the direction of its shaft, and the true distance (mm) of each stop to the residual.

    The distance is that to the nearest voxel centre of the residual (of the cavity's deepest point without residual).
    """
    truth = brain.truth
    outward = truth.intraop_from_preop[:3, :3] @ brain.grown.opening.outward
    target = truth.residual if truth.residual.array.any() else truth.cavity
    voxels = apply(target.ras_from_ijk, np.argwhere(target.array)[:, ::-1])
    heights = voxels @ outward
    top = voxels[np.argmax(heights) if target is truth.residual else np.argmin(heights)]
    stops = [Stop(f"{d:g} mm", tuple((top + d * outward).tolist())) for d in POINTER_STOPS_MM]
    distances, _ = KDTree(voxels).query([stop.tip_ras_mm for stop in stops])
    return stops, outward, {stop.name: float(d) for stop, d in zip(stops, distances, strict=True)}


def _heated_spot(truth: Truth) -> tuple[float, float, float]:
    """The middle of what is left of the tumour, or of the brain's tissue where nothing is: what would be ablated."""
    label = truth.residual if truth.residual.array.any() else truth.brain
    deep = distance_transform_edt(label.array != 0)
    k, j, i = np.unravel_index(int(deep.argmax()), deep.shape)
    x, y, z = apply(label.ras_from_ijk, np.array([i, j, k], np.float64)).tolist()
    return x, y, z


def read_case(folder: Path) -> PreopCase:
    """Read ``case/`` of a case folder, or the folder itself when it is one. Raises DataError with what is missing."""
    place = folder / "case" if (folder / "case").is_dir() else folder
    plan = read_plan(place / "plan.json")

    def volume(name: str) -> Image | None:
        path = place / name
        return replace(read_volume(path), patient_id=plan.patient_id) if path.exists() else None

    names = ("preop", "flair", "tumour.seg", "at_risk.seg", "spine_preop", "vertebrae", "pedicle")
    result = PreopCase(plan, *(volume(f"{name}.nrrd") for name in names))
    if result.preop is None and result.spine_preop is None:
        raise DataError(f"{place} holds neither preop.nrrd nor spine_preop.nrrd; make a case first")
    return result


def read_plan(path: Path) -> Plan:
    """Read ``plan.json``. Raises DataError when it is missing or not what it should be."""
    content = _read_json(path)
    try:
        implant = content["implant"]
        return Plan(
            str(content["patient_id"]),
            str(content["patient_name"]),
            None if implant is None else _implant_from_json(implant),
            tuple(str(name) for name in content.get("vertebrae", ())),
            {str(name): _point(place) for name, place in content.get("points", {}).items()},
            tuple(str(name) for name in content.get("at_risk", ())),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a plan: {error!r}; it needs patient_id, patient_name and implant") from error


def read_scan(folder: Path, name: str) -> Image:
    """The noise-free image of a scan ('T1 native', 'T1 contrast' or 'spine') that the theatre serves.

    The metadata of the spine say how it was scanned, see :meth:`.metal.MetalScan.facts`.
    """
    plan = read_plan(folder / "case" / "plan.json")
    facts = _read_json(folder / "theatre" / "spine_scan.json") if name == SPINE else {}
    image = read_volume(folder / "theatre" / SCANS[name])
    return replace(image, name=name, patient_id=plan.patient_id, metadata=facts)


def scans_of(folder: Path) -> list[str]:
    """Names of the scans that a case has, in the order of the session."""
    return [name for name, file in SCANS.items() if (folder / "theatre" / file).exists()]


def read_ablation(folder: Path) -> Ablation | None:
    """What is heated when the scanner of a case is asked for its temperature; None for a case without a brain."""
    file = folder / "theatre" / HEATING
    if not file.exists():
        return None
    content = _read_json(file)
    places = {key: tuple(content[key]) for key in ("spot_ras_mm", "moves_mm")}
    return Ablation(**{**content, **places})


def read_pointer(folder: Path) -> tuple[list[Stop], npt.NDArray[np.float64]]:
    """The pointer's stops and the direction of its shaft, RAS. Raises DataError when the case has none."""
    content = _read_json(folder / "theatre" / "pointer.json")
    stops = [Stop(s["name"], tuple(s["tip_ras_mm"]), s["dwell_s"]) for s in content["stops"]]
    return stops, np.array(content["shaft_ras"])


def read_truth(folder: Path) -> tuple[dict[str, Any], Truth | None]:
    """``truth.json`` as it is, and the brain's :class:`Truth` (None without a brain). For those who check results."""
    place = folder / "truth"
    known = _read_json(place / "truth.json")
    if "brain" not in known:
        return known, None

    def mask(name: str) -> Image:
        image = SimpleITK.ReadImage(str(place / f"{name}.nrrd"))
        return Image(SimpleITK.GetArrayFromImage(image) > 0, ras_from_sitk(image), name=name)

    def field(name: str) -> Image:
        image = SimpleITK.ReadImage(str(place / f"{name}.nrrd"))
        lps = SimpleITK.GetArrayFromImage(image)
        return Image(lps * np.array([-1, -1, 1], np.float32), ras_from_sitk(image), name=name)

    pose = np.array(known["brain"]["intraop_from_preop"])
    masks = (mask(name) for name in ("residual", "residual_non_enhancing", "cavity", "brain"))
    return known, Truth(pose, field("pull"), field("push"), *masks)


def _write_brain_truth(place: Path, brain: BrainCase, distances: dict[str, float]) -> dict[str, Any]:
    truth = brain.truth
    for image in (truth.residual, truth.residual_non_enhancing, truth.cavity, truth.brain):
        write_volume(image, place / f"{image.name}.nrrd")
    for image in (truth.pull, truth.push):
        # Displacements are vectors: on disk they are LPS as the header is, so that ITK can use them as a transform.
        write_volume(image.with_array(image.array * np.array([-1, -1, 1], np.float32)), place / f"{image.name}.nrrd")
    return {
        "seed": brain.seed,
        "anatomy": brain.anatomy,
        "intraop_from_preop": truth.intraop_from_preop.tolist(),
        "residual_ml": truth.residual_ml,
        "residual_non_enhancing_ml": truth.residual_non_enhancing.array.sum() * truth.brain.voxel_volume_ml,
        "cavity_ml": truth.cavity.array.sum() * truth.brain.voxel_volume_ml,
        "tumour_ml": {
            name: float((brain.tumour.array == value).sum() * brain.tumour.voxel_volume_ml)
            for name, value in TUMOUR_LABELS.items()
        },
        "pointer_distance_to_residual_mm": distances,
        "largest_shift_mm": float(np.linalg.norm(truth.pull_on(truth.brain)[truth.brain.array], axis=-1).max()),
    }


def _planned_truth(truth: Truth, things: PlannedThings) -> dict[str, Any]:
    """Where each planned thing is now: its point, or the middle of its label, and how far the shift has moved that."""
    places = {name: np.reshape(point, (1, 3)) for name, point in things.points.items()}
    for name, label in things.at_risk.items():
        places[name] = apply(label.ras_from_ijk, np.argwhere(label.array)[:, ::-1].astype(np.float64))
    result = {}
    for name, before in places.items():
        now = truth.intraop_from_preop_points(before)
        moved = np.linalg.norm(now - apply(truth.intraop_from_preop, before), axis=-1)
        result[name] = {"now_ras_mm": now.mean(axis=0).tolist(), "moved_mm": float(moved.mean())}
    return result


def _write_segmentation(label: Image, path: Path, segments: Mapping[str, tuple[int, str]]) -> None:
    """A labelmap with the header fields by which Slicer knows it as a segmentation; value and colour by name."""
    volume = sitk_from_image(label)
    k, j, i = (n - 1 for n in label.array.shape)
    for number, (name, (value, colour)) in enumerate(segments.items()):
        for key, text in {
            "ID": f"Segment_{value}",
            "Name": name,
            "Color": colour,
            "LabelValue": str(value),
            "Layer": "0",
            "Extent": f"0 {i} 0 {j} 0 {k}",
        }.items():
            volume.SetMetaData(f"Segment{number}_{key}", text)
    SimpleITK.WriteImage(volume, str(path), useCompression=True, compressionLevel=1)


def _implant_json(implant: Implant) -> dict[str, Any]:
    return {
        "entry_ras_mm": implant.entry_ras_mm.tolist(),
        "tip_ras_mm": implant.tip_ras_mm.tolist(),
        "diameter_mm": implant.diameter_mm,
        "susceptibility_ppm": implant.susceptibility_ppm,
    }


def _implant_from_json(content: dict[str, Any]) -> Implant:
    entry, tip = (_point(content[key]) for key in ("entry_ras_mm", "tip_ras_mm"))
    return Implant(entry, tip, float(content["diameter_mm"]), float(content["susceptibility_ppm"]))


def _point(content: Any) -> npt.NDArray[np.float64]:
    place = np.array(content, dtype=np.float64)
    if place.shape != (3,) or not np.isfinite(place).all():
        raise ValueError(f"a point must be three finite numbers, got {content}")
    return place


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no {path.name} in {path.parent}; make the case first") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; make the case again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object; make the case again")
    return content
