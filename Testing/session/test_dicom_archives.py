"""What archives send: compressed objects, several pictures in one, and folders with much beside the volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from IntraopMRILib.dicom_series import is_dicom, read_series
from IntraopMRILib.report.html import render
from IntraopMRILib.workflow.record import as_document
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError
from peers.dicom_case import record_of
from peers.dicom_scans import (
    assert_same,
    change,
    compressed,
    origin,
    picture,
    write_enhanced,
    write_frames,
    write_series,
)
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("how", "syntax"),
    [
        ("deflated", "Deflated"),
        ("RLE", "RLE"),
        ("JPEG-LS", "JPEG-LS Lossless"),
        ("JPEG", "JPEG Lossless"),
        ("JPEG2000", "JPEG 2000 Image Compression (Lossless"),
    ],
)
def test_what_archives_compress_without_loss_is_the_same_volume(
    tmp_path: Path, how: str, syntax: str, signed: bool
) -> None:
    truth = replace(picture(), array=picture().array - (1500.0 if signed else 0.0))
    folder = write_series(tmp_path / "s", truth, signed=signed)
    plain = origin(read_series(folder)[0])
    assert all(compressed(path, how).startswith(syntax) for path in folder.iterdir())
    image, _facts = read_series(folder)
    assert_same(image, truth)
    assert origin(image) == plain
    if not signed:
        path = write_enhanced(tmp_path / "e" / "x.dcm", truth)
        compressed(path, how)
        assert_same(read_series(path)[0], truth)


def test_what_was_compressed_with_loss_says_so(tmp_path: Path) -> None:
    def lossy(number: int, header: Dataset) -> None:
        header.LossyImageCompression = "01" if number == 3 else "00"

    folder = write_series(tmp_path / "s", picture())
    assert "LossyImageCompression" not in read_series(folder)[0].metadata
    image, _facts = read_series(change(folder, lossy))
    assert image.metadata["LossyImageCompression"] == "01"
    record = record_of(replace(image, uid="uid-native", acquired_utc_s=0.0))
    assert "Compressed with loss before it came here: T1." in render(as_document(record))


def test_a_compression_that_is_not_known_is_named(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", picture())
    header = pydicom.dcmread(folder / "004.dcm")
    header.file_meta.TransferSyntaxUID = HTJ2KLossless
    header.PixelData = encapsulate([b"not for this reader"])
    header["PixelData"].VR = "OB"
    header.save_as(folder / "004.dcm", enforce_file_format=True)
    with pytest.raises(
        DataError, match=r"004.dcm is damaged or cut off, or its compression \(High-Throughput JPEG 2000"
    ):
        read_series(folder)


def group(**facts: object) -> Dataset:
    """What a functional group of a frame says."""
    made = Dataset()
    for key, value in facts.items():
        setattr(made, key, value)
    return made


def test_of_several_echoes_in_one_object_a_person_names_one(directions: np.ndarray, tmp_path: Path) -> None:
    first, other = picture(directions), replace(picture(directions), array=picture().array[::-1].copy())
    slices = [
        (image, k, 1.0, {"MREchoSequence": group(EffectiveEchoTime=time)})
        for k in range(9)
        for image, time in ((first, 4.6), (other, 9.2))
    ]
    path = write_frames(tmp_path / "x.dcm", slices)
    said = r"2 series of volumes: 7 'T1', EchoTime 4.6 \(9 frames, such as x.dcm#1\); 7 'T1', EchoTime 9.2 \(9 frames, "
    for whole in (path, path.parent):
        with pytest.raises(
            DataError, match=rf"{said}such as x.dcm#2\); name a file of the one that is meant, with its "
        ):
            read_series(whole)
    for number, truth in ((1, first), (2, other)):
        named = tmp_path / f"x.dcm#{number}"
        assert is_dicom(named)
        image, _facts = read_series(named)
        assert_same(image, truth)
        assert sorted(origin(image).frames) == list(range(number, 19, 2))
    with pytest.raises(DataError, match=r"x.dcm holds no part 3"):
        read_series(tmp_path / "x.dcm#3")


def dynamic(path: Path, first: Image, other: Image, *times: str, **facts: Any) -> Path:
    """A dynamic series in one object: one picture before, one after contrast agent; and when its frames were taken."""
    slices: list[tuple[Image, int, float, dict[str, Dataset]]] = []
    for number, (image, given) in enumerate(((first, "NO"), (other, "YES"))):
        content: dict[str, object] = {"TemporalPositionIndex": number + 1, "FrameAcquisitionDateTime": ""}
        content["FrameAcquisitionDateTime"] = times[number] if times else ""
        groups = {
            "FrameContentSequence": group(**content),
            "ContrastBolusUsageSequence": group(ContrastBolusAgentAdministered=given),
        }
        slices += [(image, k, 1.0, groups) for k in range(9)]
    agent = group(CodeValue="C-B03CC", CodeMeaning="Gadobutrol")
    return write_frames(path, slices, AcquisitionDateTime="20250131095900", ContrastBolusAgentSequence=[agent], **facts)


def test_each_time_of_a_dynamic_series_has_its_own(tmp_path: Path) -> None:
    """The object's time is that of its beginning: the pictures after contrast agent must not be taken for earlier."""
    first, other = picture(), replace(picture(), array=picture().array[::-1].copy())
    path = dynamic(tmp_path / "x.dcm", first, other, "20250131100000", "20250131100230")
    (one, before), (two, after) = (read_series(tmp_path / f"{path.name}#{number}") for number in (1, 2))
    assert_same(one, first)
    assert_same(two, other)
    assert before.taken_utc_s is not None
    assert after.taken_utc_s == before.taken_utc_s + 150.0
    assert (before.agent, after.agent) == ("", "Gadobutrol")
    dynamic(tmp_path / "y.dcm", first, other)
    assert read_series(tmp_path / "y.dcm#2")[1].taken_utc_s is None


def test_the_phase_in_an_object_of_magnitude_and_phase_is_left_out(tmp_path: Path) -> None:
    """Each kind has its own scale, and that of the first frame is not that of the magnitude."""
    magnitude = replace(picture(), array=np.rint(picture().array / 4) * 4)
    phase = replace(picture(), array=np.rint(picture().array / 100)[::-1].copy())
    kind = {
        name: group(FrameType=["ORIGINAL", "PRIMARY", "MIXED", "NONE"], ComplexImageComponent=name)
        for name in ("PHASE", "MAGNITUDE")
    }
    slices = [(phase, k, 0.5, {"MRImageFrameTypeSequence": kind["PHASE"]}) for k in range(9)]
    slices += [(magnitude, k, 4.0, {"MRImageFrameTypeSequence": kind["MAGNITUDE"]}) for k in range(9)]
    path = write_frames(tmp_path / "x.dcm", slices, ImageType=["ORIGINAL", "PRIMARY", "MIXED", "NONE"])
    assert_same(read_series(path)[0], magnitude)
    with pytest.raises(DataError, match=r"ComplexImageComponent PHASE .* its image type says PHASE"):
        read_series(tmp_path / "x.dcm#1")


@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.37, 2.0), (2.0, 0.125)])
def test_frames_of_several_scales(tmp_path: Path, scales: tuple[float, float]) -> None:
    truth = picture()
    slices: list[tuple[Image, int, float, dict[str, Dataset]]] = [(truth, k, scales[k % 2], {}) for k in range(9)]
    path = write_frames(tmp_path / "x.dcm", slices)
    for how in ("", "RLE", "JPEG2000"):
        if how:
            compressed(path, how)
        assert_same(read_series(path)[0], truth, 0.51 * max(scales))


def test_of_all_that_an_archive_sends_one_volume_is_meant(tmp_path: Path) -> None:
    """A localiser in three directions, real and imaginary pictures, maps, false colours."""
    write_series(tmp_path / "all", picture(), "T1 3D")
    scout = write_series(tmp_path / "all" / "scout", picture(shape=(15, 12, 15)), "scout")
    axes = ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1])

    def three(number: int, header: Dataset) -> None:
        header.ImageOrientationPatient = axes[number % 3]

    change(scout, three)
    for number, kind in enumerate(("I", "R", "ADC", "T1 MAP", "T2_STAR MAP", "RELCBV", "MPR\\PHASE MAP")):
        facts: dict[str, Any] = {"ImageType": ["DERIVED", "PRIMARY", *kind.split("\\")], "SeriesNumber": 20 + number}
        write_series(tmp_path / "all" / f"k{number}", picture(), kind[:3], **facts)
    write_series(tmp_path / "all" / "p", picture(), "CBV", PhotometricInterpretation="PALETTE COLOR")
    image, facts_ = read_series(tmp_path / "all")
    assert facts_.series == "T1 3D"
    assert_same(image, picture())


def test_many_series_are_not_all_listed(tmp_path: Path) -> None:
    for number in range(10):
        write_series(tmp_path / f"s{number}", picture(), f"T{number}", SeriesNumber=number)
    with pytest.raises(DataError, match=r"10 series of volumes: 0 'T0' .*; 7 'T7' [^;]*; and 2 more; name a file"):
        read_series(tmp_path)
