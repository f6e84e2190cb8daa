"""Outlined structures in the files of other tools are where they were drawn, or it is said why they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from IntraopMRILib.dicom_series import read_series
from IntraopMRILib.segmentations import read_segmentation, read_structure
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS, apply
from IntraopMRIReconstructionLib.simulate.volumes import ras_from_sitk, sitk_from_image, write_volume
from peers.dicom_case import grid
from peers.dicom_scans import save, write_series
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

SHAPE = (14, 20, 24)


def scan(directions: np.ndarray) -> Image:
    values = np.random.default_rng(5).integers(0, 900, SHAPE).astype(np.float64)
    return Image(values, grid(directions), "T1", None, "P-1")


def ball(middle: tuple[float, float, float], radius: float) -> np.ndarray:
    """Mask (k, j, i) of what lies within ``radius`` voxels of ``middle``."""
    apart = np.indices(SHAPE) - np.reshape(middle, (3, 1, 1, 1))
    return (np.linalg.norm(apart, axis=0) <= radius).astype(np.uint8)


TUMOUR, CORE = ball((6.0, 9.0, 13.0), 4.6), ball((7.0, 9.0, 12.0), 2.3)


def assert_at(label: Image, mask: np.ndarray, on: Image) -> None:
    """The label has the voxels of ``mask`` on the grid of ``on``, whatever part of that its own grid is."""
    inside = apply(label.ras_from_ijk, np.argwhere(label.array)[:, ::-1].astype(float))
    true = apply(on.ras_from_ijk, np.argwhere(mask)[:, ::-1].astype(float))
    assert len(inside) == len(true)
    np.testing.assert_allclose(inside[np.lexsort(inside.T.round(2))], true[np.lexsort(true.T.round(2))], atol=2e-3)


def outlines(mask: np.ndarray, skip: int = 1) -> list[np.ndarray]:
    """Contours (n, 3) around the voxels of each slice, in voxels (i, j, k): along their edges, holes on their own."""
    found = []
    for k in range(0, len(mask), skip):
        edges: set[tuple[tuple[int, int], tuple[int, int]]] = set()
        for j, i in np.argwhere(mask[k]).tolist():
            corners = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
            for one, two in zip(corners, corners[1:] + corners[:1], strict=True):
                # What two voxels share, each in its direction, is no edge.
                edges ^= {(two, one)} if (two, one) in edges else {(one, two)}
        follows = dict(edges)
        assert len(follows) == len(edges), "voxels touch in a corner only"
        while follows:
            place, loop = next(iter(follows)), []
            while place in follows:
                loop.append((place[0] - 0.5, place[1] - 0.5, k))
                place = follows.pop(place)
            found.append(np.array(loop, dtype=float))
    return found


def write_contours(path: Path, on: Image, rois: dict[str, list[np.ndarray]], frame: str, **facts: Any) -> Path:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = RTStructureSetStorage, generate_uid(), "RTSTRUCT"
    made.PatientID, made.StudyInstanceUID, made.SeriesInstanceUID = "P-1", generate_uid(), generate_uid()
    reference = Dataset()
    reference.FrameOfReferenceUID = frame
    made.ReferencedFrameOfReferenceSequence = [reference]
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for number, (name, loops) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for loop in loops:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR" if len(loop) > 1 else "POINT"
            points = apply(RAS_FROM_LPS @ on.ras_from_ijk, loop)
            contour.NumberOfContourPoints, contour.ContourData = len(loop), [f"{v:.3f}" for v in points.ravel()]
            drawn.ContourSequence.append(contour)
        made.StructureSetROISequence.append(roi)
        made.ROIContourSequence.append(drawn)
    for key, value in facts.items():
        setattr(made, key, value)
    save(made, path)
    return path


def write_segments(path: Path, series: Path, masks: dict[str, np.ndarray], kind: str = "BINARY") -> Path:
    headers = [pydicom.dcmread(file) for file in sorted(series.iterdir())]
    coded = highdicom.sr.CodedConcept("108369006", "SCT", "Neoplasm")
    described = [
        highdicom.seg.SegmentDescription(number, name, coded, coded, "MANUAL")
        for number, name in enumerate(masks, start=1)
    ]
    stack = np.stack(list(masks.values()), axis=-1)
    for header in headers:
        for tag in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
            setattr(header, tag, "")
        header.ReferringPhysicianName = None
    highdicom.seg.Segmentation(
        headers, stack.astype(np.float32) if kind == "FRACTIONAL" else stack, kind, described,
        generate_uid(), 9, generate_uid(), 1, "maker", "model", "1", "serial",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    ).save_as(path)  # fmt: skip
    return path


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_a_dicom_segmentation_lies_where_it_was_drawn(directions: np.ndarray, tmp_path: Path, kind: str) -> None:
    """Slices without a voxel have no frame in it."""
    series = write_series(tmp_path / "mr", scan(directions))
    on, _facts = read_series(series)
    path = write_segments(tmp_path / "seg.dcm", series, {"tumour": TUMOUR, "core": CORE}, kind)
    assert [s.text for s in read_segmentation(path, on)] == ["1 'tumour'", "2 'core'"]
    for which, mask in (("tumour", TUMOUR), ("1", TUMOUR), ("core", CORE)):
        label = read_structure(path, which, on, "--label")
        assert_at(label, mask, scan(directions))
    assert label.name == "core"
    # In the folder of the pictures too, as an archive exports it.
    path.rename(series / "s.dcm")
    assert_at(read_structure(series, "core", on, "--label"), CORE, scan(directions))
    assert read_series(series)[0].array.shape == SHAPE


def test_contours_are_filled_on_the_volume_that_they_were_drawn_on(directions: np.ndarray, tmp_path: Path) -> None:
    on, _facts = read_series(write_series(tmp_path / "mr", scan(directions), FrameOfReferenceUID="1.2.3"))
    truth = scan(directions)
    rim = TUMOUR & ~CORE & 1
    rois = {"tumour": outlines(TUMOUR), "rim": outlines(rim), "isocentre": [np.array([[1.0, 2.0, 3.0]])]}
    path = write_contours(tmp_path / "rs.dcm", truth, rois, "1.2.3")
    assert [s.name for s in read_segmentation(path, on)] == ["tumour", "rim"]
    for which, mask in (("tumour", TUMOUR), ("rim", rim)):
        label = read_structure(path, which, on, "--label")
        np.testing.assert_allclose(label.ras_from_ijk, on.ras_from_ijk)
        assert_at(label, mask, truth)


def test_contours_are_found_on_slices_of_a_volume_that_was_turned_to_other_axes(tmp_path: Path) -> None:
    """As converters do: the slices that were drawn on are no longer the last axis."""
    truth = scan(np.eye(3))
    turned = np.ascontiguousarray(truth.array.transpose(1, 0, 2))
    on = replace(truth, array=turned, ras_from_ijk=truth.ras_from_ijk @ np.eye(4)[[0, 2, 1, 3]])
    path = write_contours(tmp_path / "rs.dcm", truth, {"tumour": outlines(TUMOUR)}, "1.2.3")
    assert_at(read_structure(path, "", on, "--label"), TUMOUR, truth)


def elsewhere(image: Image, offset_mm: float) -> Image:
    matrix = image.ras_from_ijk.copy()
    matrix[:3, 3] += offset_mm
    return replace(image, ras_from_ijk=matrix)


@pytest.mark.parametrize(
    ("drawn_on", "skip", "facts", "said"),
    [
        (lambda on: None, 1, {}, "contours, which need the volume"),
        (lambda on: elsewhere(on, 0.9), 1, {}, "was not drawn on slices of 'T1'"),
        (lambda on: elsewhere(on, 400.0), 1, {}, "reaches beyond 'T1'"),
        (lambda on: on, 2, {}, "on some slices only: interpolate"),
        (lambda on: on, 1, {"PatientID": "P-2"}, "another patient than the volume 'T1': P-2 and P-1"),
        (lambda on: replace(on, metadata={"FrameOfReferenceUID": "9.9"}), 1, {}, "another frame of reference"),
        (lambda on: on, 1, {"ROIContourSequence": None}, "is empty: nothing is outlined|cannot be read as DICOM"),
    ],
)
def test_contours_of_something_else_are_refused(
    tmp_path: Path, drawn_on: Callable[[Image], Image | None], skip: int, facts: dict[str, Any], said: str
) -> None:
    on = scan(np.eye(3))
    path = write_contours(tmp_path / "rs.dcm", on, {"tumour": outlines(TUMOUR, skip)}, "1.2.3", **facts)
    with pytest.raises(DataError, match=said):
        read_structure(path, "", drawn_on(on), "--label")


def test_values_and_names_of_slicer_choose_a_structure(directions: np.ndarray, tmp_path: Path) -> None:
    """Where segments overlap, Slicer writes several layers; each begins with the value 1."""
    truth = scan(directions)
    flat = sitk_from_image(truth, TUMOUR + CORE)
    layers = sitk_from_image(truth, np.stack([TUMOUR, CORE], axis=-1))
    for image, places in ((flat, ((0, 1), (0, 2))), (layers, ((0, 1), (1, 1)))):
        for number, (name, (layer, value)) in enumerate(zip(("tumour", "core"), places, strict=True)):
            for key, text in (("ID", f"S_{number}"), ("Name", name), ("Layer", layer), ("LabelValue", value)):
                image.SetMetaData(f"Segment{number}_{key}", str(text))
    SimpleITK.WriteImage(flat, str(tmp_path / "flat.seg.nrrd"))
    SimpleITK.WriteImage(layers, str(tmp_path / "layers.seg.nrrd"))
    for file, outer in (("flat", TUMOUR - CORE), ("layers", TUMOUR)):
        path = tmp_path / f"{file}.seg.nrrd"
        assert_at(read_structure(path, "tumour", None, "--label"), outer, truth)
        assert_at(read_structure(path, "2", None, "--label"), CORE, truth)
        with pytest.raises(DataError, match=r"holds 2 structures \(1 'tumour', 2 'core'\): name .* with --label"):
            read_structure(path, "", None, "--label")
        with pytest.raises(DataError, match=r"no structure 'edema', only 1 'tumour', 2 'core'"):
            read_structure(path, "edema", None, "--label")
    assert np.allclose(ras_from_sitk(flat), truth.ras_from_ijk)


def test_labels_in_volumes_and_what_is_none(tmp_path: Path) -> None:
    truth = scan(np.eye(3))
    for suffix, kind in (("nii.gz", np.float32), ("nrrd", np.int16), ("mha", np.uint8)):
        path = tmp_path / f"mask.{suffix}"
        write_volume(replace(truth, array=TUMOUR.astype(kind)), path)
        assert_at(read_structure(path, "", truth, "--label"), TUMOUR, truth)
        assert read_structure(path, "1", truth, "--label").array.dtype == np.uint8
    write_volume(replace(truth, array=np.zeros(SHAPE, np.uint8)), tmp_path / "empty.nrrd")
    assert read_segmentation(tmp_path / "empty.nrrd") == []
    write_volume(truth, tmp_path / "scan.nrrd")
    for name, said in (("empty", "nothing is outlined"), ("scan", "values, so it is no segmentation")):
        with pytest.raises(DataError, match=said):
            read_structure(tmp_path / f"{name}.nrrd", "", truth, "--label")


def test_a_label_that_lies_elsewhere_is_refused(directions: np.ndarray, tmp_path: Path) -> None:
    """As after a tool that keeps voxels and loses their place; a volume that cuts the tumour at a side is one."""
    on = scan(directions)
    for offset, inside in ((0.0, True), (8.0, True), (300.0, False)):
        matrix = on.ras_from_ijk.copy()
        matrix[:3, 3] += offset * directions[:, 0]
        write_volume(replace(on, array=TUMOUR, ras_from_ijk=matrix), tmp_path / "mask.nii.gz")
        if inside:
            assert read_structure(tmp_path / "mask.nii.gz", "", on, "--label").array.sum() == TUMOUR.sum()
            continue
        with pytest.raises(DataError, match=r"mask.nii.gz lies outside of the volume 'T1' \(0 % of it is inside\)"):
            read_structure(tmp_path / "mask.nii.gz", "", on, "--label")


def test_an_empty_segment_is_in_the_way_of_none(tmp_path: Path) -> None:
    image = sitk_from_image(scan(np.eye(3)), TUMOUR)
    for number, name in enumerate(("edema", "tumour")):
        for key, text in (("Name", name), ("Layer", 0), ("LabelValue", 2 - number)):
            image.SetMetaData(f"Segment{number}_{key}", str(text))
    path = tmp_path / "t.seg.nrrd"
    SimpleITK.WriteImage(image, str(path))
    assert [(s.name, s.empty) for s in read_segmentation(path)] == [("edema", True), ("tumour", False)]
    assert read_structure(path, "", None, "--label").name == "tumour"
    with pytest.raises(DataError, match="holds no voxel of 2 'edema'"):
        read_structure(path, "edema", None, "--label")


def test_a_single_segment_among_pictures_is_no_scan(tmp_path: Path) -> None:
    series = write_series(tmp_path / "mr", scan(np.eye(3)))
    write_segments(series / "seg.dcm", series, {"all": np.ones(SHAPE, np.uint8)})
    assert read_series(series)[1].modality == "MR"
    with pytest.raises(DataError, match="is a segmentation, no scan"):
        read_series(series / "seg.dcm")


def test_damaged_structures_are_named(tmp_path: Path) -> None:
    series = write_series(tmp_path / "mr", scan(np.eye(3)))
    path = write_segments(tmp_path / "seg.dcm", series, {"tumour": TUMOUR})
    whole = path.read_bytes()
    header = pydicom.dcmread(path)
    for group in header.PerFrameFunctionalGroupsSequence[1:2]:
        group.PlanePositionSequence[0].ImagePositionPatient = [0.0, 0.0, 0.37]
    for damage in (lambda: save(header, path), lambda: path.write_bytes(whole[: len(whole) // 2])):
        damage()
        with pytest.raises(DataError, match=r"seg.dcm cannot be read as DICOM SEG or RTSTRUCT .*: export it again"):
            read_structure(path, "tumour", None, "--label")
    path = write_contours(tmp_path / "rs.dcm", scan(np.eye(3)), {"tumour": outlines(TUMOUR)}, "1.2.3")
    header = pydicom.dcmread(path)
    header.ROIContourSequence[0].ContourSequence[0].ContourData = ["1.0", "2.0"]
    save(header, path)
    with pytest.raises(DataError, match=r"rs.dcm cannot be read as DICOM"):
        read_structure(path, "", scan(np.eye(3)), "--label")
    image = sitk_from_image(scan(np.eye(3)), TUMOUR)
    for key, text in (("Name", "tumour"), ("LabelValue", "one")):
        image.SetMetaData(f"Segment0_{key}", text)
    SimpleITK.WriteImage(image, str(tmp_path / "t.seg.nrrd"))
    with pytest.raises(DataError, match="does not say which voxels are Segment0"):
        read_structure(tmp_path / "t.seg.nrrd", "", None, "--label")


def test_two_objects_in_a_folder_are_named(tmp_path: Path) -> None:
    on = scan(np.eye(3))
    for name in ("a", "b"):
        write_contours(tmp_path / f"{name}.dcm", on, {"tumour": outlines(TUMOUR)}, "1.2.3")
    with pytest.raises(DataError, match=r"holds 2 DICOM objects of structures: name one of the files a.dcm, b.dcm"):
        read_segmentation(tmp_path, on)
