"""The XML header of MRD: what reconstruction needs of it, read and written.

Elements that no stage uses are not judged: an anonymised birth date does not stop a reconstruction.
Source: ISMRMRD schema (http://www.ismrm.org/ISMRMRD).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from xml.etree import ElementTree as ET

from ..data import ECHO_TRAIN, Encoding, Trajectory
from ..errors import WireError

NAMESPACE = "http://www.ismrm.org/ISMRMRD"

#: Larger headers are refused: real ones have some 10 to 100 kB, with vendor protocols a few MB.
MAX_HEADER_BYTES = 16 << 20

#: Proton resonance, for headers that name the frequency but not the field.
HZ_PER_TESLA = 42.577478e6

#: Names of trajectories in MRD, and how the same thing is called here.
TRAJECTORIES: Mapping[str, Trajectory] = {
    "cartesian": "cartesian",
    "epi": "epi",
    "radial": "radial",
    "goldenangle": "radial",
    "spiral": "spiral",
}

#: User parameters for the number of calibration lines (z, y), as Siemens converters name them.
CALIBRATION_PARAMETERS = ("EmbeddedRefLinesE2", "EmbeddedRefLinesE1")
#: User parameter of ours: where the geometry comes from, so that an assumption stays visible in a copy.
GEOMETRY_PARAMETER = "IntraopMRIGeometry"
#: Entries of the encoding's metadata, and the user parameters of ours that carry them, since MRD has no place for them:
#: seconds from one repetition to the next; what is made of the scan when that is no image; -1 where the phase falls
#: with the frequency; which way the blips of EPI go (up or down); and for scans beside metal the centre frequencies of
#: spectral bins, one for each contrast, separated by spaces; their width; the bandwidth of the pulse that excites a
#: slice; the field of view of a slice encoding whose steps are the contrasts, N // 2 the central one (SEMAC); the angle
#: of a tilted view; and how counters were read where the header of the scan had left that open.
OWN_PARAMETERS: Mapping[str, str] = {
    "frame_interval_s": "IntraopMRIFrameInterval_s",
    "scan_for": "IntraopMRIScanFor",
    "phase_sign": "IntraopMRIPhaseSign",
    "blips": "IntraopMRIBlips",
    "bin_centres_hz": "IntraopMRIBinCentres_Hz",
    "spectral_bin_hz": "IntraopMRISpectralBin_Hz",
    "rf_bandwidth_hz": "IntraopMRIRfBandwidth_Hz",
    "semac_fov_mm": "IntraopMRISemacFov_mm",
    "vat_tilt_deg": "IntraopMRIViewAngle_deg",
    "read_as": "IntraopMRIReadAs",
}
#: Entries of the encoding's metadata, and the parameters of an EPI readout (microseconds) as converters write them.
EPI_PARAMETERS: Mapping[str, str] = {
    "epi_ramp_s": "rampUpTime",
    "epi_flat_s": "flatTopTime",
    "epi_delay_s": "acqDelayTime",
}
#: Name of that description.
EPI_DESCRIPTION = "ConventionalEPI"

_COUNTERS = (
    "kspace_encoding_step_0",
    "kspace_encoding_step_1",
    "kspace_encoding_step_2",
    "average",
    "slice",
    "contrast",
    "phase",
    "repetition",
    "set",
    "segment",
)

_N = TypeVar("_N", int, float)


@dataclass(frozen=True)
class Limit:
    """Range of a counter, and which value is the centre of k-space."""

    minimum: int
    maximum: int
    centre: int


@dataclass(frozen=True)
class Space:
    """One ``encoding`` of the header. Tuples are (z, y, x).

    ``order``: the trajectory's own name in the header. ``description``: numbers of its trajectoryDescription.
    ``echo_train``: lines read after each excitation, None when the header does not say.
    """

    trajectory: Trajectory
    encoded_matrix: tuple[int, int, int]
    recon_matrix: tuple[int, int, int]
    encoded_fov_mm: tuple[float, float, float]
    recon_fov_mm: tuple[float, float, float]
    acceleration: tuple[int, int]
    limits: Mapping[str, Limit]
    order: str = ""
    description: Mapping[str, float] = field(default_factory=dict)
    echo_train: int | None = None

    def count(self, counter: str) -> int:
        """How many values a counter is said to take, at least 1."""
        limit = self.limits.get(counter)
        return 1 if limit is None else limit.maximum + 1


@dataclass(frozen=True)
class MrdHeader:
    """What the XML header says."""

    spaces: tuple[Space, ...]
    measurement_id: str = ""
    protocol: str = ""
    patient_id: str = ""
    patient_position: str = ""
    frame_of_reference: str = ""
    field_t: float | None = None
    coils: int = 0
    echo_times_s: tuple[float, ...] = ()
    user_parameters: Mapping[str, str] = field(default_factory=dict)


def parse_header(xml: bytes | str) -> MrdHeader:
    """Read an XML header. Raises WireError naming the element that is missing or wrong."""
    raw = xml.encode() if isinstance(xml, str) else xml
    if len(raw) > MAX_HEADER_BYTES:
        raise WireError(f"MRD header has {len(raw)} bytes, at most {MAX_HEADER_BYTES} are accepted")
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise WireError("MRD header defines XML entities; a header has none, so this is refused")
    try:
        # Some writers pad the text with NULs.
        root = ET.fromstring(raw.rstrip(b"\0 \r\n"))
    except (ET.ParseError, ValueError) as error:
        raise WireError(f"MRD header is not XML ({error}); it begins with {raw[:40]!r}") from error
    if root.tag != f"{{{NAMESPACE}}}ismrmrdHeader":
        raise WireError(f"MRD header must be an ismrmrdHeader of {NAMESPACE}, got <{root.tag}>")
    spaces = tuple(_space(node, number) for number, node in enumerate(root.findall(_path("encoding"))))
    if not spaces:
        raise WireError("MRD header has no <encoding>: matrix and field of view are unknown")
    hz = _optional(root, "experimentalConditions/H1resonanceFrequency_Hz", float)
    tesla = _optional(root, "acquisitionSystemInformation/systemFieldStrength_T", float)
    return MrdHeader(
        spaces=spaces,
        measurement_id=_text(root, "measurementInformation/measurementID"),
        protocol=_text(root, "measurementInformation/protocolName"),
        patient_id=_text(root, "subjectInformation/patientID"),
        patient_position=_text(root, "measurementInformation/patientPosition"),
        frame_of_reference=_text(root, "measurementInformation/frameOfReferenceUID"),
        field_t=tesla if tesla else (hz / HZ_PER_TESLA if hz else None),
        coils=_optional(root, "acquisitionSystemInformation/receiverChannels", int) or 0,
        echo_times_s=tuple(
            _number(node.text, float, "sequenceParameters/TE") / 1000.0
            for node in root.findall(_path("sequenceParameters/TE"))
        ),
        user_parameters={
            _text(node, "name"): _text(node, "value")
            for kind in ("Long", "Double", "String")
            for node in root.findall(_path(f"userParameters/userParameter{kind}"))
        },
    )


def format_header(encoding: Encoding) -> bytes:
    """XML header of a scan with one encoding. The schema fixes the order of the elements."""
    slices = 1 if encoding.is_3d else encoding.encoded_matrix[0]
    root = ET.Element("ismrmrdHeader", {"xmlns": NAMESPACE})
    _put(root, "version", 1)
    if encoding.patient_id:
        _put(_put(root, "subjectInformation"), "patientID", encoding.patient_id)
    measurement = _put(root, "measurementInformation")
    _put(measurement, "measurementID", encoding.scan_id)
    _put(measurement, "patientPosition", encoding.metadata.get("patient_position") or "HFS")
    if encoding.protocol:
        _put(measurement, "protocolName", encoding.protocol)
    if encoding.metadata.get("frame_of_reference"):
        _put(measurement, "frameOfReferenceUID", encoding.metadata["frame_of_reference"])
    system = _put(root, "acquisitionSystemInformation")
    if encoding.field_t:
        _put(system, "systemFieldStrength_T", encoding.field_t)
    _put(system, "receiverChannels", encoding.coils)
    conditions = _put(root, "experimentalConditions")
    _put(conditions, "H1resonanceFrequency_Hz", round((encoding.field_t or 0.0) * HZ_PER_TESLA))
    _put_space(_put(root, "encoding"), encoding, slices)
    if encoding.echo_times_s:
        sequence = _put(root, "sequenceParameters")
        for echo_time_s in encoding.echo_times_s:
            _put(sequence, "TE", echo_time_s * 1000.0)
    parameters = _put(root, "userParameters")
    for name, count in zip(CALIBRATION_PARAMETERS, encoding.calibration_lines, strict=True):
        _put_parameter(parameters, "Long", name, count)
    if encoding.metadata.get("geometry"):
        _put_parameter(parameters, "String", GEOMETRY_PARAMETER, encoding.metadata["geometry"])
    for key, name in OWN_PARAMETERS.items():
        if encoding.metadata.get(key):
            _put_parameter(parameters, "String", name, encoding.metadata[key])
    # ASCII with character references: the C library of ISMRMRD reads nothing else from a file.
    return ET.tostring(root, encoding="us-ascii", xml_declaration=True)


def _space(node: ET.Element, number: int) -> Space:
    name = _text(node, "trajectory").lower()
    if name not in TRAJECTORIES:
        raise WireError(f"MRD encoding {number}: trajectory must be one of {', '.join(TRAJECTORIES)}, got '{name}'")
    spaces = {}
    for space in ("encodedSpace", "reconSpace"):
        matrix = [_required(node, f"{space}/matrixSize/{axis}", int) for axis in "zyx"]
        fov_mm = [_required(node, f"{space}/fieldOfView_mm/{axis}", float) for axis in "zyx"]
        if min(matrix) < 1 or max(matrix) > 0xFFFF:
            raise WireError(f"MRD encoding {number}: {space} matrix (z, y, x) must be 1 to 65535, got {matrix}")
        if min(fov_mm) <= 0:
            raise WireError(f"MRD encoding {number}: {space} field of view (z, y, x) must be positive, got {fov_mm} mm")
        spaces[space] = (matrix, fov_mm)
    return Space(
        trajectory=TRAJECTORIES[name],
        encoded_matrix=_triple(spaces["encodedSpace"][0]),
        recon_matrix=_triple(spaces["reconSpace"][0]),
        encoded_fov_mm=_triple(spaces["encodedSpace"][1]),
        recon_fov_mm=_triple(spaces["reconSpace"][1]),
        acceleration=(
            _optional(node, "parallelImaging/accelerationFactor/kspace_encoding_step_2", int) or 1,
            _optional(node, "parallelImaging/accelerationFactor/kspace_encoding_step_1", int) or 1,
        ),
        limits={
            counter: Limit(*(_required(node, f"encodingLimits/{counter}/{end}", int) for end in _ENDS))
            for counter in _COUNTERS
            if node.find(_path(f"encodingLimits/{counter}")) is not None
        },
        order=name,
        description={
            _text(parameter, "name"): _required(parameter, "value", float)
            for kind in ("Long", "Double")
            for parameter in node.findall(_path(f"trajectoryDescription/userParameter{kind}"))
        },
        echo_train=_optional(node, "echoTrainLength", int),
    )


_ENDS = ("minimum", "maximum", "center")


def _put_space(node: ET.Element, encoding: Encoding, slices: int) -> None:
    for space, matrix, fov_mm in (
        ("encodedSpace", encoding.encoded_matrix, encoding.encoded_fov_mm),
        ("reconSpace", encoding.recon_matrix, encoding.recon_fov_mm),
    ):
        element = _put(node, space)
        size, length = _put(element, "matrixSize"), _put(element, "fieldOfView_mm")
        for axis, count, mm in zip("xyz", matrix[::-1], fov_mm[::-1], strict=True):
            in_plane = encoding.is_3d or axis != "z"
            _put(size, axis, count if in_plane else 1)
            _put(length, axis, mm if in_plane else mm / count)
    limits = _put(node, "encodingLimits")
    z, y, x = encoding.encoded_matrix
    centre_z, centre_y, centre_x = encoding.centre_index
    for counter, count, centre in (
        ("kspace_encoding_step_0", x, centre_x),
        ("kspace_encoding_step_1", *_lines_of(encoding, y, centre_y)),
        ("kspace_encoding_step_2", z if encoding.is_3d else 1, centre_z if encoding.is_3d else 0),
        ("average", encoding.averages, 0),
        ("slice", slices, 0),
        ("contrast", encoding.contrasts, 0),
        ("repetition", encoding.repetitions, 0),
    ):
        limit = _put(limits, counter)
        for end, value in zip(_ENDS, (0, count - 1, centre), strict=True):
            _put(limit, end, value)
    golden = encoding.trajectory == "radial" and encoding.metadata.get("radial_order") == "golden"
    _put(node, "trajectory", "goldenangle" if golden else encoding.trajectory)
    if encoding.trajectory == "epi" and encoding.metadata.get("epi_ramp_s"):
        description = _put(node, "trajectoryDescription")
        _put(description, "identifier", EPI_DESCRIPTION)
        for key, name in EPI_PARAMETERS.items():
            _put_parameter(description, "Double", name, float(encoding.metadata.get(key, 0.0)) * 1e6)
    factor = _put(_put(node, "parallelImaging"), "accelerationFactor")
    _put(factor, "kspace_encoding_step_1", encoding.acceleration[1])
    _put(factor, "kspace_encoding_step_2", encoding.acceleration[0])
    if encoding.metadata.get(ECHO_TRAIN):
        _put(node, "echoTrainLength", encoding.metadata[ECHO_TRAIN])


def _lines_of(encoding: Encoding, count: int, centre: int) -> tuple[int, int]:
    """Number of phase-encoding steps and the central one; of shots, whose counter has no centre."""
    shots = encoding.metadata.get("shots", "")
    return (int(shots), 0) if encoding.trajectory in ("radial", "spiral") and shots.isdecimal() else (count, centre)


def _put_parameter(parameters: ET.Element, kind: str, name: str, value: object) -> None:
    parameter = _put(parameters, f"userParameter{kind}")
    _put(parameter, "name", name)
    _put(parameter, "value", value)


def _put(parent: ET.Element, name: str, value: object = None) -> ET.Element:
    element = ET.SubElement(parent, name)
    if value is not None:
        element.text = str(value)
    return element


def _path(path: str) -> str:
    return "/".join(f"{{{NAMESPACE}}}{part}" for part in path.split("/"))


def _text(node: ET.Element, path: str) -> str:
    return (node.findtext(_path(path)) or "").strip()


def _optional(node: ET.Element, path: str, kind: Callable[[str], _N]) -> _N | None:
    text = _text(node, path)
    return _number(text, kind, path) if text else None


def _required(node: ET.Element, path: str, kind: Callable[[str], _N]) -> _N:
    text = _text(node, path)
    if not text:
        raise WireError(f"MRD header lacks <{path}>, which the geometry of the image needs")
    return _number(text, kind, path)


def _number(text: str | None, kind: Callable[[str], _N], path: str) -> _N:
    try:
        value = kind(text or "")
    except ValueError:
        raise WireError(f"MRD header: <{path}> must be a number, got '{text}'") from None
    if not math.isfinite(value):
        raise WireError(f"MRD header: <{path}> must be finite, got {text}")
    return value


def _triple(values: list[_N]) -> tuple[_N, _N, _N]:
    z, y, x = values
    return z, y, x
