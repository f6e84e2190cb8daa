"""Messages of the MRD streaming protocol: one table of ids, read from an inlet and turned into bytes.

Every message begins with its id (u16, little-endian). Source: the ISMRMRD streaming protocol (Gadgetron).
Sizes are checked against :class:`MrdLimits` before anything is allocated.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..data import AnyArray, Image
from ..errors import DataError, IntraopError, WireError
from ..geometry import RAS_FROM_LPS, apply, corner_from_fourier_centre, ras_from_lps_matrix
from .header import RefusedMessage
from .mrd_geometry import DIRECTION_TOLERANCE, unit_axes
from .mrd_layout import ACQUISITION_HEAD, IMAGE_HEAD, IMAGE_TYPES, LAYOUT_VERSION, PIXEL_TYPES, WAVEFORM_HEAD
from .mrd_lines import Lines

MESSAGE_ID = struct.Struct("<H")
_TEXT_LENGTH = struct.Struct("<I")
_ATTRIBUTE_LENGTH = struct.Struct("<Q")
_CONFIG_FILE_BYTES = 1024

#: Pixel types that MRD lacks are sent as the next larger one.
_WIDER = {np.dtype("u1"): np.dtype("<u2"), np.dtype("i1"): np.dtype("<i2"), np.dtype("?"): np.dtype("<u2")}


class MessageId(IntEnum):
    """Ids of the messages that are read and sent."""

    CONFIG_FILE = 1
    CONFIG_TEXT = 2
    HEADER = 3
    CLOSE = 4
    TEXT = 5
    ACQUISITION = 1008
    IMAGE = 1022
    WAVEFORM = 1026


@dataclass(frozen=True)
class MrdLimits:
    """Ceilings on what a peer may make us allocate, and how long we wait for it.

    ``idle_s``: for the next message to begin, None for ever (a scanner may pause). ``message_s``: for a message that
    has begun, plus its size at ``slowest_bytes_per_s``.
    """

    text_bytes: int = 16 << 20
    acquisition_bytes: int = 256 << 20
    image_bytes: int = 1 << 30
    waveform_bytes: int = 64 << 20
    idle_s: float | None = None
    message_s: float = 5.0
    slowest_bytes_per_s: float = 1e6


class Inlet(Protocol):
    """Where the bytes of a message come from."""

    def read(self, count: int) -> memoryview:
        """Exactly ``count`` bytes that nobody else will write to; raises WireError when they do not come in time."""


@dataclass(frozen=True)
class TextMessage:
    """A configuration, an XML header, a text for a person, or the end of the scan (``CLOSE``, empty)."""

    kind: MessageId
    text: str = ""


@dataclass(frozen=True, eq=False)
class AcquisitionMessage:
    """One readout. ``head``: shape (1,); ``samples``, ``trajectory``: flat float32."""

    head: AnyArray
    samples: npt.NDArray[np.float32]
    trajectory: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Waveform:
    """A physiological or navigator trace. ``samples``: (channels, samples) uint32."""

    waveform_id: int
    samples: npt.NDArray[np.uint32]
    sample_time_s: float
    time_stamp: int = 0
    scan_counter: int = 0


MrdMessage = TextMessage | AcquisitionMessage | Image | Waveform


def read_message(inlet: Inlet, limits: MrdLimits) -> MrdMessage:
    """Read one message.

    Raises RefusedMessage when the message was read to its end but its content is wrong; the next one can be read.
    Any other WireError (an unknown id, a size over its limit) ends the link: MRD has no length by which the next
    message could be found.
    """
    (number,) = MESSAGE_ID.unpack(inlet.read(MESSAGE_ID.size))
    reader = _READERS.get(number)
    if reader is None:
        known = ", ".join(str(int(kind)) for kind in MessageId)
        raise WireError(f"MRD message id {number} is unknown (known: {known}); the peer speaks another protocol")
    return reader(inlet, limits)


def text_bytes(message: TextMessage) -> bytes:
    """Bytes of a text message. Raises DataError when a configuration name is too long."""
    raw = message.text.encode()
    head = MESSAGE_ID.pack(message.kind)
    if message.kind is MessageId.CLOSE:
        return head
    if message.kind is MessageId.CONFIG_FILE:
        if len(raw) >= _CONFIG_FILE_BYTES:
            raise DataError(f"an MRD configuration name has at most 1023 bytes, got {len(raw)}")
        return head + raw.ljust(_CONFIG_FILE_BYTES, b"\0")
    return head + _TEXT_LENGTH.pack(len(raw)) + raw


def acquisition_bytes(lines: Lines, row: int) -> bytes:
    """Bytes of one readout of ``lines``."""
    trajectory = b"" if lines.trajectory is None else lines.trajectory[row].astype("<f4", copy=False).tobytes()
    samples = lines.samples[row].astype("<f4", copy=False).tobytes()
    return b"".join((MESSAGE_ID.pack(MessageId.ACQUISITION), lines.heads[row].tobytes(), trajectory, samples))


def image_bytes(image: Image) -> list[bytes | memoryview]:
    """Bytes of an image in RAS, in parts. Components become channels.

    Raises DataError for a skewed grid and for pixel types that MRD cannot hold.
    """
    array = np.moveaxis(image.array if image.array.ndim == 4 else image.array[..., None], 3, 0)
    kind = _WIDER.get(array.dtype, array.dtype).newbyteorder("<")
    codes = {pixel: code for code, pixel in PIXEL_TYPES.items()}
    if kind not in codes:
        raise DataError(f"MRD holds 16 and 32 bit integers and floating point, not {array.dtype}")
    lps_from_ijk = RAS_FROM_LPS @ image.ras_from_ijk
    axes = lps_from_ijk[:3, :3] / image.spacing_mm
    if float(np.abs(axes.T @ axes - np.eye(3)).max()) > DIRECTION_TOLERANCE:
        raise DataError("MRD has no place for a skewed grid; resample the image first")
    size = np.array(array.shape[:0:-1])
    head = np.zeros((), IMAGE_HEAD)
    attributes = image.metadata.get("mrd_attributes", "").encode()
    for name, value in (
        ("version", LAYOUT_VERSION),
        ("data_type", codes[kind]),
        ("matrix_size", size),
        ("field_of_view", image.spacing_mm * size),
        ("channels", array.shape[0]),
        ("position", apply(lps_from_ijk, size // 2)),
        ("read_dir", axes[:, 0]),
        ("phase_dir", axes[:, 1]),
        ("slice_dir", axes[:, 2]),
        ("image_type", next((code for code, text in IMAGE_TYPES.items() if text == image.metadata.get("kind")), 1)),
        ("attribute_string_len", len(attributes)),
    ):
        head[name] = value
    pixels = np.ascontiguousarray(array, kind)
    return [
        MESSAGE_ID.pack(MessageId.IMAGE) + head.tobytes() + _ATTRIBUTE_LENGTH.pack(len(attributes)) + attributes,
        pixels.reshape(-1).view(np.uint8).data,
    ]


def waveform_bytes(waveform: Waveform) -> bytes:
    """Bytes of a waveform."""
    head = np.zeros((), WAVEFORM_HEAD)
    channels, count = waveform.samples.shape
    for name, value in (
        ("version", LAYOUT_VERSION),
        ("scan_counter", waveform.scan_counter),
        ("time_stamp", waveform.time_stamp),
        ("number_of_samples", count),
        ("channels", channels),
        ("sample_time_us", waveform.sample_time_s * 1e6),
        ("waveform_id", waveform.waveform_id),
    ):
        head[name] = value
    return MESSAGE_ID.pack(MessageId.WAVEFORM) + head.tobytes() + waveform.samples.astype("<u4").tobytes()


def _read_text(kind: MessageId) -> Callable[[Inlet, MrdLimits], MrdMessage]:
    def read(inlet: Inlet, limits: MrdLimits) -> MrdMessage:
        if kind is MessageId.CLOSE:
            return TextMessage(kind)
        if kind is MessageId.CONFIG_FILE:
            return TextMessage(kind, _decoded(bytes(inlet.read(_CONFIG_FILE_BYTES)).split(b"\0", 1)[0], kind))
        (count,) = _TEXT_LENGTH.unpack(inlet.read(_TEXT_LENGTH.size))
        return TextMessage(kind, _decoded(_capped(inlet, count, limits.text_bytes, kind), kind).rstrip("\0"))

    return read


def _read_acquisition(inlet: Inlet, limits: MrdLimits) -> AcquisitionMessage:
    head = np.frombuffer(inlet.read(ACQUISITION_HEAD.itemsize), ACQUISITION_HEAD)
    _refuse_version(int(head["version"][0]), "acquisition")
    count = int(head["number_of_samples"][0])
    points, values = count * int(head["trajectory_dimensions"][0]), 2 * count * int(head["active_channels"][0])
    raw = _capped(inlet, 4 * (points + values), limits.acquisition_bytes, MessageId.ACQUISITION)
    numbers = np.frombuffer(raw, "<f4")
    return AcquisitionMessage(head, numbers[points:], numbers[:points])


def _read_image(inlet: Inlet, limits: MrdLimits) -> Image:
    head = np.frombuffer(inlet.read(IMAGE_HEAD.itemsize), IMAGE_HEAD)[0]
    _refuse_version(int(head["version"]), "image")
    (attribute_count,) = _ATTRIBUTE_LENGTH.unpack(inlet.read(_ATTRIBUTE_LENGTH.size))
    attributes = _decoded(_capped(inlet, attribute_count, limits.text_bytes, MessageId.IMAGE), MessageId.IMAGE)
    kind = PIXEL_TYPES.get(int(head["data_type"]))
    i, j, k = (int(length) for length in head["matrix_size"])
    channels = int(head["channels"])
    if kind is None or not i * j * k * channels:
        raise WireError(
            f"MRD image needs a pixel type of 1 to 8 and a size, got type {head['data_type']}, "
            f"{i} x {j} x {k} pixels in {channels} channels"
        )
    raw = _capped(inlet, i * j * k * channels * kind.itemsize, limits.image_bytes, MessageId.IMAGE)
    try:
        return _image(head, np.frombuffer(raw, kind).reshape(channels, k, j, i), attributes)
    except IntraopError as error:
        raise RefusedMessage("geometry", f"MRD image {head['image_index']}: {error}") from error


def _image(head: np.void, array: AnyArray, attributes: str) -> Image:
    """Image in RAS; channels become components, complex pixels two components (real, imaginary) each."""
    size = np.array(array.shape[:0:-1])
    fov_mm = np.asarray(head["field_of_view"], np.float64)
    if not (np.isfinite(fov_mm).all() and fov_mm.min() > 0 and np.isfinite(head["position"]).all()):
        raise WireError(f"MRD image: field of view {fov_mm.tolist()} mm at {head['position'].tolist()} mm is no place")
    axes = unit_axes([head[name] for name in ("read_dir", "phase_dir", "slice_dir")])
    lps_from_ijk = corner_from_fourier_centre(axes * (fov_mm / size), head["position"], (size[0], size[1], size[2]))
    metadata = {
        "source": "MRD",
        "kind": IMAGE_TYPES.get(int(head["image_type"]), "unknown"),
        "series": str(int(head["image_series_index"])),
        "index": str(int(head["image_index"])),
        "repetition": str(int(head["repetition"])),
        "contrast": str(int(head["contrast"])),
        "slice": str(int(head["slice"])),
        "mrd_attributes": attributes,
    }
    array = np.moveaxis(array, 0, 3)
    if array.dtype.kind == "c":
        array = np.stack((array.real, array.imag), axis=-1).reshape(*array.shape[:3], -1)
        metadata["components"] = "real, imaginary"
    if array.shape[3] == 1:
        array = array[..., 0]
    name = f"MRD series {metadata['series']} image {metadata['index']}"
    return Image(array, ras_from_lps_matrix(lps_from_ijk), name=name, metadata=metadata)


def _read_waveform(inlet: Inlet, limits: MrdLimits) -> Waveform:
    head = np.frombuffer(inlet.read(WAVEFORM_HEAD.itemsize), WAVEFORM_HEAD)[0]
    channels, count = int(head["channels"]), int(head["number_of_samples"])
    raw = _capped(inlet, 4 * channels * count, limits.waveform_bytes, MessageId.WAVEFORM)
    return Waveform(
        waveform_id=int(head["waveform_id"]),
        samples=np.frombuffer(raw, "<u4").reshape(channels, count),
        sample_time_s=float(head["sample_time_us"]) * 1e-6,
        time_stamp=int(head["time_stamp"]),
        scan_counter=int(head["scan_counter"]),
    )


def _capped(inlet: Inlet, count: int, limit: int, kind: MessageId) -> memoryview:
    if count > limit:
        raise WireError(f"MRD {kind.name.lower()} announces {count} bytes, at most {limit} are accepted")
    return inlet.read(count)


def _refuse_version(version: int, what: str) -> None:
    if version != LAYOUT_VERSION:
        raise WireError(f"MRD {what} has layout version {version}, only {LAYOUT_VERSION} is known")


def _decoded(raw: bytes | memoryview, kind: MessageId) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"MRD {kind.name.lower()} is not UTF-8: {error}") from error


_READERS: Mapping[int, Callable[[Inlet, MrdLimits], MrdMessage]] = {
    **{
        kind: _read_text(kind)
        for kind in (
            MessageId.CONFIG_FILE,
            MessageId.CONFIG_TEXT,
            MessageId.HEADER,
            MessageId.CLOSE,
            MessageId.TEXT,
        )
    },
    MessageId.ACQUISITION: _read_acquisition,
    MessageId.IMAGE: _read_image,
    MessageId.WAVEFORM: _read_waveform,
}
