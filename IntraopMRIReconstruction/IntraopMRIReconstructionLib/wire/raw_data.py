"""Live k-space over OpenIGTLink: the protocol has no type for it, so this is the contract.

A scan is one STRING, then NDARRAY messages (or complex IMAGE messages), all of header version 2.

1. STRING, device ``RAW_ENCODING``: JSON with ``"format": "intraop-encoding-1"`` and the fields of
   :class:`~IntraopMRIReconstructionLib.data.Encoding` under their names. ``ras_from_ijk`` is (4, 4) in mm, rows of
   rows, its columns as long as a voxel of the recon field of view and matrix; ``coordinate_system`` is ``"RAS"`` or
   ``"LPS"`` and tells where it leads. ``is_3d`` must be there when the matrix has more than one z.
2. NDARRAY, device ``RAW_LINES``, shape (lines, coils, readout, 2): float32 real and imaginary parts; or shape
   (lines, coils, readout) of complex128 (scalar type 13). Metadata, all text:

   =============  ==================================================================================================
   ``scan_id``    which scan these lines belong to
   ``ky, kz``     phase and partition (or slice) index of every line, separated by commas
   ``flags``      bits of :class:`~IntraopMRIReconstructionLib.data.LineFlag` of every line, or left out
   ``contrast, repetition, average``   counted from 0, or left out
   ``last``       ``1`` on the last message of the scan
   ``trajectory_shape, trajectory``    only radial and spiral: ``lines,readout,2`` (or 3) and base64 of big-endian
                  float32, in cycles per encoded field of view; may be left out when the encoding's ``metadata`` has
                  ``radial_order`` ``golden``: spoke ``ky`` is then turned by ``ky`` golden angles
                  (in every partition of a 3D scan: a stack). With three columns a 3D radial scan may go in all
                  directions of space: straight spokes out of or through the centre, in any order
   =============  ==================================================================================================

   A Cartesian readout has as many samples as the encoded matrix is wide, or fewer (partial, asymmetric echo): then
   the encoding's ``centre`` (z, y, x) must be there, and its x is the sample, counted from 0 in the readout as sent,
   that holds the centre of k-space. All image lines of a scan have one length and one centre. Lines of noise and
   navigators may have another length.

   Lines of EPI carry their direction in ``flags``. When they are sampled on the ramps of the gradient, the encoding's
   ``metadata`` says how: ``epi_ramp_s``, ``epi_flat_s``, ``epi_delay_s``, and ``dwell_time_s`` is set.

   A sender that had to assume how the scan lies in the patient says so in the encoding's ``metadata``: ``geometry``
   begins with ``assumed``. The image then says it too, and no session takes it.

   A scan that is made for a quantity says so in the encoding's ``metadata``: ``scan_for`` is ``temperature`` (frames
   are repetitions, ``frame_interval_s`` apart) or ``field map`` (contrasts are echoes). ``phase_sign`` is ``-1`` for a
   scanner that stores the conjugate, so that a higher frequency turns the phase back. ``blips`` is ``up`` or
   ``down``: two EPI scans of one place that differ in it put each other's distortion right.

   A scan beside metal says so in the encoding's ``metadata``, all text: ``bin_centres_hz`` (its contrasts are spectral
   bins with these centres, separated by spaces) and ``spectral_bin_hz`` (their width); ``semac_fov_mm`` (its contrasts
   are the steps of a slice encoding over this field of view, step N // 2 the central one, planes as far apart as the
   slices); ``vat_tilt_deg`` (angle of a tilted view, above 0 where it undoes the shift of off-resonant signal);
   ``rf_bandwidth_hz`` and ``slice_thickness_mm``. In MRD these are user parameters, see :mod:`.mrd_header`.

   The same as IMAGE: size (readout, coils, lines), two components float32 or scalar type 13. Little-endian, its
   samples are not even copied on arrival, which NDARRAY (always big-endian) cannot offer.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..data import Acquisition, Encoding, LineFlag, Trajectory
from ..errors import DataError, WireError
from ..geometry import ras_from_lps_matrix
from .adapters import Times, native
from .header import timestamp_now
from .message import Message
from .messages_array import ImageMessage, NDArrayMessage
from .messages_text import StringMessage
from .plausible import refuse_implausible

FORMAT = "intraop-encoding-1"
ENCODING_DEVICE = "RAW_ENCODING"
LINES_DEVICE = "RAW_LINES"

_TRIPLES = ("encoded_matrix", "recon_matrix", "encoded_fov_mm", "recon_fov_mm")
_PAIRS = ("acceleration", "calibration_lines")
_COUNTS = ("coils", "contrasts", "repetitions", "averages")
_REQUIRED = ("scan_id", "trajectory", *_TRIPLES, "coils", "ras_from_ijk", "coordinate_system")
#: Lines that need not have the readout length of the scan.
_FREE_LENGTH = LineFlag.NOISE | LineFlag.NAVIGATOR


def messages_from_encoding(encoding: Encoding, device: str = ENCODING_DEVICE) -> list[Message]:
    """The messages that open a scan: one STRING. Raises WireError when its JSON exceeds 65535 bytes."""
    fields: dict[str, Any] = {"format": FORMAT, "coordinate_system": "RAS"}
    for name in Encoding.__dataclass_fields__:
        value = getattr(encoding, name)
        fields[name] = value.tolist() if name == "ras_from_ijk" else dict(value) if name == "metadata" else value
    text = json.dumps(fields, separators=(",", ":"))
    return [
        StringMessage(
            device=device, timestamp=timestamp_now(), version=2, metadata={"scan_id": encoding.scan_id}, text=text
        )
    ]


def message_from_acquisition(
    acquisition: Acquisition, device: str = LINES_DEVICE, form: Literal["ndarray", "image"] = "ndarray"
) -> NDArrayMessage | ImageMessage:
    """One block of lines. ``form`` "image" sends little-endian IMAGE, which neither side needs to copy."""
    metadata = {
        "scan_id": acquisition.scan_id,
        "ky": _text_of(acquisition.ky),
        "kz": _text_of(acquisition.kz),
        "contrast": str(acquisition.contrast),
        "repetition": str(acquisition.repetition),
        "average": str(acquisition.average),
    }
    if acquisition.flags is not None and acquisition.flags.any():
        metadata["flags"] = _text_of(acquisition.flags)
    if acquisition.trajectory is not None:
        metadata["trajectory_shape"] = _text_of(np.array(acquisition.trajectory.shape))
        metadata["trajectory"] = base64.b64encode(acquisition.trajectory.astype(">f4").tobytes()).decode()
    if acquisition.last:
        metadata["last"] = "1"
    samples = np.ascontiguousarray(acquisition.samples, dtype=np.complex64)
    pairs = samples.view(np.float32).reshape(*samples.shape, 2)
    if form == "image":
        return ImageMessage(device=device, timestamp=timestamp_now(), version=2, metadata=metadata, array=pairs)
    return NDArrayMessage(device=device, timestamp=timestamp_now(), version=2, metadata=metadata, array=pairs)


class RawDataReader:
    """Turns the messages of one connection into :class:`Encoding` and :class:`Acquisition`.

    ``patient_id``: refuse scans of another patient; "" takes the patient of the first scan. One scan is open at a
    time; a new encoding closes it.
    """

    def __init__(self, patient_id: str = "") -> None:
        self.patient_id = patient_id
        self.encoding: Encoding | None = None
        self._ended = False

    def feed(self, message: Message, received: Times | None = None) -> Encoding | Acquisition | None:
        """Next message: an Encoding opens a scan, an Acquisition belongs to it, None is no raw data.

        Raises WireError when raw data cannot be trusted: no or another scan, wrong shapes or indices, another patient.
        The reader stays as it was and goes on with the next message. Samples are passed on as they are: one that is not
        finite spoils its line, which whoever puts the lines together leaves out and says, not its whole block.
        """
        if isinstance(message, StringMessage):
            fields = _encoding_fields(message)
            return None if fields is None else self._open(fields, message.device)
        if isinstance(message, NDArrayMessage | ImageMessage) and "ky" in message.metadata:
            return self._lines(message, received)
        return None

    def _open(self, fields: Mapping[str, Any], device: str) -> Encoding:
        encoding = _encoding_from(fields, f"encoding '{device}'")
        self.patient_id = same_patient(encoding, self.patient_id)
        self.encoding, self._ended = encoding, False
        return encoding

    def _lines(self, message: NDArrayMessage | ImageMessage, received: Times | None) -> Acquisition:
        what = f"{message.type_name} '{message.device}'"
        metadata = message.metadata
        encoding = self.encoding
        if encoding is None:
            raise WireError(f"{what} carries k-space of scan '{metadata.get('scan_id')}' before any encoding")
        if metadata.get("scan_id") != encoding.scan_id or self._ended:
            state = "has ended" if self._ended else "is open"
            raise WireError(f"{what} belongs to scan '{metadata.get('scan_id')}', but '{encoding.scan_id}' {state}")
        samples = _samples(message, what)
        lines = samples.shape[0]
        # The number of a shot is no row of the matrix.
        rows = encoding.encoded_matrix[1] if encoding.trajectory in ("cartesian", "epi") else None
        flags = _numbers(metadata, "flags", what, lines, np.uint32) if "flags" in metadata else None
        acquisition = Acquisition(
            scan_id=encoding.scan_id,
            samples=samples,
            ky=_numbers(metadata, "ky", what, lines, np.int32, rows),
            kz=_numbers(metadata, "kz", what, lines, np.int32, encoding.encoded_matrix[0]),
            flags=flags,
            contrast=_counter(metadata, "contrast", what, encoding.contrasts),
            repetition=_counter(metadata, "repetition", what, encoding.repetitions),
            average=_counter(metadata, "average", what, encoding.averages),
            trajectory=_trajectory(metadata, what, samples.shape),
            received_monotonic_s=None if received is None else received.received_monotonic_s,
            received_utc_s=None if received is None else received.received_utc_s,
            last=metadata.get("last") == "1",
        )
        _check_lines(acquisition, encoding, what)
        self._ended = acquisition.last
        return acquisition


def same_patient(encoding: Encoding, patient_id: str) -> str:
    """The patient of a session of ``patient_id`` ("" when not known yet). Raises WireError for a scan of another."""
    if patient_id and encoding.patient_id != patient_id:
        raise WireError(
            f"scan '{encoding.scan_id}' is of patient '{encoding.patient_id}', this session is of '{patient_id}': "
            "check the patient at the scanner, or start a new session"
        )
    return patient_id or encoding.patient_id


def _check_lines(acquisition: Acquisition, encoding: Encoding, what: str) -> None:
    coils, readout = acquisition.samples.shape[1:]
    if coils != encoding.coils:
        raise WireError(f"{what} has {coils} coils, scan '{encoding.scan_id}' announced {encoding.coils}")
    ramps = encoding.trajectory == "epi" and "epi_ramp_s" in encoding.metadata
    if encoding.trajectory in ("cartesian", "epi") and readout != encoding.encoded_matrix[2] and not ramps:
        free = acquisition.flags is not None and bool((acquisition.flags & _FREE_LENGTH).all())
        if not free:
            _check_short(readout, encoding, what)
    golden = encoding.metadata.get("radial_order") == "golden"
    if encoding.trajectory in ("radial", "spiral") and acquisition.trajectory is None and not golden:
        raise WireError(f"{what} has no trajectory, which a {encoding.trajectory} scan needs")


def _check_short(readout: int, encoding: Encoding, what: str) -> None:
    """Raise WireError unless a Cartesian readout may have so many samples, fewer than its matrix is wide."""
    width = encoding.encoded_matrix[2]
    told = f"{what} has {readout} samples a line, scan '{encoding.scan_id}' announced {width}"
    if readout > width or encoding.trajectory != "cartesian":
        raise WireError(told)
    if encoding.centre is None:
        raise WireError(
            f"{told}: a short (asymmetric) readout needs 'centre' in the encoding, to say which is its echo"
        )
    if not encoding.centre[2] < readout:
        raise WireError(f"{told} with its centre at sample {encoding.centre[2]}, which a readout so short lacks")


def _samples(message: NDArrayMessage | ImageMessage, what: str) -> npt.NDArray[np.complex64]:
    array = message.array
    if isinstance(message, ImageMessage) and not message.is_whole:
        raise WireError(f"{what} carries a part of its k-space block, which must be whole")
    if array.dtype.kind == "c" and array.ndim == 3:
        with np.errstate(over="ignore"):
            return array.astype(np.complex64)
    if array.dtype.kind == "f" and array.dtype.itemsize == 4 and array.ndim == 4 and array.shape[3] == 2:
        return np.ascontiguousarray(native(array)).view(np.complex64)[..., 0]
    raise WireError(
        f"{what} must be float32 of shape (lines, coils, readout, 2) or complex128 of shape (lines, coils, readout), "
        f"got {array.dtype} {array.shape}"
    )


def _trajectory(metadata: Mapping[str, str], what: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
    if "trajectory" not in metadata:
        return None
    dimensions = tuple(_numbers(metadata, "trajectory_shape", what, 3, np.int32).tolist())
    if dimensions[:2] != (shape[0], shape[2]) or dimensions[2] not in (2, 3):
        raise WireError(f"{what}: trajectory must have shape ({shape[0]}, {shape[2]}, 2 or 3), got {dimensions}")
    try:
        raw = base64.b64decode(metadata["trajectory"], validate=True)
    except binascii.Error as error:
        raise WireError(f"{what}: trajectory is no base64: {error}") from error
    if len(raw) != 4 * int(np.prod(dimensions)):
        raise WireError(
            f"{what}: trajectory of shape {dimensions} needs {4 * np.prod(dimensions)} bytes, got {len(raw)}"
        )
    trajectory = np.frombuffer(raw, ">f4").reshape(dimensions).astype(np.float32)
    if not np.isfinite(trajectory).all():
        raise WireError(f"{what}: trajectory must be finite")
    return trajectory


def _text_of(numbers: npt.NDArray[Any]) -> str:
    return ",".join(map(str, numbers.tolist()))


def _numbers(
    metadata: Mapping[str, str], key: str, what: str, count: int, dtype: Any, below: int | None = None
) -> npt.NDArray[Any]:
    try:
        numbers = [int(part) for part in metadata.get(key, "").split(",")]
    except ValueError:
        raise WireError(f"{what}: metadata '{key}' must be {count} integers, got {metadata.get(key)!r}") from None
    limit = 2**31 if below is None else below
    if len(numbers) != count or min(numbers) < 0 or max(numbers) >= limit:
        raise WireError(f"{what}: metadata '{key}' must be {count} integers from 0 to {limit - 1}, got {numbers[:8]}")
    return np.array(numbers, dtype)


def _counter(metadata: Mapping[str, str], key: str, what: str, below: int) -> int:
    return int(_numbers(metadata, key, what, 1, np.int32, below)[0]) if key in metadata else 0


def _encoding_fields(message: StringMessage) -> dict[str, Any] | None:
    if FORMAT not in message.text:
        return None
    try:
        fields = json.loads(message.text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"encoding '{message.device}' is no JSON: {error}") from error
    return fields if isinstance(fields, dict) and fields.get("format") == FORMAT else None


def _encoding_from(fields: Mapping[str, Any], what: str) -> Encoding:
    missing = [name for name in _REQUIRED if name not in fields]
    if missing:
        raise WireError(f"{what} lacks {', '.join(missing)}")
    if fields["trajectory"] not in get_args(Trajectory):
        raise WireError(f"{what}: trajectory must be one of {get_args(Trajectory)}, got {fields['trajectory']!r}")
    if fields["coordinate_system"] not in ("RAS", "LPS"):
        raise WireError(f"{what}: coordinate_system must be RAS or LPS, got {fields['coordinate_system']!r}")
    values = {name: value for name, value in fields.items() if name in Encoding.__dataclass_fields__}
    try:
        for name in _TRIPLES + _PAIRS:
            if name in values:
                kind = float if name.endswith("_mm") else _whole
                values[name] = tuple(kind(value) for value in values[name])
                if name in _PAIRS and len(values[name]) != 2:
                    raise ValueError(f"{name} must be two numbers (z, y), got {values[name]}")
        for name in _COUNTS:
            if name in values:
                values[name] = _whole(values[name])
        for name in ("field_t", "dwell_time_s"):
            if values.get(name) is not None:
                values[name] = float(values[name])
        if values.get("centre") is not None:
            values["centre"] = tuple(_whole(value) for value in values["centre"])
        values["echo_times_s"] = tuple(float(value) for value in values.get("echo_times_s", ()))
        values["metadata"] = {str(key): str(value) for key, value in values.get("metadata", {}).items()}
        for name in ("scan_id", "protocol", "patient_id"):
            values[name] = str(values.get(name, ""))
        if fields["coordinate_system"] == "LPS":
            values["ras_from_ijk"] = ras_from_lps_matrix(values["ras_from_ijk"])
        if not isinstance(values.setdefault("is_3d", values["encoded_matrix"][0] == 1 or None), bool):
            raise ValueError(f"is_3d must be true or false where there are several z, got {values['is_3d']!r}")
        encoding = Encoding(**values)
        _check_centre(encoding)
        refuse_implausible(encoding)
    except (DataError, WireError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise WireError(f"{what} cannot be used: {error}") from error
    return encoding


def _whole(value: Any) -> int:
    """Raises ValueError for half a line."""
    if int(value) != float(value):
        raise ValueError(f"a whole number was expected, got {value!r}")
    return int(value)


def _check_centre(encoding: Encoding) -> None:
    """Raise DataError for a centre of k-space that the encoded matrix does not have."""
    centre, matrix = encoding.centre, encoding.encoded_matrix
    if centre is not None and not (len(centre) == 3 and all(0 <= c < n for c, n in zip(centre, matrix, strict=True))):
        raise DataError(f"centre must be three indices (z, y, x) within the encoded matrix {matrix}, got {centre}")
