"""Volumes from and to files (NRRD, NIfTI, DICOM series) for the lab; LPS on disk, RAS inside."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK

from ..data import AnyArray, Image
from ..errors import DataError
from ..geometry import RAS_FROM_LPS, ras_from_lps_matrix

#: A volume needs at least this many voxels along each axis to be worth registering.
SMALLEST_VOLUME = 8
WHAT_TO_NAME = "name a NIfTI or NRRD file, or a folder with exactly one DICOM series"
#: Bytes that are unpacked at a time.
CHUNK = 1 << 22


def read_volume(path: str | Path, smallest: int = SMALLEST_VOLUME) -> Image:
    """Read a NIfTI, NRRD, MHA ... file or a folder with one DICOM series as a scalar volume in RAS.

    Raises DataError with what to do when it is missing, unreadable, cut off, not three-dimensional, of several
    components, not finite, or empty (all voxels alike), and when it does not say how it lies in the patient.
    """
    path = Path(path)
    image = _read(path)
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3 or min(image.GetSize()) < smallest:
        raise DataError(
            f"{path} has the size {image.GetSize()}; a volume of at least {smallest} voxels along three axes is "
            "needed: choose the 3D series, not a localiser or a screenshot"
        )
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(
            f"{path} has {image.GetNumberOfComponentsPerPixel()} values a voxel; choose a grey-value volume"
        )
    _check_frame(path, image)
    array = SimpleITK.GetArrayFromImage(image)
    if not np.isfinite(array).all():
        raise DataError(f"{path} holds voxels that are not numbers (NaN or infinite); export the volume again")
    if smallest > 1 and array.min() == array.max():
        raise DataError(f"{path} is empty: every voxel is {array.flat[0]}; export the volume again")
    return Image(array, ras_from_sitk(image), name=path.name.split(".")[0])


def read_layers(path: str | Path) -> tuple[list[Image], dict[str, str]]:
    """The layers of a segmentation file, of which one without overlap has one, and the text fields of its header.

    Raises DataError when it is missing, unreadable, cut off, of more than three axes, or does not say where it lies.
    """
    path = Path(path)
    image = _read(path)
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3:
        raise DataError(f"{path} has the size {image.GetSize()}, which is no segmentation; {WHAT_TO_NAME}")
    _check_frame(path, image)
    array = SimpleITK.GetArrayFromImage(image)
    name = path.name.split(".")[0]
    layers = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    return [Image(np.ascontiguousarray(layer), ras_from_sitk(image), name=name) for layer in layers], fields


def ras_from_sitk(image: SimpleITK.Image) -> npt.NDArray[np.float64]:
    """``ras_from_ijk`` (4, 4) of a SimpleITK volume, whose header is LPS."""
    lps_from_ijk = np.eye(4)
    lps_from_ijk[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    lps_from_ijk[:3, 3] = image.GetOrigin()
    return ras_from_lps_matrix(lps_from_ijk)


def sitk_from_image(image: Image, array: AnyArray | None = None) -> SimpleITK.Image:
    """A SimpleITK volume (LPS) of ``image``; ``array`` replaces its voxels. Components stay as vectors."""
    voxels = image.array if array is None else array
    result = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels), isVector=voxels.ndim == 4)
    lps_from_ijk = RAS_FROM_LPS @ image.ras_from_ijk
    result.SetSpacing([float(s) for s in image.spacing_mm])
    result.SetDirection((lps_from_ijk[:3, :3] / image.spacing_mm).ravel().tolist())
    result.SetOrigin(lps_from_ijk[:3, 3].tolist())
    return result


def write_volume(image: Image, path: Path) -> None:
    """Write ``image`` compressed; booleans become uint8, float64 becomes float32."""
    array = image.array
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif array.dtype == np.float64:
        array = array.astype(np.float32)
    SimpleITK.WriteImage(sitk_from_image(image, array), str(path), useCompression=True, compressionLevel=1)


def _read(path: Path) -> SimpleITK.Image:
    if not path.exists():
        raise DataError(f"there is no volume at {path}; {WHAT_TO_NAME}")
    try:
        if path.is_dir():
            return _read_series(path)
        image = SimpleITK.ReadImage(str(path))
        _check_whole(path, image)
        return image
    except RuntimeError as error:
        last_line = str(error).strip().splitlines()[-1]
        raise DataError(f"{path} cannot be read ({last_line}); {WHAT_TO_NAME}") from error


def _check_whole(path: Path, image: SimpleITK.Image) -> None:
    """Raises DataError for a NIfTI file that is cut off: ITK's reader fills up what is missing without a word."""
    if not image.HasMetaDataKey("nifti_type"):
        return
    told = {key: float(image.GetMetaData(key)) for key in ("vox_offset", "bitpix", *(f"dim[{n}]" for n in range(8)))}
    sizes = [told[f"dim[{n}]"] for n in range(1, int(told["dim[0]"]) + 1)]
    expected = int(told["vox_offset"] + np.prod(sizes) * told["bitpix"] / 8)
    # Voxels may be in a second file beside the header.
    header, data = (".hdr", ".img") if ".hdr" in path.name else ("", "")
    file = path.with_name(path.name.replace(header, data)) if header else path
    try:
        there = _unpacked_bytes(file) if file.suffix == ".gz" else file.stat().st_size
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} is damaged or cut off ({error}); copy or export it again") from error
    if there < expected:
        raise DataError(f"{file} is cut off: {there} bytes where {expected} belong; copy or export it again")


def _unpacked_bytes(file: Path) -> int:
    with gzip.open(file) as stream:
        return sum(len(part) for part in iter(lambda: stream.read(CHUNK), b""))


def _check_frame(path: Path, image: SimpleITK.Image) -> None:
    """Raises DataError when left and right are unknown: a NIfTI file without qform and sform, a NRRD without space."""
    reader = image.GetMetaData("ITK_InputFilterName") if image.HasMetaDataKey("ITK_InputFilterName") else ""
    why = ""
    if image.HasMetaDataKey("qform_code"):
        if all(int(image.GetMetaData(f"{form}_code")) == 0 for form in ("qform", "sform")):
            why = "qform_code and sform_code are 0"
    elif reader == "NrrdImageIO" and not image.HasMetaDataKey("NRRD_space"):
        why = "it names no space, such as left-posterior-superior"
    if why:
        raise DataError(
            f"{path} does not say how it lies in the patient ({why}), so left and right cannot be told apart: convert "
            "it again from its DICOM files"
        )


def _read_series(folder: Path) -> SimpleITK.Image:
    series = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = "no DICOM series" if not series else f"{len(series)} DICOM series"
        raise DataError(f"{folder} holds {found}; {WHAT_TO_NAME}")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))
    return reader.Execute()
