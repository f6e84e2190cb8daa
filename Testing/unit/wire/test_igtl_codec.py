"""Every OpenIGTLink type: golden bytes laid out by hand, and byte-identical re-encoding."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.header import HEADER_SIZE, RefusedMessage, timestamp_of, utc_of
from peers.igtl_samples import STAMP, extended, frame, rigid, samples, slow_crc64

SAMPLES = samples()


def _decode(raw: bytes) -> codec.Message:
    return codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])


def _text(text: str, length: int) -> bytes:
    return text.encode().ljust(length, b"\0")


def _floats(*values: float) -> bytes:
    return struct.pack(f">{len(values)}f", *values)


MATRIX = _floats(*rigid()[:3].T.ravel())
PAIR_60 = _floats(*rigid(60.0)[:3].T.ravel())

#: Type in the header and content of each sample, laid out by hand from the protocol.
GOLDEN: dict[str, tuple[str, bytes]] = {
    "0-TRANSFORM": ("TRANSFORM", MATRIX),
    "1-POSITION": ("POSITION", _floats(1, 2, 3, 0, 0.6, 0, 0.8)),
    "2-QTDATA": ("QTDATA", _text("probe", 20) + b"\2\0" + _floats(1, 2, 3, 0, 0, 0.6, 0.8)),
    "3-TDATA": ("TDATA", _text("probe", 20) + b"\2\0" + MATRIX + _text("needle", 20) + b"\4\0" + PAIR_60),
    "4-SENSOR": ("SENSOR", b"\3\7" + bytes.fromhex("02c0100000000000") + struct.pack(">3d", 1.0, -2.5, 1e-9)),
    "5-IMAGE": (
        "IMAGE",
        b"\0\1\1\4\2\1" + struct.pack(">3H", 4, 3, 2) + _floats(1, 0, 0, 0, 2, 0, 0, 0, 3, 10, 20, 30)
        + struct.pack(">6H", 0, 0, 0, 4, 3, 2) + struct.pack("<24h", *range(24)),
    ),
    "6-NDARRAY": ("NDARRAY", b"\x0a\3" + struct.pack(">3H", 1, 2, 3) + _floats(*range(6))),
    "7-COLORT": ("COLORT", b"\3\x13" + bytes(value % 256 for value in range(768))),
    "8-STATUS": ("STATUS", struct.pack(">Hq", 6, -3) + _text("Busy", 20) + b"scanning\0"),
    "9-STRING": ("STRING", struct.pack(">HH", 106, 7) + "Grüße".encode()),
    "10-COMMAND": ("COMMAND", struct.pack(">I", 42) + _text("Start", 128) + struct.pack(">HI", 3, 10) + b"<Command/>"),
    "11-RTS_COMMAND": (
        "RTS_COMMAND", struct.pack(">I", 42) + _text("Start", 128) + struct.pack(">HI", 3, 9) + b"<Result/>",
    ),
    "12-CAPABILITY": ("CAPABILITY", _text("IMAGE", 12) + _text("TRANSFORM", 12)),
    "13-IMGMETA": (
        "IMGMETA",
        _text("T1", 64) + _text("T1", 20) + _text("MRI", 32) + _text("Doe^J", 64) + _text("42", 64)
        + struct.pack(">Q3HBB", STAMP, 64, 65, 66, 5, 0),
    ),
    "14-LBMETA": (
        "LBMETA",
        _text("Tumour", 64) + _text("Labels", 20) + bytes([3, 0, 1, 2, 3, 4]) + struct.pack(">3H", 5, 6, 7)
        + _text("T1", 20),
    ),
    "15-POINT": (
        "POINT",
        _text("Tip", 64) + _text("Landmark", 32) + bytes([1, 2, 3, 4]) + _floats(1, 2, 3, 2.5) + _text("T1", 20),
    ),
    "16-TRAJ": (
        "TRAJ",
        _text("Path", 64) + _text("Plan", 32) + bytes([3, 0, 9, 8, 7, 6]) + _floats(1, 2, 3, 4, 5, 6, 1.5)
        + _text("T1", 20),
    ),
    "17-POLYDATA": (
        "POLYDATA",
        struct.pack(">10I", 4, 1, 8, 2, 28, 2, 32, 1, 20, 2)
        + _floats(0, 0, 0, 1, 0, 0, 0, 1.5, 0, 0, 0, 2)
        + struct.pack(">2I", 1, 3) + struct.pack(">7I", 2, 0, 1, 3, 1, 2, 3)
        + struct.pack(">8I", 3, 0, 1, 2, 3, 1, 2, 3) + struct.pack(">5I", 4, 0, 1, 2, 3)
        + struct.pack(">BBI", 0, 1, 4) + struct.pack(">BBI", 18, 3, 2) + b"depth\0n\0"
        + _floats(1, 2, 3, 4) + _floats(0, 0, 1, 0, 1, 0),
    ),
    "18-BIND": (
        "BIND",
        struct.pack(">H", 2) + _text("STRING", 12) + struct.pack(">Q", 7) + _text("TRANSFORM", 12)
        + struct.pack(">QH", 48, 10) + b"odd\0tool\0\0" + struct.pack(">HH", 3, 3) + b"abc\0" + MATRIX,
    ),
    "19-IMAGE": ("IMAGE", b""),
    "20-GET_TRANSFOR": ("GET_TRANSFOR", b""),
    "21-STT_TDATA": ("STT_TDATA", struct.pack(">i", 50) + _text("Patient", 32)),
    "22-STT_SENSOR": ("STT_SENSOR", struct.pack(">Q", 1 << 30)),
    "23-STP_IMAGE": ("STP_IMAGE", b""),
    "24-RTS_TDATA": ("RTS_TDATA", b"\1"),
}  # fmt: skip


def test_every_sample_has_golden_bytes() -> None:
    assert set(GOLDEN) == set(SAMPLES)
    types = {message.type_name for message in SAMPLES.values()}
    assert set(codec.TYPE_NAMES) - {"COLORTABLE"} <= types


def test_crc_is_ecma_182() -> None:
    assert slow_crc64(b"123456789") == 0x6C40DF5F0B497347
    assert codec.encode(SAMPLES["0-TRANSFORM"])[50:58] == struct.pack(">Q", slow_crc64(MATRIX))


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_bytes(name: str) -> None:
    message = SAMPLES[name]
    type_name, content = GOLDEN[name]
    expected = frame(type_name, content, timestamp=message.timestamp)
    assert codec.encode(message) == expected
    assert codec.encode(_decode(expected)) == expected


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_version_2_keeps_metadata_and_message_id(name: str) -> None:
    type_name, content = GOLDEN[name]
    body = extended(content, {"PatientID": "42", "Trigger": "0.125"}, message_id=77)
    raw = frame(type_name, body, version=2)
    message = _decode(raw)
    assert dict(message.metadata) == {"PatientID": "42", "Trigger": "0.125"}
    assert (message.message_id, message.version, message.device) == (77, 2, "Device")
    assert codec.encode(message) == raw


def test_decoded_values() -> None:
    message = _decode(codec.encode(SAMPLES["3-TDATA"]))
    assert isinstance(message, codec.TrackingDataMessage)
    assert [(tool.name, tool.kind) for tool in message.tools] == [("probe", 2), ("needle", 4)]
    np.testing.assert_allclose(message.tools[1].matrix, rigid(60.0), atol=1e-6)
    assert message.sent_utc_s == 1767323045.5
    query = _decode(codec.encode(SAMPLES["21-STT_TDATA"]))
    assert isinstance(query, codec.Query)
    assert (query.verb, query.of, query.interval_s) == ("STT", "TDATA", 0.05)


@pytest.mark.parametrize("endian", [1, 2])
@pytest.mark.parametrize("components", [1, 2, 3, 7])
@pytest.mark.parametrize(("code", "name"), [(2, "i1"), (3, "u1"), (4, "i2"), (5, "u2"), (6, "i4"), (7, "u4"),
                                            (10, "f4"), (11, "f8"), (13, "c16")])  # fmt: skip
def test_image_of_every_scalar_type(code: int, name: str, components: int, endian: int) -> None:
    shape = (2, 3, 4) if components == 1 else (2, 3, 4, components)
    order = ">" if endian == 1 else "<"
    voxels = (np.random.default_rng(code).integers(0, 100, shape) - (40 if name[0] != "u" else 0)).astype(order + name)
    if name == "c16":
        voxels += (1j * np.arange(voxels.size).reshape(shape)).astype(order + name)
    content = (
        struct.pack(">HBBBB3H", 1, components, code, endian, 2, 4, 3, 2)
        + _floats(0, 2, 0, 1, 0, 0, 0, 0, 3, -1, -2, -3)
        + struct.pack(">6H", 0, 0, 0, 4, 3, 2)
        + voxels.tobytes()
    )
    raw = frame("IMAGE", content)
    message = _decode(raw)
    assert isinstance(message, codec.ImageMessage)
    np.testing.assert_array_equal(message.array, voxels)
    assert message.array.dtype == voxels.dtype
    assert message.array.shape == shape
    assert (message.coordinate, message.part_ijk, message.is_whole) == ("LPS", (4, 3, 2), True)
    np.testing.assert_array_equal(message.axes_mm, [[0, 1, 0], [2, 0, 0], [0, 0, 3]])
    assert codec.encode(message) == raw


@pytest.mark.parametrize(("code", "name"), [(2, "i1"), (3, "u1"), (4, "i2"), (5, "u2"), (6, "i4"), (7, "u4"),
                                            (10, "f4"), (11, "f8"), (13, "c16")])  # fmt: skip
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 1, 3, 2, 2)])
def test_ndarray_of_every_type(code: int, name: str, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape)).reshape(shape).astype(">" + name)
    raw = frame("NDARRAY", struct.pack(f">BB{len(shape)}H", code, len(shape), *shape) + values.tobytes())
    message = _decode(raw)
    assert isinstance(message, codec.NDArrayMessage)
    np.testing.assert_array_equal(message.array, values)
    assert codec.encode(message) == raw
    assert codec.encode(codec.NDArrayMessage(device="Device", timestamp=STAMP, array=values.astype(name))) == raw


def test_arrays_look_at_the_received_bytes_and_cannot_be_written() -> None:
    raw = codec.encode(SAMPLES["5-IMAGE"])
    body = bytearray(raw[HEADER_SIZE:])
    message = codec.decode(raw[:HEADER_SIZE], body)
    assert isinstance(message, codec.ImageMessage)
    assert np.shares_memory(message.array, np.frombuffer(body, np.uint8))
    assert not message.array.flags.writeable


@pytest.mark.parametrize("values", [3, 6, 7])
def test_position_in_its_three_lengths(values: int) -> None:
    quaternion = (0.0, 0.0, 0.6, 0.8) if values > 3 else (0.0, 0.0, 0.0, 1.0)
    raw = frame("POSITION", _floats(*(1, 2, 3, *quaternion)[:values]))
    message = _decode(raw)
    assert isinstance(message, codec.PositionMessage)
    np.testing.assert_allclose(message.quaternion, quaternion, atol=1e-6)
    np.testing.assert_allclose(message.matrix[:3, 3], (1, 2, 3))
    np.testing.assert_allclose(message.matrix[:2, 0], (0.28, 0.96) if values > 3 else (1, 0), atol=1e-6)
    assert codec.encode(message) == raw


@pytest.mark.parametrize(("cut", "full"), [("GET_TRANS", "TRANSFORM"), ("GET_TRANSFOR", "TRANSFORM"),
                                           ("GET_CAPABIL", "CAPABILITY"), ("STT_POLYDATA", "POLYDATA"),
                                           ("RTS_QTDATA", "QTDATA"), ("GET_COLORT", "COLORT")])  # fmt: skip
def test_queries_under_cut_names(cut: str, full: str) -> None:
    raw = frame(cut, b"")
    message = _decode(raw)
    assert isinstance(message, codec.Query)
    assert message.of == full
    assert codec.encode(message) == raw


def test_color_table_under_both_names() -> None:
    raw = frame("COLORTABLE", b"\3\5" + np.arange(256, dtype=">u2").tobytes())
    message = _decode(raw)
    assert isinstance(message, codec.ColorTableMessage)
    assert message.table[255] == 255
    assert codec.encode(message) == raw


def test_header_version_3_is_read_as_2_and_never_sent() -> None:
    message = _decode(frame("STRING", extended(struct.pack(">HH", 3, 1) + b"a", {"k": "v"}), version=3))
    assert message.metadata["k"] == "v"
    assert codec.encode(message)[:2] == b"\0\2"


def test_metadata_in_utf_8_even_under_the_name_of_ascii() -> None:
    # Slicer and Plus call everything US-ASCII; a patient's umlaut must neither be lost nor stop the image.
    body = extended(struct.pack(">HH", 3, 1) + b"a", {"PatientName": "Müller"}, encoding=3)
    message = _decode(frame("STRING", body, version=2))
    assert message.metadata["PatientName"] == "Müller"
    assert codec.encode(message)[HEADER_SIZE:] == body


def test_metadata_never_travels_unseen_in_version_1() -> None:
    with pytest.raises(WireError, match="header version 2"):
        codec.StringMessage(device="x", text="a", metadata={"k": "v"})


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (codec.StringMessage(device="a" * 21), "at most 20 bytes"),
        (codec.StringMessage(device="a", text="x" * 65536), "65535"),
        (codec.NDArrayMessage(device="a", array=np.zeros(70000)), "65535"),
        (codec.NDArrayMessage(device="a", array=np.zeros((3, 0))), r"got shape \(3, 0\)"),
        (codec.NDArrayMessage(device="a", array=np.zeros(3, np.int64)), "cannot carry int64"),
        (codec.NDArrayMessage(device="a", array=np.zeros(3, np.complex64)), "cannot carry complex64"),
        (codec.SensorMessage(device="a", values=np.zeros(256)), "at most 255"),
        (codec.TransformMessage(device="a", matrix=np.full((4, 4), 1e300)), "finite float32"),
        (codec.StatusMessage(device="a", code=70000), "does not fit"),
    ],
)
def test_what_does_not_fit_is_not_sent(message: codec.Message, match: str) -> None:
    with pytest.raises(WireError, match=match):
        codec.encode(message)


def test_what_can_never_be_a_message() -> None:
    with pytest.raises(WireError, match="leaves its volume"):
        codec.ImageMessage(device="a", array=np.zeros((1, 2, 2)), size_ijk=(2, 2, 1), offset_ijk=(1, 0, 0))
    with pytest.raises(WireError, match="version must be 1 or 2"):
        codec.StatusMessage(device="a", version=7)
    with pytest.raises(RefusedMessage, match="a header has 58 bytes, got 3"):
        codec.decode(b"abc", b"")


def test_timestamps_keep_their_bits() -> None:
    assert timestamp_of(1767323045.5) == STAMP
    assert utc_of(STAMP) == 1767323045.5
    assert utc_of(0) is None
    assert abs((codec.timestamp_now() - timestamp_of(utc_of(codec.timestamp_now()) or 0)) / 2**32) < 0.1


def test_video_is_refused_with_a_reason() -> None:
    with pytest.raises(RefusedMessage, match="let the peer send IMAGE"):
        _decode(frame("VIDEO", b"123"))
