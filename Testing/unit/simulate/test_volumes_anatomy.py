"""Volumes from files in every orientation, and what is said when one cannot be used; the heads that come with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import apply, invert
from IntraopMRIReconstructionLib.simulate.anatomy import (
    Anatomy,
    anatomies,
    from_volume,
    load_anatomy,
    template_file,
)
from IntraopMRIReconstructionLib.simulate.grids import index_coordinates, resampled, sampled
from IntraopMRIReconstructionLib.simulate.volumes import read_volume, sitk_from_image, write_volume

PLACES = np.array([[3.0, -12.0, 8.0], [-20.0, 5.0, -7.0], [11.0, 20.0, 2.0]])


def ramp(directions: np.ndarray) -> Image:
    """A volume whose value is a linear function of the RAS position."""
    matrix = np.eye(4)
    matrix[:3, :3] = directions * np.array([2.0, 3.0, 2.5])
    matrix[:3, 3] = -matrix[:3, :3] @ np.array([20.0, 18.0, 16.0])
    k, j, i = np.indices((33, 37, 41))
    points = apply(matrix, np.stack([i, j, k], axis=-1))
    return Image((500 + points @ np.array([1.0, 2.0, -3.0])).astype(np.float32), matrix, name="ramp")


@pytest.mark.parametrize("suffix", ["nrrd", "nii.gz", "mha"])
def test_files_keep_values_where_they_are(directions: np.ndarray, tmp_path: Path, suffix: str) -> None:
    write_volume(ramp(directions), tmp_path / f"volume.{suffix}")
    image = read_volume(tmp_path / f"volume.{suffix}")
    found = sampled(image.array, index_coordinates(image.ras_from_ijk, PLACES))
    assert found == pytest.approx(500 + PLACES @ np.array([1.0, 2.0, -3.0]), abs=1e-2)


def test_a_dicom_series_is_one_volume(tmp_path: Path) -> None:
    image = ramp(np.eye(3))
    volume = sitk_from_image(image, np.round(image.array).astype(np.int16))
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(volume.GetDepth()):
        plane = volume[:, :, k]
        position = volume.TransformIndexToPhysicalPoint((0, 0, k))
        plane.SetMetaData("0020|0032", "\\".join(f"{p:.4f}" for p in position))
        plane.SetMetaData("0020|0037", "-1\\0\\0\\0\\-1\\0")
        plane.SetMetaData("0020|000e", "1.2.3.4")
        plane.SetMetaData("0020|000d", "1.2.3")
        plane.SetMetaData("0008|0018", f"1.2.3.4.{k + 1}")
        plane.SetMetaData("0020|0013", str(k + 1))
        plane.SetMetaData("0008|0060", "MR")
        writer.SetFileName(str(tmp_path / f"{k:03d}.dcm"))
        writer.Execute(plane)
    read = read_volume(tmp_path)
    assert read.array.shape == (33, 37, 41)
    assert read.spacing_mm == pytest.approx([2.0, 3.0, 2.5])
    found = sampled(read.array, index_coordinates(read.ras_from_ijk, PLACES))
    assert found == pytest.approx(500 + PLACES @ np.array([1.0, 2.0, -3.0]), abs=0.6)


def write(array: np.ndarray, path: Path) -> Path:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=array.ndim == 4), str(path))
    return path


def test_unusable_volumes_are_named_with_what_to_do(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((12, 12, 12)).astype(np.float32)
    holed = noise.copy()
    holed[3, 3, 3] = np.nan
    (tmp_path / "text.nrrd").write_text("this is no volume")
    (tmp_path / "folder").mkdir()
    cases = {
        tmp_path / "missing.nii.gz": "there is no volume at .*missing.nii.gz; name a NIfTI or NRRD file",
        tmp_path / "text.nrrd": "text.nrrd cannot be read .*; name a NIfTI",
        tmp_path / "folder": "holds no DICOM series; name a",
        write(noise[:1], tmp_path / "slice.nrrd"): "a volume of at least 8 voxels along three axes is needed",
        write(noise[0], tmp_path / "plane.nrrd"): "a volume of at least 8 voxels along three axes is needed",
        write(np.stack([noise] * 3, axis=-1), tmp_path / "colour.nrrd"): "has 3 values a voxel; choose a grey",
        write(holed, tmp_path / "holed.nrrd"): "voxels that are not numbers",
        write(np.zeros_like(noise), tmp_path / "zero.nrrd"): "is empty: every voxel is 0",
    }
    for path, words in cases.items():
        with pytest.raises(DataError, match=words):
            read_volume(path)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "mha"])
def test_a_file_that_is_cut_off_is_no_volume(tmp_path: Path, suffix: str) -> None:
    """ITK reads the first half of a NIfTI file and leaves the rest as it happens to be, without a word."""
    path = write(np.random.default_rng(0).random((12, 12, 12)).astype(np.float32), tmp_path / f"volume.{suffix}")
    read_volume(path)
    whole = path.read_bytes()
    for left in (len(whole) // 2, len(whole) - 16):
        path.write_bytes(whole[:left])
        with pytest.raises(DataError, match=f"volume.{suffix} (is cut off|is damaged or cut off|cannot be read)"):
            read_volume(path)


def test_without_orientation_left_and_right_are_unknown(tmp_path: Path) -> None:
    """As tools write arrays that were never told where they lie: ITK takes the voxel axes for those of the patient."""
    noise = np.random.default_rng(0).random((12, 12, 12)).astype(np.float32)
    nifti = bytearray(write(noise, tmp_path / "bare.nii").read_bytes())
    nifti[252:256] = bytes(4)  # qform_code, sform_code
    (tmp_path / "bare.nii").write_bytes(nifti)
    header = "NRRD0004\ntype: float\ndimension: 3\nsizes: 12 12 12\nencoding: raw\nendian: little\n\n"
    (tmp_path / "bare.nrrd").write_bytes(header.encode() + noise.tobytes())
    for name, why in (("bare.nii", "qform_code and sform_code are 0"), ("bare.nrrd", "it names no space")):
        with pytest.raises(DataError, match=rf"{name} does not say how it lies in the patient \({why}.*left and right"):
            read_volume(tmp_path / name)


def test_unknown_anatomy_names_the_known() -> None:
    with pytest.raises(DataError, match="no anatomy is named 'colin'; choose one of mni152"):
        load_anatomy("colin")


def test_a_volume_without_brain_is_refused(tmp_path: Path) -> None:
    path = write(np.random.default_rng(0).random((30, 30, 30)).astype(np.float32), tmp_path / "noise.nrrd")
    with pytest.raises(DataError, match="no brain was found in 'noise'"):
        load_anatomy(str(path))


def test_the_head_of_a_volume_is_found_in_any_orientation(small_head: Anatomy, directions: np.ndarray) -> None:
    t1 = small_head.t1
    matrix = np.eye(4)
    matrix[:3, :3] = directions * 2.0
    shape = (96, 96, 96)
    matrix[:3, 3] = small_head.centre_ras_mm - matrix[:3, :3] @ (np.array(shape) / 2)
    scan = Image(resampled(t1.array, t1.ras_from_ijk, matrix, shape), matrix, name="scan")
    found = from_volume(scan)
    assert found.ras_from_ijk[:3, :3] == pytest.approx(np.eye(3))
    wanted = resampled(small_head.brain, small_head.ras_from_ijk, found.ras_from_ijk, found.brain.shape) > 0.5
    dice = 2 * (wanted & found.brain).sum() / (wanted.sum() + found.brain.sum())
    assert dice > 0.95
    assert np.median(found.brain_t1[found.brain & (found.white > 0.9)]) == pytest.approx(800, rel=0.05)


@pytest.mark.slow
def test_template_has_a_head_drawn_around_it() -> None:
    if not template_file("t1").exists():
        pytest.fail("the nilearn wheel is missing: pip install --no-deps -r Testing/requirements-data.txt")
    head = load_anatomy("mni152")
    assert 1700 < head.brain.sum() / 1000 < 2000
    t1 = head.t1
    assert t1.array[~head.brain].max() > 800  # scalp fat
    # Left and right: MNI's anterior commissure is the origin, the eyes lie in front of it and to both sides.
    eyes = np.array([[-33.0, 63.0, -38.0], [33.0, 63.0, -38.0]])
    assert sampled(t1.array, index_coordinates(t1.ras_from_ijk, eyes)) == pytest.approx(170, abs=60)
    assert apply(invert(t1.ras_from_ijk), head.centre_ras_mm) == pytest.approx(
        np.array(np.argwhere(head.brain).mean(axis=0))[::-1], abs=0.01
    )
    shell = (head.hull_mm > 4) & (head.hull_mm < 5) & (np.indices(head.brain.shape)[0] > 110)
    assert np.median(t1.array[shell]) < 300  # skull


def test_more_anatomies_than_the_template_are_offered() -> None:
    assert anatomies()[0] == "mni152"
    assert len(anatomies()) >= 3
