"""Volumes from files in every orientation, and what is said when one cannot be used; the heads that come with it."""

from __future__ import annotations

import gzip
import struct
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
from IntraopMRIReconstructionLib.simulate.volumes import read_volume, write_volume

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
        tmp_path / "folder": "folder is a folder; name a NIfTI",
        write(noise[:1], tmp_path / "slice.nrrd"): "a volume of at least 8 voxels along three axes is needed",
        write(noise[0], tmp_path / "plane.nrrd"): "a volume of at least 8 voxels along three axes is needed",
        write(np.stack([noise] * 3, axis=-1), tmp_path / "colour.nrrd"): "has 3 values a voxel; choose a grey",
        **{
            write(holed.astype(kind), tmp_path / f"holed{kind}.{suffix}"): "voxels that are not numbers"
            for kind in ("f4", "f8")
            for suffix in ("nrrd", "nii", "nii.gz", "mha", "hdr")
        },
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


def test_a_space_that_is_not_of_a_patient_is_no_place(tmp_path: Path) -> None:
    """ITK leaves axes as they are in a space that it does not know, and takes them for those of LPS."""
    noise = np.random.default_rng(0).random((12, 12, 12)).astype(np.float32)
    lines = "type: float\ndimension: 3\nsizes: 12 12 12\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nencoding: raw\n"
    for space, sides in (("right-anterior-superior", (1, 2, 3)), ("LPS", (-1, -2, 3)), ("LAS", (-1, 2, 3))):
        header = f"NRRD0004\nspace: {space}\n{lines}endian: little\n\n"
        (tmp_path / "sided.nrrd").write_bytes(header.encode() + noise.tobytes())
        np.testing.assert_allclose(np.diag(read_volume(tmp_path / "sided.nrrd").ras_from_ijk)[:3], sides)
    for space in ("scanner-xyz", "3D-right-handed"):
        header = f"NRRD0004\nspace: {space}\n{lines}endian: little\n\n"
        (tmp_path / "other.nrrd").write_bytes(header.encode() + noise.tobytes())
        with pytest.raises(DataError, match=rf"its space is '{space}', not left-posterior-superior or the like"):
            read_volume(tmp_path / "other.nrrd")
    (tmp_path / "bare.raw").write_bytes(noise.tobytes())
    header = "NDims = 3\nDimSize = 12 12 12\nElementType = MET_FLOAT\nElementDataFile = bare.raw\n"
    (tmp_path / "bare.mhd").write_text(header)
    with pytest.raises(DataError, match="it names no TransformMatrix"):
        read_volume(tmp_path / "bare.mhd")


@pytest.mark.parametrize("suffix", ["tif", "vtk", "gipl", "mrc", "dcm"])
def test_other_formats_do_not_say_how_they_lie(tmp_path: Path, suffix: str) -> None:
    """ITK reads them all, most without the directions that were written."""
    image = SimpleITK.GetImageFromArray(np.random.default_rng(0).integers(0, 99, (12, 12, 12)).astype(np.uint16))
    image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(tmp_path / f"volume.{suffix}"))
    with pytest.raises(DataError, match=r"volume\.\w+ is \w+, and only NIfTI, NRRD and MetaImage say how they lie"):
        read_volume(tmp_path / f"volume.{suffix}")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("flipped", [False, True])
def test_two_forms_that_differ_are_no_place(tmp_path: Path, directions: np.ndarray, suffix: str, flipped: bool) -> None:
    """ITK takes one of them, FSL and nibabel the other."""
    image = SimpleITK.GetImageFromArray(np.random.default_rng(0).random((12, 13, 14)).astype(np.float32))
    image.SetSpacing((1.0, 1.5, 2.0))
    image.SetDirection((directions @ np.diag([1.0, 1.0, -1.0 if flipped else 1.0])).ravel().tolist())
    path = tmp_path / f"forms.{suffix}"
    SimpleITK.WriteImage(image, str(path))
    assert read_volume(path).spacing_mm == pytest.approx([1.0, 1.5, 2.0])
    packed = suffix.endswith("gz")
    header = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())

    def write_again() -> None:
        path.write_bytes(gzip.compress(header) if packed else header)

    rows = np.array(struct.unpack_from("<12f", header, 280)).reshape(3, 4)
    changes = (np.eye(3, 4, 3) * 3, "3.0"), (rows * (-2, 0, 0, 0), "26.0"), (rows * (0, 0, -2, 0), "44.0")
    for change, apart in changes:
        struct.pack_into("<12f", header, 280, *(rows + change).ravel())
        write_again()
        with pytest.raises(
            DataError, match=rf"qform and its sform put it up to {apart} mm apart, with the codes 1 and 1"
        ):
            read_volume(path)
    struct.pack_into("<2h", header, 252, 1, 0)
    write_again()
    read_volume(path)


def test_unknown_anatomy_names_the_known() -> None:
    with pytest.raises(DataError, match="no anatomy is named 'colin'; choose one of mni152"):
        load_anatomy("colin")


def test_a_volume_without_brain_is_refused(tmp_path: Path) -> None:
    path = write(np.random.default_rng(0).random((30, 30, 30)).astype(np.float32), tmp_path / "noise.nrrd")
    with pytest.raises(DataError, match="no brain was found in 'noise'"):
        load_anatomy(str(path))
    label = np.zeros((30, 30, 30), np.uint8)
    label[14:17, 14:17, 14:17] = 1
    with pytest.raises(DataError, match=r"no brain was found in 'label' \(nearly every voxel is 0, as in a label\)"):
        load_anatomy(str(write(label, tmp_path / "label.nii.gz")))


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
