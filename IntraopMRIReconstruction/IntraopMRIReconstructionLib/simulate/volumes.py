"""Volumes from and to files (NRRD, NIfTI, MetaImage) for the lab; LPS on disk, RAS inside. DICOM has its own reader."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy.spatial.transform import Rotation

from ..data import AnyArray, Image
from ..errors import DataError
from ..geometry import RAS_FROM_LPS, ras_from_lps_matrix

#: A volume needs at least this many voxels along each axis to be worth registering.
SMALLEST_VOLUME = 8
WHAT_TO_NAME = "name a NIfTI or NRRD file"
#: Readers of formats that say how a volume lies in the patient, by their names in ITK. Others take voxel axes for it.
PLACED = ("NiftiImageIO", "NrrdImageIO", "MetaImageIO")
#: What a MetaImage calls its axes, in so many bytes at its begin.
META_HEADER = 4096
META_AXES = (b"TransformMatrix", b"Rotation", b"Orientation")
#: ITK turns every space of a NRRD that names the sides of a patient into this one, and leaves others as they are.
PATIENT_SPACE = "left-posterior-superior"
#: Where a NIfTI header has sizes of voxels, codes and quaternion of the qform, and rows of the sform, by its length.
NIFTI = {
    348: ((76, "8f"), (252, "2h"), (256, "6f"), (280, "12f")),
    540: ((104, "8d"), (344, "2i"), (352, "6d"), (400, "12d")),
}
#: Bytes that hold the longer one; types of voxels that can be no number, by their codes.
NIFTI_HEADER, FLOATS = 540, {16: "f4", 64: "f8"}
NOT_FINITE = "holds voxels that are not numbers (NaN or infinite); export the volume again"
#: Both forms of a NIfTI file may put a corner so far apart, mm: they are rounded, and voxels are ten times as large.
SAME_FORM_MM = 0.1
#: Bytes that are unpacked at a time.
CHUNK = 1 << 22


def read_volume(path: str | Path, smallest: int = SMALLEST_VOLUME) -> Image:
    """Read a NIfTI, NRRD or MetaImage file as a scalar volume in RAS.

    Raises DataError with what to do when it is missing, unreadable, cut off, not three-dimensional, of several
    components, not finite, or empty (all voxels alike), and when it does not say how it lies in the patient, or says
    two things.
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
        raise DataError(f"{path} {NOT_FINITE}")
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
            raise DataError(f"{path} is a folder; {WHAT_TO_NAME}")
        reader = SimpleITK.ImageFileReader.GetImageIOFromFileName(str(path))
        if not reader:
            raise DataError(f"{path} cannot be read (damaged, or of no known format); {WHAT_TO_NAME}")
        if reader not in PLACED:
            kind = reader.removesuffix("ImageIO")
            raise DataError(
                f"{path} is {kind}, and only NIfTI, NRRD and MetaImage say how they lie in the patient: convert it"
            )
        image = SimpleITK.ReadImage(str(path))
        _check_whole(path, image)
        return image
    except RuntimeError as error:
        last_line = str(error).strip().splitlines()[-1]
        raise DataError(f"{path} cannot be read ({last_line}); {WHAT_TO_NAME}") from error


def _check_whole(path: Path, image: SimpleITK.Image) -> None:
    """Raises DataError for a NIfTI file that is cut off, or holds voxels that are no numbers: ITK's reader fills up
    what is missing, and puts 0 in the place of NaN, without a word.
    """
    if not image.HasMetaDataKey("nifti_type"):
        return
    names = ("vox_offset", "bitpix", "datatype", *(f"dim[{n}]" for n in range(8)))
    told = {name: float(image.GetMetaData(name)) for name in names}
    sizes = [told[f"dim[{n}]"] for n in range(1, int(told["dim[0]"]) + 1)]
    begin = int(told["vox_offset"])
    expected = begin + int(np.prod(sizes) * told["bitpix"] / 8)
    # Voxels may be in a second file beside the header.
    header, data = (".hdr", ".img") if ".hdr" in path.name else ("", "")
    file = path.with_name(path.name.replace(header, data)) if header else path
    try:
        with _opened(file) as stream:
            content = stream.read(expected)
            there = len(content) + sum(len(part) for part in iter(lambda: stream.read(CHUNK), b""))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} is damaged or cut off ({error}); copy or export it again") from error
    if there < expected:
        raise DataError(f"{file} is cut off: {there} bytes where {expected} belong; copy or export it again")
    kind = FLOATS.get(int(told["datatype"]))
    if kind is not None:
        with _opened(path) as stream:
            values = np.frombuffer(content, _byte_order(stream.read(NIFTI_HEADER)) + kind, offset=begin)
        if not np.isfinite(values).all():
            raise DataError(f"{path} {NOT_FINITE}")


def _byte_order(header: bytes) -> str:
    """Of a NIfTI header, as numpy and struct write it; empty when it is none."""
    return next((order for order in "<>" if struct.unpack_from(f"{order}i", header)[0] in NIFTI), "")


def _opened(file: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")


def _check_frame(path: Path, image: SimpleITK.Image) -> None:
    """Raises DataError when left and right are unknown: a NIfTI file without qform and sform, or with two that differ,
    a NRRD without the space of a patient, a MetaImage without axes.
    """
    reader = image.GetMetaData("ITK_InputFilterName") if image.HasMetaDataKey("ITK_InputFilterName") else ""
    why = ""
    if image.HasMetaDataKey("qform_code"):
        why = _unsure_forms(path, image)
    elif reader == "NrrdImageIO":
        space = image.GetMetaData("NRRD_space") if image.HasMetaDataKey("NRRD_space") else ""
        if space != PATIENT_SPACE:
            why = f"its space is '{space}', not {PATIENT_SPACE} or the like" if space else "it names no space"
    elif reader == "MetaImageIO":
        with path.open("rb") as file:
            header = file.read(META_HEADER)
        why = "" if any(name in header for name in META_AXES) else "it names no TransformMatrix"
    if why:
        raise DataError(
            f"{path} does not say how it lies in the patient ({why}), so left and right cannot be told apart: convert "
            "it again from its DICOM files"
        )


def _unsure_forms(path: Path, image: SimpleITK.Image) -> str:
    """Why the forms of a NIfTI file do not place it, in words; empty when they do."""
    with _opened(path.with_name(path.name.replace(".img", ".hdr"))) as file:
        header = file.read(NIFTI_HEADER)
    order = _byte_order(header)
    if not order:
        # Analyze, from before there were forms.
        return "it has neither a qform nor a sform"
    fields = NIFTI[struct.unpack_from(f"{order}i", header)[0]]
    steps, codes, turned, rows = (struct.unpack_from(f"{order}{kind}", header, at) for at, kind in fields)
    if not any(codes):
        return "qform_code and sform_code are 0"
    if not all(codes):
        return ""
    b, c, d = turned[:3]
    a = np.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    rotation = Rotation.from_quat((b, c, d, a)).as_matrix()
    qform = np.column_stack([rotation * steps[1:4] * (1.0, 1.0, -1.0 if steps[0] < 0 else 1.0), turned[3:]])
    corners = np.array(np.meshgrid(*([0.0, n - 1.0] for n in image.GetSize()[:3]))).reshape(3, -1)
    differ = (np.reshape(rows, (3, 4)) - qform) @ np.vstack([corners, np.ones(corners.shape[1])])
    apart_mm = float(np.linalg.norm(differ, axis=0).max())
    if apart_mm <= SAME_FORM_MM:
        return ""
    return f"its qform and its sform put it up to {apart_mm:.1f} mm apart, with the codes {codes[0]} and {codes[1]}"
