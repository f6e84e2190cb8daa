"""Bytes that must never become a message: each is refused under its reason."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from fastcrc import crc64
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.header import HEADER_SIZE, MOST_TEXT_BYTES, RefusedMessage
from IntraopMRIReconstructionLib.wire.message import MOST_ELEMENTS
from IntraopMRIReconstructionLib.wire.messages_shape import (
    MOST_ATTRIBUTES,
    MOST_CELLS,
    MOST_CHILDREN,
    MOST_MESH_POINTS,
)
from IntraopMRIReconstructionLib.wire.messages_tracking import MOST_TOOLS
from IntraopMRIReconstructionLib.wire.trust import check_message
from peers.igtl_samples import extended, frame, image_body, rigid, slow_crc64, transform_body


def _poly(points: int, cells: int, flat: tuple[int, ...] = (), attributes: int = 0, rest: bytes = b"") -> bytes:
    """POLYDATA of one point, with vertices only."""
    counts = struct.pack(">10I", points, cells, 4 * len(flat), 0, 0, 0, 0, 0, 0, attributes)
    return frame("POLYDATA", counts + struct.pack(">3f", 0, 0, 0) + struct.pack(f">{len(flat)}I", *flat) + rest)


def _large(type_name: str, body: bytes) -> bytes:
    return frame(type_name, body, crc=crc64.ecma_182(body))


def _version_2(extended_size: int, index_size: int, values_size: int, rest: bytes = b"") -> bytes:
    """STRING with an extended header that may lie."""
    return frame("STRING", struct.pack(">HHII", extended_size, index_size, values_size, 0) + STRING + rest, version=2)


def _large_2(metadata: dict[str, str]) -> bytes:
    """STRING with metadata."""
    body = extended(STRING, metadata)
    return frame("STRING", body, version=2, crc=crc64.ecma_182(body))


def _tool(name: str, kind: int = 2, x_mm: float = 0.0) -> bytes:
    """A tool of TDATA."""
    return name.encode().ljust(20, b"\0") + bytes([kind, 0]) + transform_body(rigid(position_mm=(x_mm, 0, 0)))


def _bind(type_name: str, size: int, rest: bytes) -> bytes:
    """BIND with one child named 'a'."""
    return frame("BIND", struct.pack(">H12sQH", 1, type_name.encode(), size, 2) + b"a\0" + rest)


def _scaled(matrix: np.ndarray, factor: float) -> np.ndarray:
    result = matrix.copy()
    result[:3, :3] *= factor
    return result


SHEAR = np.eye(4)
SHEAR[0, 1] = 0.1
FAR = rigid(position_mm=(1e30, 0.0, 0.0))
MIRROR = np.diag([1.0, 1.0, -1.0, 1.0])
BOX = bytes(24)
STRING = struct.pack(">HH", 3, 1) + b"a"
TWICE = codec.BindMessage(
    children=(
        codec.TransformMessage(device="probe"),
        codec.TrackingDataMessage(device="tools", tools=(codec.TrackedTool("probe", rigid()),)),
    )
)
ENTRY = struct.pack(">HHHI", 1, 1, 3, 9)

#: Name, bytes, reason.
REFUSED: list[tuple[str, bytes, str]] = [
    ("one flipped bit", frame("TRANSFORM", b"\1" + transform_body()[1:], crc=slow_crc64(transform_body())), "crc"),
    ("CRC 0", frame("TRANSFORM", transform_body(), crc=0), "crc"),
    ("unknown type", frame("NONSENSE", b"abc"), "type"),
    ("unknown query", frame("GET_NONSENSE", b""), "type"),
    ("version 2 without extended header", frame("STRING", b"", version=2), "extended header"),
    ("version 2 with the body of version 1", frame("TRANSFORM", transform_body(), version=2), "extended header"),
    ("version 9", frame("TRANSFORM", transform_body(), version=9), "version"),
    ("version 0", frame("TRANSFORM", transform_body(), version=0), "version"),
    ("metadata larger than the body", _version_2(12, 9, 2**31), "extended header"),
    ("extended header too short", _version_2(3, 0, 0), "extended header"),
    ("metadata index count 65535", _version_2(12, 2, 0, b"\xff\xff"), "metadata"),
    ("metadata entry longer than the metadata", _version_2(12, 10, 2, ENTRY + b"ab"), "metadata"),
    ("metadata left over", _version_2(12, 2, 3, b"\0\0abc"), "metadata"),
    ("metadata of unknown encoding", frame("STRING", extended(STRING, {"a": "b"}, encoding=4), version=2), "encoding"),
    ("device name not UTF-8", frame("TRANSFORM", transform_body(), device=b"\xff\xfe"), "text"),
    ("device name with a NUL inside", frame("TRANSFORM", transform_body(), device=b"a\0b"), "name"),
    ("type with a NUL inside", frame(b"TRANS\0FORM", transform_body()), "name"),
    ("STRING of encoding 4", frame("STRING", struct.pack(">HH", 4, 1) + b"a"), "encoding"),
    ("STRING longer than its body", frame("STRING", struct.pack(">HH", 3, 9) + b"a"), "length"),
    ("STRING shorter than its body", frame("STRING", struct.pack(">HH", 3, 1) + b"abc"), "length"),
    ("STRING that is neither ASCII nor UTF-8", frame("STRING", struct.pack(">HH", 3, 2) + b"\xff\xff"), "text"),
    ("sub-volume beyond its volume", frame("IMAGE", image_body(BOX, (4, 3, 2), offset=(0, 0, 1))), "sub-volume"),
    ("sub-volume larger than its volume", frame("IMAGE", image_body(BOX, (2, 3, 2), part=(4, 3, 2))), "sub-volume"),
    ("scalar type 99", frame("IMAGE", image_body(BOX, (4, 3, 2), scalar=99)), "scalar type"),
    ("endian 7", frame("IMAGE", image_body(BOX, (4, 3, 2), endian=7)), "endian"),
    ("coordinate byte 9", frame("IMAGE", image_body(BOX, (4, 3, 2), coordinate=9)), "coordinate"),
    ("components 0", frame("IMAGE", image_body(BOX, (4, 3, 2), components=0)), "size"),
    ("a dimension 0", frame("IMAGE", image_body(b"", (4, 0, 2))), "size"),
    ("pixels short", frame("IMAGE", image_body(BOX[1:], (4, 3, 2))), "length"),
    ("pixels extra", frame("IMAGE", image_body(BOX + b"1", (4, 3, 2))), "length"),
    ("image header short", frame("IMAGE", b"\0\1\1"), "length"),
    ("image layout 77", frame("IMAGE", b"\0\x4d" + image_body(BOX, (4, 3, 2))[2:]), "image layout"),
    ("huge volume announced", frame("IMAGE", image_body(BOX, (65535, 65535, 65535))), "length"),
    ("image matrix NaN", frame("IMAGE", image_body(BOX, (4, 3, 2), centre=(np.nan, 0, 0))), "not finite"),
    ("image shear", frame("IMAGE", image_body(BOX, (4, 3, 2), axes=SHEAR[:3, :3])), "matrix"),
    ("image in metres", frame("IMAGE", image_body(BOX, (4, 3, 2), axes=np.eye(3) * 1e-3)), "matrix"),
    ("image spacing 1000", frame("IMAGE", image_body(BOX, (4, 3, 2), axes=np.eye(3) * 1e3)), "matrix"),
    ("image flat", frame("IMAGE", image_body(BOX, (4, 3, 2), axes=np.diag([1.0, 1.0, 0.0]))), "matrix"),
    ("image centre 1e30", frame("IMAGE", image_body(BOX, (4, 3, 2), centre=(0, 1e30, 0))), "matrix"),
    ("transform NaN", frame("TRANSFORM", transform_body(rigid() * np.nan)), "not finite"),
    ("transform infinite", frame("TRANSFORM", transform_body(rigid(position_mm=(np.inf, 0, 0)))), "not finite"),
    ("transform 1e30", frame("TRANSFORM", transform_body(FAR)), "matrix"),
    ("transform mirror", frame("TRANSFORM", transform_body(MIRROR)), "matrix"),
    ("transform shear", frame("TRANSFORM", transform_body(SHEAR)), "matrix"),
    ("transform scale 1000", frame("TRANSFORM", transform_body(_scaled(rigid(), 1e3))), "matrix"),
    ("transform scale 0.001", frame("TRANSFORM", transform_body(_scaled(rigid(), 1e-3))), "matrix"),
    ("transform zero", frame("TRANSFORM", bytes(48)), "matrix"),
    ("transform short", frame("TRANSFORM", bytes(44)), "length"),
    ("tracked tool mirror", frame("TDATA", b"tool".ljust(20, b"\0") + b"\2\0" + transform_body(MIRROR)), "matrix"),
    ("tracked tool type 9", frame("TDATA", b"tool".ljust(20, b"\0") + b"\x09\0" + transform_body()), "tool type"),
    ("tool of which only the position is known", frame("TDATA", _tool("tip", kind=3)), "position only"),
    ("position without orientation", frame("POSITION", struct.pack(">3f", 1, 2, 3)), "position only"),
    ("two tools of one name", frame("TDATA", _tool("a" * 20) + _tool("a" * 20)), "tool name"),
    ("two tools without a name", frame("TDATA", _tool("") + _tool("")), "tool name"),
    ("a tool twice in a bind", frame("BIND", b"".join(TWICE.content())), "tool name"),
    ("status of 16 MB", _large("STATUS", struct.pack(">Hq20s", 1, 0, b"") + b"a" * (MOST_TEXT_BYTES + 1)), "text"),
    ("metadata of 16 MB", _large_2({"a": "b" * MOST_TEXT_BYTES}), "metadata"),
    ("tracking data in pieces", frame("TDATA", bytes(71)), "length"),
    ("quaternion far from unit length", frame("POSITION", struct.pack(">7f", 0, 0, 0, 0, 0, 0, 5)), "quaternion"),
    ("quaternion zero", frame("QTDATA", bytes(20) + b"\2\0" + bytes(28)), "quaternion"),
    ("three of a quaternion, too long", frame("POSITION", struct.pack(">6f", 0, 0, 0, 1, 1, 1)), "quaternion"),
    ("position of 16 bytes", frame("POSITION", bytes(16)), "length"),
    ("sensor of another length", frame("SENSOR", b"\5" + bytes(9) + bytes(8)), "length"),
    ("sensor NaN", frame("SENSOR", b"\1" + bytes(9) + struct.pack(">d", np.nan)), "not finite"),
    ("status 0", frame("STATUS", bytes(30)), "status"),
    ("status short", frame("STATUS", bytes(29)), "length"),
    ("command of another length", frame("COMMAND", bytes(132) + struct.pack(">HI", 3, 5) + b"a"), "length"),
    ("ndarray without axes", frame("NDARRAY", b"\x0a\0"), "length"),
    ("ndarray of 40 axes", frame("NDARRAY", b"\3\x28" + b"\0\1" * 40 + b"a"), "size"),
    ("ndarray axis 0", frame("NDARRAY", b"\3\1\0\0"), "size"),
    ("ndarray short", frame("NDARRAY", b"\3\1\0\5abc"), "length"),
    ("ndarray type 1", frame("NDARRAY", b"\1\1\0\1a"), "scalar type"),
    ("capability in pieces", frame("CAPABILITY", bytes(13)), "length"),
    ("image meta scalar type", frame("IMGMETA", bytes(258) + b"\1\0"), "scalar type"),
    ("color table of another map", frame("COLORT", b"\3\4" + bytes(256)), "scalar type"),
    ("point NaN", frame("POINT", bytes(100) + struct.pack(">4f", np.nan, 0, 0, 0) + bytes(20)), "not finite"),
    ("trajectory of type 9", frame("TRAJ", bytes(96) + b"\x09" + bytes(53)), "trajectory type"),
    ("polydata that is short of points", _poly(9, 0), "length"),
    ("polydata index out of range", _poly(1, 1, (1, 1)), "shape"),
    ("polydata cell beyond its list", _poly(1, 1, (5, 0)), "shape"),
    ("polydata with another number of cells", _poly(1, 2, (1, 0)), "shape"),
    ("polydata of 4 billion attributes", _poly(1, 0, (), 2**32 - 1), "length"),
    ("polydata vector of 2 components", _poly(1, 0, (), 1, struct.pack(">BBI", 1, 2, 1) + b"v\0" + bytes(8)), "shape"),
    ("tracking data of too many tools", _large("TDATA", bytes(70 * (MOST_TOOLS + 1))), "count"),
    ("quaternions of too many tools", _large("QTDATA", bytes(50 * (MOST_TOOLS + 1))), "count"),
    ("too many points", _large("POINT", bytes(136 * (MOST_ELEMENTS + 1))), "count"),
    ("too many capabilities", _large("CAPABILITY", bytes(12 * (MOST_ELEMENTS + 1))), "count"),
    ("polydata of too many points", _poly(MOST_MESH_POINTS + 1, 0), "count"),
    ("polydata of too many cells", _poly(1, MOST_CELLS + 1), "count"),
    ("polydata of too many attributes", _poly(1, 0, (), MOST_ATTRIBUTES + 1, bytes(6 * MOST_ATTRIBUTES + 6)), "count"),
    ("polydata with more cells than announced", _poly(1, 2, (1, 0, 2, 0, 0, 0, 0)), "count"),
    ("bind of too many children", frame("BIND", b"\1\1" + bytes(20 * (MOST_CHILDREN + 1))), "count"),
    ("polydata left over", _poly(1, 0, rest=b"1"), "length"),
    ("bind of 65535 children", frame("BIND", b"\xff\xff"), "length"),
    ("bind child larger than the bind", _bind("STRING", 2**62, b""), "length"),
    ("bind child with a bad matrix", _bind("TRANSFORM", 48, transform_body(MIRROR)), "matrix"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(RefusedMessage) as refused:
        check_message(codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:]))
    assert refused.value.reason == reason
    assert len(str(refused.value)) > 20


def test_nested_binds_end_somewhere() -> None:
    content = struct.pack(">HH", 0, 0)
    for _ in range(6):
        content = b"\0\1" + b"BIND".ljust(12, b"\0") + struct.pack(">QH", len(content), 2) + b"a\0" + content
    raw = frame("BIND", content)
    with pytest.raises(RefusedMessage, match="at most 4 binds"):
        codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])


@pytest.mark.parametrize("hidden_mm", [7.0, np.nan])
def test_tools_of_one_name_cost_no_other_tool_and_are_none_also_while_one_is_hidden(hidden_mm: float) -> None:
    """Names are cut to 20 bytes: 'StylusTipToReference' may stand for several."""
    raw = frame("TDATA", _tool("stylus", x_mm=1.0) + _tool("drill", x_mm=2.0) + _tool("stylus", x_mm=hidden_mm))
    message = check_message(codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:]))
    assert isinstance(message, codec.TrackingDataMessage)
    assert [tool.name for tool in message.tools] == ["drill"]
    assert [refused.reason for refused in message.left_out] == ["tool name", "tool name"]


def test_a_left_handed_image_grid_is_no_fault(directions: np.ndarray) -> None:
    raw = frame("IMAGE", image_body(BOX, (4, 3, 2), axes=directions * [1.0, 2.0, 3.0]))
    check_message(codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:]))


def test_many_parts_cost_no_memory_before_they_are_refused() -> None:
    flat = np.tile(np.array([1, 0, 2, 0, 0], ">u4"), 400_000)
    counts = struct.pack(">10I", 1, 7, 4 * len(flat), 0, 0, 0, 0, 0, 0, 0)
    raw = [
        _large("TDATA", bytes(7_000_000)),
        _large("POLYDATA", counts + bytes(12) + flat.tobytes()),
    ]
    tracemalloc.start()
    try:
        for message in raw:
            header, body = message[:HEADER_SIZE], memoryview(message)[HEADER_SIZE:]
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(RefusedMessage):
                codec.decode(header, body)
            assert tracemalloc.get_traced_memory()[1] - before < 2 * len(message)
    finally:
        tracemalloc.stop()


def test_cells_of_different_sizes_are_found() -> None:
    flat = np.tile(np.array([3, 0, 1, 2, 4, 0, 1, 2, 3], ">u4"), 3)
    message = codec.PolyDataMessage(points=np.zeros((4, 3), np.float32), polygons=flat)
    raw = codec.encode(message)
    back = codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])
    assert isinstance(back, codec.PolyDataMessage)
    assert [cell.tolist() for cell in back.cells("polygons")] == [[0, 1, 2], [0, 1, 2, 3]] * 3


TOOLS = codec.TrackingDataMessage(
    device="tools", tools=tuple(codec.TrackedTool(f"t{n}", np.eye(4)) for n in range(MOST_TOOLS))
)
TINY = codec.BindMessage(device="b", children=(codec.PointMessage(device="p"),) * 250)
MESH = codec.PolyDataMessage(
    device="mesh", points=np.zeros((3, 3), np.float32), polygons=np.tile(np.array([3, 0, 1, 2], ">u4"), 300_000)
)


@pytest.mark.parametrize(
    ("children", "allowed"),
    [
        ((TOOLS,) * 40, False),
        ((TOOLS,) * 30, True),
        ((codec.BindMessage(device="c", children=(TINY,) * 20),) * 4, False),
        ((MESH, TOOLS), True),
        ((MESH, MESH), False),
    ],
    ids=["tools", "fewer tools", "binds of nothing", "one mesh", "two meshes"],
)
def test_a_bind_demands_no_more_than_one_message_may(children: tuple[codec.Message, ...], allowed: bool) -> None:
    body = b"".join(codec.BindMessage(device="all", children=children).content())
    raw = _large("BIND", body)
    if allowed:
        back = codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])
        assert isinstance(back, codec.BindMessage)
        assert len(back.children) == len(children)
        return
    with pytest.raises(RefusedMessage, match="beside its largest child") as refused:
        codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])
    assert refused.value.reason == "count"
