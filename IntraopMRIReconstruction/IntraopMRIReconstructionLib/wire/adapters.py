"""OpenIGTLink messages to the types of the rooms and back: LPS and centre origins end here."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..data import AnyArray, Image, Matrix, Pose, Status
from ..errors import WireError
from ..geometry import RAS_FROM_LPS, apply, centre_of, corner_from_centre, ras_from_lps_matrix
from .header import timestamp_of
from .message import Message
from .messages_array import ImageMessage
from .messages_shape import BindMessage, Point, PointMessage, Trajectory, TrajectoryMessage
from .messages_text import StatusMessage
from .messages_tracking import (
    PositionMessage,
    QuaternionTrackingMessage,
    TrackingDataMessage,
    TransformMessage,
)
from .trust import AS_SENT, PATIENT_KEYS, PeerProfile

#: Messages that carry poses, a BIND by what it holds.
POSES = (TransformMessage, PositionMessage, TrackingDataMessage, QuaternionTrackingMessage, BindMessage)
#: Metadata keys, as OpenIGTLinkIO, Plus and the scanner bridges write them.
STATUS_KEYS = ("Status", "status")
#: Values of those keys that mean that the tool is seen.
VALID_STATUSES = ("OK", "VALID", "TRACKED", "1", "TRUE")


class Times(Protocol):
    """When something came: what ``transport.Received`` knows."""

    @property
    def received_monotonic_s(self) -> float:
        """By the monotonic clock."""

    @property
    def received_utc_s(self) -> float:
        """POSIX seconds."""

    @property
    def sent_utc_s(self) -> float | None:
        """POSIX seconds by the sender's clock, None when that may not be believed."""


def image_from_message(message: ImageMessage, profile: PeerProfile = AS_SENT, received: Times | None = None) -> Image:
    """Image in RAS of a whole-volume IMAGE; voxels uncopied when they are in the byte order of this machine.

    ``received``: how it came; a time stamp that it does not believe is not taken over.

    The coordinate byte is honoured unless ``profile`` says that the peer lies. Raises WireError for a part of a volume
    (assemble it first) and for complex voxels (raw data, see raw_data).
    """
    what = f"IMAGE '{message.device}'"
    if not message.is_whole:
        raise WireError(f"{what} carries {message.part_ijk} of {message.size_ijk} voxels: assemble its parts first")
    if np.iscomplexobj(message.array):
        raise WireError(f"{what} has complex voxels: read it as raw data or send magnitudes")
    return Image(
        array=native(message.array),
        ras_from_ijk=ras_from_ijk_of(message, profile),
        name=message.device,
        acquired_utc_s=message.sent_utc_s if received is None else received.sent_utc_s,
        patient_id=next((message.metadata[key] for key in PATIENT_KEYS if key in message.metadata), ""),
        metadata=message.metadata,
    )


def ras_from_ijk_of(message: ImageMessage, profile: PeerProfile = AS_SENT) -> Matrix:
    """(4, 4), mm, of the whole volume that an IMAGE belongs to."""
    size = message.size_ijk or message.part_ijk
    matrix = corner_from_centre(message.axes_mm, message.centre_mm, size)
    coordinate = profile.image_coordinate or message.coordinate
    return ras_from_lps_matrix(matrix) if coordinate == "LPS" else matrix


def message_from_image(image: Image, device: str = "", version: int = 1) -> ImageMessage:
    """IMAGE in RAS. Types that OpenIGTLink lacks raise WireError when it is encoded.

    Version 2 also carries metadata and patient id; old receivers lose the thread on it.
    """
    k, j, i = image.array.shape[:3]
    metadata = {**image.metadata} | ({PATIENT_KEYS[0]: image.patient_id} if image.patient_id else {})
    return ImageMessage(
        device=device or image.name,
        timestamp=0 if image.acquired_utc_s is None else timestamp_of(image.acquired_utc_s),
        version=version,
        metadata=metadata if version > 1 else {},
        array=image.array,
        axes_mm=image.ras_from_ijk[:3, :3],
        centre_mm=centre_of(image.ras_from_ijk, (i, j, k)),
        coordinate="RAS",
    )


def poses_from_message(message: Message, received: Times | None = None, profile: PeerProfile = AS_SENT) -> list[Pose]:
    """Poses of all tools of a TRANSFORM, POSITION, TDATA or QTDATA, or of those that a BIND holds; those of TDATA are
    named after their tools.

    ``received``: when it came (a transport.Received); now when None. Raises WireError for another type of message and
    DataError for a matrix that is not rigid.
    """
    if isinstance(message, TrackingDataMessage | QuaternionTrackingMessage):
        matrices = [(tool.name or message.device, tool.matrix) for tool in message.tools]
    elif isinstance(message, TransformMessage | PositionMessage):
        matrices = [(message.device, message.matrix)]
    elif isinstance(message, BindMessage):
        children = (child for child in message.children if isinstance(child, POSES))
        poses = [pose for child in children for pose in poses_from_message(child, received, profile)]
        # Only the bind carries metadata and a time stamp.
        stamp_s = message.sent_utc_s
        return [replace(pose, valid=pose.valid and _is_valid(message, pose.tool), stamp_s=stamp_s) for pose in poses]
    else:
        raise WireError(f"{message.type_name} '{message.device}' is no pose; expected TRANSFORM, POSITION or TDATA")
    monotonic_s, utc_s = _times(received)
    return [
        Pose(
            ras_from_tool=ras_from_lps_matrix(matrix) if profile.pose_coordinate == "LPS" else matrix,
            tool=name,
            received_monotonic_s=monotonic_s,
            received_utc_s=utc_s,
            sent_utc_s=message.sent_utc_s if received is None else received.sent_utc_s,
            valid=_is_valid(message, name),
            stamp_s=message.sent_utc_s,
        )
        for name, matrix in matrices
    ]


def message_from_pose(pose: Pose, version: int = 1) -> TransformMessage:
    """TRANSFORM named after the tool. An invalid pose can only be told apart in version 2, so version 1 raises."""
    if not pose.valid and version == 1:
        raise WireError(f"pose of '{pose.tool}' is invalid, which only header version 2 can say: send nothing instead")
    return TransformMessage(
        device=pose.tool,
        timestamp=timestamp_of(pose.received_utc_s if pose.sent_utc_s is None else pose.sent_utc_s),
        version=version,
        metadata={STATUS_KEYS[0]: "OK" if pose.valid else "INVALID"} if version > 1 else {},
        matrix=pose.ras_from_tool,
    )


def points_from_message(message: PointMessage, profile: PeerProfile = AS_SENT) -> tuple[Point, ...]:
    """Points in RAS, their size as a radius, whatever the peer means by it."""
    return tuple(
        replace(
            point,
            position_mm=_to_ras(point.position_mm, profile),
            radius_mm=_radius_mm(point.radius_mm, profile),
        )
        for point in message.points
    )


def trajectories_from_message(message: TrajectoryMessage, profile: PeerProfile = AS_SENT) -> tuple[Trajectory, ...]:
    """Trajectories in RAS, their size as a radius."""
    return tuple(
        replace(
            path,
            entry_mm=_to_ras(path.entry_mm, profile),
            target_mm=_to_ras(path.target_mm, profile),
            radius_mm=_radius_mm(path.radius_mm, profile),
        )
        for path in message.trajectories
    )


def status_from_message(message: StatusMessage) -> Status:
    """Status, with the meaning of its code where the peer sent no text."""
    return Status(message.device, message.code, message.said or message.meaning, message.subcode, message.error_name)


def message_from_status(status: Status) -> StatusMessage:
    """STATUS."""
    return StatusMessage(
        device=status.device,
        code=status.code,
        subcode=status.subcode,
        error_name=status.error_name,
        text=status.text,
    )


def native(array: AnyArray) -> npt.NDArray[np.generic]:
    """The array in the byte order of this machine, uncopied when it already is."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _to_ras(position_mm: npt.NDArray[np.float64], profile: PeerProfile) -> npt.NDArray[np.float64]:
    return apply(RAS_FROM_LPS, position_mm) if profile.pose_coordinate == "LPS" else position_mm


def _radius_mm(size_mm: float, profile: PeerProfile) -> float:
    return size_mm / 2.0 if profile.point_size == "diameter" else size_mm


def _times(received: Times | None) -> tuple[float, float]:
    if received is None:
        return time.monotonic(), time.time()
    return received.received_monotonic_s, received.received_utc_s


def _is_valid(message: Message, tool: str) -> bool:
    """Plus and OpenIGTLinkIO say per transform whether it is tracked; silence counts as yes."""
    for key in (*STATUS_KEYS, f"{tool}Status"):
        if key in message.metadata:
            return message.metadata[key].strip().upper() in VALID_STATUSES
    return True
