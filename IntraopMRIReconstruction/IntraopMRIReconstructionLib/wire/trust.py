"""What may be believed: peer profiles, and checks of matrices before anything is delivered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..data import ORTHONORMAL_TOLERANCE
from ..errors import WireError
from .header import RefusedMessage
from .message import Message
from .messages_array import COORDINATES, Coordinate, ImageMessage
from .messages_shape import BindMessage
from .messages_tracking import (
    TOOL_3D,
    PositionMessage,
    QuaternionTrackingMessage,
    TrackingDataMessage,
    TransformMessage,
)

#: Metadata that names the patient, and the frame in which positions are given (DICOM 0020,0052).
PATIENT_KEYS = ("PatientID", "PatientId", "patient_id")
FRAME_KEYS = ("FrameOfReferenceUID", "frame_of_reference_uid")
#: Metadata that names one run of a sequence (DICOM 0020,000E; the name in raw data).
SCAN_KEYS = ("SeriesInstanceUID", "series_instance_uid", "scan_id")

#: No tool and no voxel is further from the isocentre of a scanner or the origin of a tracker.
FARTHEST_MM = 10_000.0
#: Voxels of medical images in mm. Metres (0.001) and indices mistaken for mm (1000) fall outside.
SPACING_RANGE_MM = (0.005, 200.0)
#: Image axes may be off a right angle by this cosine (float32 directions keep 1e-6; a gantry tilt is 0.1 and more).
IMAGE_ANGLE_TOLERANCE = 1e-2

#: Below this a matrix flattens space: pixels of 0.01 mm still give 1e-6.
SMALLEST_DETERMINANT = 1e-9


@dataclass(frozen=True)
class PeerProfile:
    """What is known about a kind of peer. The default believes every byte that the peer sends.

    ``image_coordinate``: frame of its IMAGE matrices, None when the coordinate byte tells the truth.
    ``pose_coordinate``: frame of TRANSFORM, TDATA, QTDATA, POSITION, POINT and TRAJ: they have no coordinate byte.
    ``point_size``: what the last float of POINT and TRAJ means.
    ``rigid_transforms``: whether TRANSFORM must be a rigid motion; False lets affine registrations through.
    """

    name: str = "as sent"
    image_coordinate: Coordinate | None = None
    pose_coordinate: Coordinate = "RAS"
    point_size: Literal["radius", "diameter"] = "radius"
    rigid_transforms: bool = True


#: Believes every byte.
AS_SENT = PeerProfile()

#: Peers by name. Each line says what was read in the peer's source or measured.
PROFILES = {
    profile.name: profile
    for profile in (
        AS_SENT,
        # Slicer's OpenIGTLinkIF: ignores the coordinate byte, its matrices lead to RAS; sends any linear transform.
        PeerProfile("OpenIGTLinkIO", image_coordinate="RAS", rigid_transforms=False),
        # Flips to the scanner's LPS by itself: RAS on the wire. Header times of images are unset.
        PeerProfile("mrigtlbridge", image_coordinate="RAS"),
        # ImageToReference and the like scale pixels to mm. Frames are in the names: nothing is in RAS by itself.
        PeerProfile("Plus", rigid_transforms=False),
        # Writes LPS unless told otherwise, and sizes of points are diameters.
        PeerProfile("pyigtl", point_size="diameter"),
        # The same, with the matrices of a program that means RAS and forgot to say so.
        PeerProfile("pyigtl with RAS matrices", image_coordinate="RAS", point_size="diameter"),
        # No one program: whoever works in DICOM's frame and sends tools as they are. Images say their frame themselves.
        PeerProfile("poses in LPS", pose_coordinate="LPS"),
        # A robot instead of a scanner (ProstateBRP): RAS and rigid, but commanded in words of its own.
        PeerProfile("MR robot"),
    )
}


def profile_named(name: str) -> PeerProfile:
    """Profile of a peer. Raises WireError that lists the known ones."""
    if name not in PROFILES:
        raise WireError(f"no peer profile is named '{name}'; known are {', '.join(PROFILES)}")
    return PROFILES[name]


def facts_of(profile: PeerProfile) -> dict[str, Any]:
    """A profile as it stands in a recording: in full, for what a name stands for may be corrected later."""
    return {"profile": asdict(profile)}


def profile_from(facts: Mapping[str, Any]) -> PeerProfile | None:
    """The profile in a recording's facts about a connection, None when they name none.

    Raises WireError for one that this version does not understand.
    """
    said = facts.get("profile")
    if said is None:
        return None
    allowed: dict[str, tuple[object, ...]] = {
        "image_coordinate": (None, *COORDINATES.values()),
        "pose_coordinate": tuple(COORDINATES.values()),
        "point_size": ("radius", "diameter"),
        "rigid_transforms": (True, False),
    }
    wrong = {key: value for key, value in said.items() if key != "name" and value not in allowed.get(key, ())}
    if wrong or not isinstance(said.get("name"), str):
        raise WireError(
            f"the recording was made with a peer profile that is unknown here ({wrong or said}): name the profile, or "
            "use the version that recorded it"
        )
    return PeerProfile(**said)


def check_message(message: Message, profile: PeerProfile = AS_SENT) -> Message:
    """The message as it may be delivered: without the tools of a TDATA or QTDATA that cannot be true.

    Raises RefusedMessage when a pose, all tools, or the geometry of an image cannot be true (NaN, mirror, shear,
    metres, two places of one tool), and for a position alone: it would look like a tool that is never turned.
    """
    what = f"{message.type_name} '{message.device}'"
    if isinstance(message, TransformMessage):
        if profile.rigid_transforms:
            check_pose(message.matrix, what)
        else:
            check_affine(message.matrix, what)
    elif isinstance(message, TrackingDataMessage | QuaternionTrackingMessage):
        return _without_bad_tools(message, what)
    elif isinstance(message, PositionMessage):
        check_turned(message.values > 3, what)
        check_pose(message.matrix, what)
    elif isinstance(message, ImageMessage):
        check_image_geometry(message, what)
    elif isinstance(message, BindMessage):
        children = tuple(check_message(child, profile) for child in message.children)
        check_once([name for child in children for name in _tools_of(child)], what)
        return replace(message, children=children)
    return message


def _tools_of(message: Message) -> list[str]:
    """Names of the tools whose poses a message carries, as often as they occur."""
    if isinstance(message, TrackingDataMessage | QuaternionTrackingMessage):
        return [tool.name or message.device for tool in message.tools]
    if isinstance(message, BindMessage):
        return [name for child in message.children for name in _tools_of(child)]
    return [message.device] if isinstance(message, TransformMessage | PositionMessage) else []


def left_out(message: Message) -> tuple[RefusedMessage, ...]:
    """Why tools of a message that was delivered are missing from it."""
    if isinstance(message, BindMessage):
        return tuple(refused for child in message.children for refused in left_out(child))
    return message.left_out if isinstance(message, TrackingDataMessage | QuaternionTrackingMessage) else ()


def _without_bad_tools(message: TrackingDataMessage | QuaternionTrackingMessage, what: str) -> Message:
    good, refusals = [], list(message.left_out)
    for tool in message.tools:
        try:
            check_turned(tool.kind != TOOL_3D, f"{what}, tool '{tool.name}'")
            check_pose(tool.matrix, f"{what}, tool '{tool.name}'")
            good.append(tool)
        except RefusedMessage as refused:
            refusals.append(refused)
    if refusals and not good:
        raise refusals[0]
    changes: dict[str, Any] = {"tools": tuple(good), "left_out": tuple(refusals)}
    return message if len(good) == len(message.tools) else replace(message, **changes)


def check_once(tools: list[str], what: str) -> None:
    """Raise RefusedMessage when a tool is in several places at a time."""
    twice = [name for name, count in Counter(tools).items() if count > 1]
    if twice:
        raise RefusedMessage("tool name", f"{what} holds several tools named '{twice[0]}': rename them at the tracker")


def check_turned(is_measured: bool, what: str) -> None:
    """Raise RefusedMessage unless how a tool is turned was measured: a tip and a plane depend on it."""
    if not is_measured:
        raise RefusedMessage("position only", f"{what} says where it is, not how it is turned: no tool can be shown")


def check_pose(matrix: npt.NDArray[np.float64], what: str) -> None:
    """Raise RefusedMessage unless a (4, 4) matrix is a rigid motion within reach of an operating room."""
    columns = matrix[:3].T.tolist()
    deviation = _worst_product(columns[:3])
    if not deviation <= ORTHONORMAL_TOLERANCE:
        raise RefusedMessage(
            "matrix", f"{what} is no rigid motion: its columns deviate from orthonormal by {deviation:.3g}"
        )
    if _determinant(columns) < 0:
        raise RefusedMessage("matrix", f"{what} mirrors: its determinant is negative")
    fault = _reach_fault(columns[3])
    if fault:
        raise RefusedMessage("matrix", f"{what} {fault}")


def check_affine(matrix: npt.NDArray[np.float64], what: str) -> None:
    """Raise RefusedMessage unless a (4, 4) matrix can be undone and keeps things within reach."""
    if not np.abs(matrix).max() <= FARTHEST_MM or abs(np.linalg.det(matrix[:3, :3])) < SMALLEST_DETERMINANT:
        raise RefusedMessage("matrix", f"{what} cannot be a transform in mm: {matrix[:3].tolist()}")


def check_image_geometry(message: ImageMessage, what: str) -> None:
    """Raise RefusedMessage for spacings, angles or positions that no image has. A left-handed grid is no fault."""
    axes_mm, centre_mm = (array.astype(np.float64, copy=False) for array in (message.axes_mm, message.centre_mm))
    fault = _geometry_fault(axes_mm.tobytes(), centre_mm.tobytes())
    if fault:
        raise RefusedMessage("matrix", f"{what}: {fault}")


@lru_cache(maxsize=64)
def _geometry_fault(axes_mm: bytes, centre_mm: bytes) -> str:
    """What is wrong with float64 axes (3, 3) and centre (3,). Kept: the images of a live view lie in few planes."""
    axes = np.frombuffer(axes_mm).reshape(3, 3).T.tolist()
    spacing = [math.hypot(*axis) for axis in axes]
    if not all(SPACING_RANGE_MM[0] <= length <= SPACING_RANGE_MM[1] for length in spacing):
        return (
            f"voxels must measure {SPACING_RANGE_MM[0]} to {SPACING_RANGE_MM[1]} mm, got {spacing}; "
            "is the sender using another unit?"
        )
    skew = _worst_product([[value / length for value in axis] for axis, length in zip(axes, spacing, strict=True)])
    if skew > IMAGE_ANGLE_TOLERANCE:
        return f"image axes must be at right angles, the largest cosine is {skew:.3g}"
    return _reach_fault(np.frombuffer(centre_mm).tolist())


def _worst_product(columns: list[list[float]]) -> float:
    """How far three columns are from orthonormal. Plain numbers: for nine of them numpy's calls cost more."""
    (a, b, c), (d, e, f), (g, h, i) = columns
    return max(
        abs(a * a + b * b + c * c - 1.0),
        abs(d * d + e * e + f * f - 1.0),
        abs(g * g + h * h + i * i - 1.0),
        abs(a * d + b * e + c * f),
        abs(a * g + b * h + c * i),
        abs(d * g + e * h + f * i),
    )


def _determinant(columns: list[list[float]]) -> float:
    (a, b, c), (d, e, f), (g, h, i) = columns[:3]
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _reach_fault(position_mm: list[float]) -> str:
    within = max(map(abs, position_mm)) <= FARTHEST_MM
    return "" if within else f"lies beyond {FARTHEST_MM:g} mm: {position_mm}"
