"""A folder of DICOM files becomes the volume that is meant, where it was, or none; and its origin is known or not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from IntraopMRILib.dicom_series import read_known, read_series
from IntraopMRILib.report.dicom.source import SOURCE, UNKNOWN, source_of
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError, IntraopError, SessionError
from peers.dicom_scans import assert_same, change, origin, picture, save, write_enhanced, write_series
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("slope", [1.0, 2.0, 0.37])
def test_values_and_places(directions: np.ndarray, tmp_path: Path, slope: float, signed: bool) -> None:
    truth = picture(directions)
    truth = replace(truth, array=truth.array - (1500.0 if signed else 0.0))
    image, facts = read_series(write_series(tmp_path / "s", truth, slope=slope, signed=signed))
    assert_same(image, truth, 0.51 * slope if slope != 1 else 0.0)
    assert (image.name, image.patient_id, facts.modality) == ("T1", "P-1", "MR")
    source = origin(image)
    assert source.difference(image) == ""
    assert source.series_uid == facts.series_uid
    written = {str(pydicom.dcmread(path).SOPInstanceUID) for path in (tmp_path / "s").iterdir()}
    assert set(source.instances) == written


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    """The first one says 1, so whole numbers; what others say behind the point must not be cut off."""

    def rescaled(number: int, header: Dataset) -> None:
        header.RescaleSlope, header.RescaleIntercept = 1.0 if number == 0 else 0.25, 0.0

    truth = picture()
    image, _facts = read_series(change(write_series(tmp_path / "s", truth), rescaled))
    np.testing.assert_allclose(image.array[0], truth.array[0])
    np.testing.assert_allclose(image.array[1:], truth.array[1:] * 0.25)


@pytest.mark.parametrize("order", [list(range(9)), list(range(9))[::-1], [4, 0, 8, 2, 6, 1, 3, 5, 7]])
def test_frames_of_an_enhanced_object_lie_where_each_says(
    directions: np.ndarray, tmp_path: Path, order: list[int]
) -> None:
    truth = picture(directions)
    image, facts = read_series(write_enhanced(tmp_path / "s" / "x.dcm", truth, order=order).parent)
    assert_same(image, truth)
    assert facts.taken_from.startswith("DICOM FrameAcquisitionDateTime")
    source = origin(image)
    assert len(set(source.instances)) == 1
    assert sorted(source.frames) == list(range(1, 10))


def test_a_folder_of_several_series_gives_the_only_volume(tmp_path: Path) -> None:
    """A localiser, a screenshot and a report lie beside it, as archives export them."""
    write_series(tmp_path / "all", picture(), "T1 3D")
    write_series(tmp_path / "all" / "scout", picture(shape=(3, 12, 15)), "localiser")
    report = pydicom.dcmread(tmp_path / "all" / "000.dcm")
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    report.SOPInstanceUID, report.SeriesInstanceUID, report.Modality = generate_uid(), generate_uid(), "SR"
    save(report, tmp_path / "all" / "report.dcm")
    (tmp_path / "all" / "notes.txt").write_text("not this one")
    image, facts = read_series(tmp_path / "all")
    assert facts.series == "T1 3D"
    assert_same(image, picture())


def test_of_two_volumes_a_person_names_one(tmp_path: Path) -> None:
    write_series(tmp_path / "all", picture(), "T1 pre")
    other = replace(picture(), array=picture().array[::-1].copy())
    for path in write_series(tmp_path / "b", other, "T1 post", SeriesNumber=12).iterdir():
        shutil.move(path, tmp_path / "all" / f"b{path.name}")
    with pytest.raises(DataError, match=r"2 series of volumes: 7 'T1 pre' \(9 files, such as 000.dcm\); 12 'T1 post'"):
        read_series(tmp_path / "all")
    image, facts = read_series(tmp_path / "all" / "b004.dcm")
    assert facts.series == "T1 post"
    assert_same(image, other)


def echoes_of_one_series(folder: Path, **second: object) -> tuple[Image, Image]:
    """As many scanners send them: one series, and only another tag says that its pictures show two things."""
    first, other = picture(), replace(picture(), array=picture().array[::-1].copy())
    write_series(folder, first, EchoNumbers=1, AcquisitionNumber=1)
    shared = pydicom.dcmread(folder / "000.dcm")
    uids: dict[str, Any] = {
        tag: shared[tag].value for tag in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    }
    for path in write_series(folder / "more", other, EchoNumbers=2, AcquisitionNumber=1, **uids).iterdir():
        header = pydicom.dcmread(path)
        for key, value in second.items():
            setattr(header, key, value)
        save(header, folder / f"more-{path.name}")
        path.unlink()
    return first, other


def test_of_two_echoes_in_one_series_a_person_names_one(tmp_path: Path) -> None:
    first, other = echoes_of_one_series(tmp_path / "s")
    said = r"2 series of volumes: 7 'T1', EchoNumbers 1 \(9 files, such as 000.dcm\); 7 'T1', EchoNumbers 2 \(9 files, "
    with pytest.raises(DataError, match=rf"{said}such as more-000.dcm\); name a file of the one that is meant"):
        read_series(tmp_path / "s")
    for name, truth in (("004.dcm", first), ("more-004.dcm", other)):
        image, _facts = read_series(tmp_path / "s" / name)
        assert_same(image, truth)
        assert len(set(origin(image).instances)) == 9


def test_the_phase_in_a_series_of_magnitude_and_phase_is_not_what_is_meant(tmp_path: Path) -> None:
    first, _phase = echoes_of_one_series(tmp_path / "s", ImageType=["ORIGINAL", "PRIMARY", "P"], EchoNumbers=1)
    assert_same(read_series(tmp_path / "s")[0], first)


def test_pictures_that_nothing_tells_apart_stay_one_series(tmp_path: Path) -> None:
    echoes_of_one_series(tmp_path / "s", EchoNumbers=1)
    with pytest.raises(DataError, match=r"has 18 pictures at 9 places .*; export it again, or name another one"):
        read_series(tmp_path / "s")


def test_objects_without_preamble_are_read(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", picture())
    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        del header.file_meta
        header.save_as(path, implicit_vr=True, little_endian=True)
    for place in (folder, folder / "003.dcm"):
        image, _facts = read_series(place)
        assert_same(image, picture())


def test_a_folder_with_a_directory_file_is_named_by_either(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s" / "IMAGES", picture()).parent
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert_same(read_series(folder / "DICOMDIR")[0], picture())
    write_series(folder / "b", picture(), "T1 post")
    with pytest.raises(DataError, match=r"such as IMAGES/000.dcm\); 7 'T1 post' \(9 files, such as b/000.dcm"):
        read_series(folder)


def test_a_file_that_lies_there_twice_counts_once(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", picture())
    shutil.copy(folder / "003.dcm", folder / "copy.dcm")
    image, _facts = read_series(folder)
    assert_same(image, picture())
    assert origin(image).difference(image) == ""


def twice(_number: int, header: Dataset) -> None:
    header.SOPInstanceUID = "1.2.3.4"


def nameless(_number: int, header: Dataset) -> None:
    del header.StudyInstanceUID


def elsewhere(_number: int, header: Dataset) -> None:
    header.FrameOfReferenceUID = "not a UID"


def two_classes(number: int, header: Dataset) -> None:
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2" if number == 4 else header.SOPClassUID


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
@pytest.mark.parametrize(
    ("work", "said"),
    [
        (twice, "have one SOP instance UID"),
        (nameless, "no valid study UID"),
        (elsewhere, "no valid frame of reference UID: not a UID"),
        (two_classes, "of 2 SOP classes"),
    ],
)
def test_what_cannot_be_referred_to_is_a_volume_without_origin(
    work: Callable[[int, Dataset], None], said: str, tmp_path: Path
) -> None:
    image, facts = read_series(change(write_series(tmp_path / "s", picture()), work))
    assert_same(image, picture())
    assert said in image.metadata[UNKNOWN]
    assert SOURCE not in image.metadata
    assert facts.source == ""


def missing(number: int, header: Dataset) -> None:
    header.ImagePositionPatient[2] += 2.0 if number > 4 else 0.0


def tilted(number: int, header: Dataset) -> None:
    header.ImagePositionPatient[1] += 0.5 * number


def turned(number: int, header: Dataset) -> None:
    if number > 4:
        header.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]


def wider(number: int, header: Dataset) -> None:
    header.PixelSpacing = [2.0, 1.0] if number > 4 else header.PixelSpacing


def echoes(number: int, header: Dataset) -> None:
    header.ImagePositionPatient[2] -= 2.0 * (number % 2)


def subtracted(_number: int, header: Dataset) -> None:
    header.ImageType = ["DERIVED", "SECONDARY", "SUBTRACTION"]


def phase(_number: int, header: Dataset) -> None:
    header.ImageType = ["ORIGINAL", "PRIMARY", "P", "ND"]


def coloured(_number: int, header: Dataset) -> None:
    header.SamplesPerPixel = 3


def aslant(_number: int, header: Dataset) -> None:
    header.ImageOrientationPatient = [1, 0, 0, 0.5, 0.5, 0]


def sizeless(_number: int, header: Dataset) -> None:
    header.PixelSpacing = [0.0, 1.0]


def placeless(number: int, header: Dataset) -> None:
    if number == 3:
        del header.ImagePositionPatient


def scaleless(number: int, header: Dataset) -> None:
    header.RescaleSlope, header.RescaleIntercept = 0.0 if number == 3 else 1.0, 0.0


def nonsense(number: int, header: Dataset) -> None:
    if number == 3:
        header.ImageOrientationPatient = [1, 0, 0]


def other_patient(number: int, header: Dataset) -> None:
    header.PatientID = "P-2" if number == 8 else header.PatientID


def moved_on(number: int, header: Dataset) -> None:
    header.FrameOfReferenceUID = "1.2.3" if number > 4 else "1.2.4"


def impostor(number: int, header: Dataset) -> None:
    if number == 4:
        header.SOPInstanceUID, header.ImagePositionPatient = "1.2.3", [11.0, -23.0, 11.0]
    if number == 5:
        header.SOPInstanceUID, header.ImagePositionPatient = "1.2.3", [11.0, -23.0, 11.0]


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (missing, r"unequal distances \(2.00 to 4.00 mm\)"),
        (tilted, r"stacked aslant: .* by up to 4.0 mm .*gantry tilt"),
        (turned, "several directions"),
        (wider, "slices of several sizes"),
        (echoes, "9 pictures at 5 places"),
        (subtracted, "no anatomy as it was scanned: its image type says SUBTRACTION"),
        (phase, "its image type says P;"),
        (coloured, "in colour"),
        (aslant, "rows and columns that are not at right angles"),
        (sizeless, "does not say where its slices lie"),
        (placeless, "does not say where its slices lie"),
        (scaleless, "has no scale: its rescale slope is 0,"),
        (nonsense, "header that cannot be read"),
        (other_patient, "'P-1' and 'P-2'"),
        (moved_on, "frame_uid '1.2.4' and '1.2.3'"),
        (impostor, "two objects with one SOP instance UID: 004.dcm and 005.dcm"),
    ],
)
def test_what_is_no_volume_of_one_patient_is_refused(
    work: Callable[[int, Dataset], None], said: str, tmp_path: Path
) -> None:
    with pytest.raises(IntraopError, match=said):
        read_series(change(write_series(tmp_path / "s", picture()), work))


def test_damaged_and_cut_off_files_are_named(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", picture())
    whole = (folder / "004.dcm").read_bytes()
    (folder / "004.dcm").write_bytes(whole[:140])
    with pytest.raises(DataError, match=r"DICOM header of 004.dcm cannot be read"):
        read_series(folder)
    (folder / "004.dcm").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"voxels that cannot be read: 004.dcm is damaged or cut off"):
        read_series(folder)


@pytest.mark.parametrize("there", ["nothing", "text"])
def test_a_folder_without_series(tmp_path: Path, there: str) -> None:
    if there == "text":
        (tmp_path / "notes.txt").write_text("dear")
    with pytest.raises(DataError, match="holds no DICOM series that is a volume: no DICOM file"):
        read_series(tmp_path)
    with pytest.raises(DataError, match="there is no volume at"):
        read_series(tmp_path / "gone")


def test_an_image_is_its_origin_only_voxel_by_voxel(directions: np.ndarray, tmp_path: Path) -> None:
    image, _facts = read_series(write_series(tmp_path / "s", picture(directions)))
    source = origin(image)
    back = image.ras_from_ijk.copy()
    back[:3, 3] += (len(image.array) - 1) * back[:3, 2]
    back[:3, 2] *= -1
    reversed_ = replace(image, array=image.array[::-1], ras_from_ijk=back)
    assert (source.order(image), source.order(reversed_)) == (1, -1)
    # As Slicer keeps what came left-handed.
    assert source.difference(reversed_) == ""
    assert "no longer" in source.difference(replace(image, array=image.array[::-1].copy()))
    changed = image.array.copy()
    changed[3, 4, 5] += 1
    assert "no longer" in source.difference(replace(image, array=changed))
    moved, turned_ = image.ras_from_ijk.copy(), image.ras_from_ijk.copy()
    moved[0, 3] += 0.1
    turned_[:3, :2] *= -1
    turned_[:3, 3] = (image.ras_from_ijk @ (14, 11, 0, 1))[:3]
    cut = image.ras_from_ijk.copy()
    cut[:3, 3] = (cut @ (2, 3, 1, 1))[:3]
    cropped = replace(image, array=image.array[1:7, 3:, 2:9], ras_from_ijk=cut)
    for other in (replace(image, ras_from_ijk=moved), replace(image, ras_from_ijk=turned_), cropped):
        assert "another grid" in source.difference(other)
    # Cut out of it: where it was. Moved, or turned upside down onto the same voxels: elsewhere.
    assert source.holds_frame(cropped)
    assert source.holds_frame(reversed_)
    assert not source.holds_frame(replace(image, ras_from_ijk=moved))
    assert not source.holds_frame(replace(image, ras_from_ijk=turned_))


def test_the_origin_survives_as_text(tmp_path: Path) -> None:
    image, _facts = read_series(write_series(tmp_path / "s", picture()))
    assert source_of(json.loads(json.dumps(dict(image.metadata)))) == origin(image)
    for text in ("", "{}", "[1]", image.metadata[SOURCE][:-5], '{"instances": 3}'):
        assert source_of({SOURCE: text}) is None


def uids(folder: Path) -> dict[str, Path | None]:
    return {str(pydicom.dcmread(path).SOPInstanceUID): path for path in sorted(folder.iterdir())}


def test_what_another_program_has_read(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", picture())
    files = uids(folder)
    facts = read_known(files)
    assert facts.source == read_series(folder)[1].source
    lacking = read_known({**files, "1.2.3": None})
    assert lacking.source_unknown == "1 of its 10 instances are not on this computer"
    assert (lacking.source, lacking.patient_id) == ("", "P-1")
    first = next(iter(files))
    assert "9 instances" in read_known({**files, first: None}).source_unknown
    part = read_known(dict(list(files.items())[:7]))
    assert "has 7 slices" in part.source_unknown
    other = uids(write_series(tmp_path / "t", picture()))
    with pytest.raises(SessionError, match="made from 2 series"):
        read_known({**files, **other})
    with pytest.raises(SessionError, match="'P-1' and 'P-2'"):
        read_known(uids(change(folder, other_patient)))
    (tmp_path / "x.dcm").write_bytes(b"no DICOM at all")
    with pytest.raises(DataError, match=r"DICOM header of x\.dcm cannot be read"):
        read_known({"1.2.3": tmp_path / "x.dcm"})
