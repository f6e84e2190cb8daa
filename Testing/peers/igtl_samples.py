"""One canonical message of every OpenIGTLink type, and a framing that shares no code with the product."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from IntraopMRIReconstructionLib.wire.codec import (
    BindMessage,
    CapabilityMessage,
    ColorTableMessage,
    CommandMessage,
    EmptyMessage,
    ImageMessage,
    ImageMeta,
    ImageMetaMessage,
    LabelMeta,
    LabelMetaMessage,
    Message,
    NDArrayMessage,
    Point,
    PointMessage,
    PolyAttribute,
    PolyDataMessage,
    PositionMessage,
    QuaternionTool,
    QuaternionTrackingMessage,
    Query,
    SensorMessage,
    StatusMessage,
    StringMessage,
    TrackedTool,
    TrackingDataMessage,
    Trajectory,
    TrajectoryMessage,
    TransformMessage,
)

#: 2026-01-02 03:04:05.5 UTC.
STAMP = (1767323045 << 32) | (1 << 31)


def rigid(angle_deg: float = 30.0, position_mm: tuple[float, float, float] = (1.5, -20.25, 300.0)) -> np.ndarray:
    """A rotation about z, whose entries float32 does not hold exactly, and a position that it does."""
    angle = np.deg2rad(angle_deg)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = position_mm
    return matrix


def samples() -> dict[str, Message]:
    """A message of every type, with all fields set."""
    head: dict[str, Any] = {"device": "Device", "timestamp": STAMP}
    voxels = np.arange(24, dtype="<i2").reshape(2, 3, 4)
    triangle = np.array([[0, 0, 0], [1, 0, 0], [0, 1.5, 0], [0, 0, 2]], "f4")
    messages: list[Message] = [
        TransformMessage(**head, matrix=rigid()),
        PositionMessage(**head, position_mm=np.array([1.0, 2.0, 3.0]), quaternion=np.array([0.0, 0.6, 0.0, 0.8])),
        QuaternionTrackingMessage(
            **head, tools=(QuaternionTool("probe", np.array([1.0, 2, 3]), np.array([0.0, 0, 0.6, 0.8]), 2),)
        ),
        TrackingDataMessage(**head, tools=(TrackedTool("probe", rigid(), 2), TrackedTool("needle", rigid(60.0), 4))),
        SensorMessage(**head, values=np.array([1.0, -2.5, 1e-9]), unit=0x02C0100000000000, sensor_status=7),
        ImageMessage(**head, array=voxels, axes_mm=np.diag([1.0, 2.0, 3.0]), centre_mm=np.array([10.0, 20, 30])),
        NDArrayMessage(**head, array=np.arange(6, dtype=">f4").reshape(1, 2, 3)),
        ColorTableMessage(**head, table=np.arange(768, dtype="u4").astype("u1").reshape(256, 3)),
        StatusMessage(**head, code=6, subcode=-3, error_name="Busy", text="scanning"),
        StringMessage(**head, text="Grüße", encoding=106),
        CommandMessage(**head, command_id=42, name="Start", text="<Command/>"),
        CommandMessage(**head, command_id=42, name="Start", text="<Result/>", is_reply=True),
        CapabilityMessage(**head, types=("IMAGE", "TRANSFORM")),
        ImageMetaMessage(**head, images=(ImageMeta("T1", "T1", "MRI", "Doe^J", "42", STAMP, (64, 65, 66), 5),)),
        LabelMetaMessage(**head, labels=(LabelMeta("Tumour", "Labels", 3, (1, 2, 3, 4), (5, 6, 7), "T1"),)),
        PointMessage(**head, points=(Point("Tip", np.array([1.0, 2, 3]), "Landmark", (1, 2, 3, 4), 2.5, "T1"),)),
        TrajectoryMessage(
            **head,
            trajectories=(
                Trajectory("Path", np.array([1.0, 2, 3]), np.array([4.0, 5, 6]), 3, "Plan", (9, 8, 7, 6), 1.5, "T1"),
            ),
        ),
        PolyDataMessage(
            **head,
            points=triangle,
            vertices=np.array([1, 3], ">u4"),
            lines=np.array([2, 0, 1, 3, 1, 2, 3], ">u4"),
            polygons=np.array([3, 0, 1, 2, 3, 1, 2, 3], ">u4"),
            triangle_strips=np.array([4, 0, 1, 2, 3], ">u4"),
            attributes=(
                PolyAttribute("depth", 0, np.array([[1.0], [2], [3], [4]], "f4")),
                PolyAttribute("n", 18, np.array([[0.0, 0, 1], [0, 1, 0]], "f4")),
            ),
        ),
        BindMessage(
            **head,
            children=(
                StringMessage(device="odd", timestamp=STAMP, text="abc", encoding=3),
                TransformMessage(device="tool", timestamp=STAMP, matrix=rigid()),
            ),
        ),
        EmptyMessage(**head, wire_type="IMAGE"),
        Query(**head, verb="GET", of="TRANSFORM"),
        Query.start("TDATA", "Device", 0.05, "Patient"),
        Query.start("SENSOR", "Device", 0.25),
        Query(**head, verb="STP", of="IMAGE"),
        Query(**head, verb="RTS", of="TDATA", payload=b"\1"),
    ]
    return {f"{number}-{message.type_name}": message for number, message in enumerate(messages)}


def slow_crc64(data: bytes) -> int:
    """CRC-64 of ECMA-182, bit by bit, straight from its polynomial."""
    crc = 0
    for byte in data:
        crc ^= byte << 56
        for _ in range(8):
            crc = ((crc << 1) ^ 0x42F0E1EBA9EA3693 if crc >> 63 else crc << 1) & 0xFFFFFFFFFFFFFFFF
    return crc


def frame(
    type_name: str | bytes,
    body: bytes,
    *,
    device: str | bytes = b"Device",
    timestamp: int = STAMP,
    version: int = 1,
    size: int | None = None,
    crc: int | None = None,
) -> bytes:
    """Header and body. ``size`` and ``crc`` may lie."""
    names = [name.encode() if isinstance(name, str) else name for name in (type_name, device)]
    return (
        struct.pack(
            ">H12s20sQQQ",
            version,
            *names,
            timestamp,
            len(body) if size is None else size,
            slow_crc64(body) if crc is None else crc,
        )
        + body
    )


def extended(content: bytes, metadata: dict[str, str], message_id: int = 0, encoding: int = 3) -> bytes:
    """Body of a version 2 message."""
    index = struct.pack(">H", len(metadata))
    values = b""
    for key, value in metadata.items():
        index += struct.pack(">HHI", len(key.encode()), encoding, len(value.encode()))
        values += key.encode() + value.encode()
    return struct.pack(">HHII", 12, len(index), len(values), message_id) + content + index + values


def transform_body(matrix: np.ndarray | None = None) -> bytes:
    """Content of a TRANSFORM."""
    values = (rigid() if matrix is None else matrix)[:3].T.ravel()
    return struct.pack(">12f", *values)


def image_body(
    voxels: bytes,
    size: tuple[int, int, int],
    *,
    scalar: int = 3,
    components: int = 1,
    endian: int = 2,
    coordinate: int = 1,
    axes: np.ndarray | None = None,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    offset: tuple[int, int, int] = (0, 0, 0),
    part: tuple[int, int, int] | None = None,
) -> bytes:
    """Content of an IMAGE; everything may be wrong."""
    columns = (np.eye(3) if axes is None else axes).T.ravel()
    head = struct.pack(">HBBBB3H", 1, components, scalar, endian, coordinate, *size)
    return head + struct.pack(">12f", *columns, *centre) + struct.pack(">6H", *offset, *(part or size)) + voxels
