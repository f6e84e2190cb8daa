"""Messages to images, poses and statuses in RAS: the corner, the coordinate byte, lying peers."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Image, Pose, Status
from IntraopMRIReconstructionLib.errors import DataError, WireError
from IntraopMRIReconstructionLib.geometry import apply, rotation_about
from IntraopMRIReconstructionLib.wire import adapters, codec
from IntraopMRIReconstructionLib.wire.header import HEADER_SIZE
from IntraopMRIReconstructionLib.wire.messages_tracking import matrix_from_quaternion
from IntraopMRIReconstructionLib.wire.scanner_control import ScannerControl
from IntraopMRIReconstructionLib.wire.trust import PROFILES, PeerProfile, check_message, profile_named
from peers.igtl_samples import frame, image_body, rigid

LPS = np.diag([-1.0, -1.0, 1.0])


def _sent(message: codec.Message) -> codec.Message:
    raw = codec.encode(message)
    return codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])


def _image(directions: np.ndarray) -> Image:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * [0.9, 1.1, 2.5]
    matrix[:3, 3] = (-12.5, 33.25, 7.75)
    array = np.arange(4 * 3 * 5, dtype=np.int16).reshape(4, 3, 5)
    return Image(array, matrix, name="T1", acquired_utc_s=1767323045.5, patient_id="42", metadata={"EchoTime": "0.02"})


def test_image_there_and_back(directions: np.ndarray) -> None:
    image = _image(directions)
    message = _sent(adapters.message_from_image(image, version=2))
    assert isinstance(message, codec.ImageMessage)
    check_message(message)
    back = adapters.image_from_message(message)
    np.testing.assert_array_equal(back.array, image.array)
    np.testing.assert_allclose(back.ras_from_ijk, image.ras_from_ijk, atol=1e-5)
    assert (back.name, back.acquired_utc_s, back.patient_id) == ("T1", 1767323045.5, "42")
    assert back.metadata["EchoTime"] == "0.02"


def test_position_is_the_centre_of_the_volume() -> None:
    # Five voxels of 2 mm from the centre 100: the first lies 4 mm, not 5 mm, before it.
    body = image_body(bytes(5), (5, 1, 1), axes=np.diag([2.0, 1.0, 1.0]), centre=(100.0, 0.0, 0.0))
    raw = frame("IMAGE", body)
    image = adapters.image_from_message(codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:]))  # type: ignore[arg-type]
    np.testing.assert_allclose(apply(image.ras_from_ijk, (0, 0, 0)), (96.0, 0, 0))


def test_lps_and_ras_of_the_same_anatomy_are_the_same_image(directions: np.ndarray) -> None:
    axes, centre = directions * [1.0, 2.0, 3.0], np.array([10.0, 20.0, 30.0])
    images = []
    for coordinate, to_frame in ((1, np.eye(3)), (2, LPS)):
        body = image_body(
            bytes(24), (4, 3, 2), axes=to_frame @ axes, centre=tuple(to_frame @ centre), coordinate=coordinate
        )
        raw = frame("IMAGE", body)
        images.append(adapters.image_from_message(codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])))  # type: ignore[arg-type]
    np.testing.assert_allclose(images[0].ras_from_ijk, images[1].ras_from_ijk, atol=1e-5)


def test_a_lying_peer_is_overridden_only_by_its_named_profile() -> None:
    raw = frame("IMAGE", image_body(bytes(24), (4, 3, 2), centre=(10.0, 20.0, 30.0), coordinate=2))
    message = codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])
    assert isinstance(message, codec.ImageMessage)
    honest = adapters.image_from_message(message)
    lying = adapters.image_from_message(message, profile_named("OpenIGTLinkIO"))
    np.testing.assert_allclose(np.diag(honest.ras_from_ijk)[:3], (-1, -1, 1))
    np.testing.assert_allclose(np.diag(lying.ras_from_ijk)[:3], (1, 1, 1))
    with pytest.raises(WireError, match="known are as sent, OpenIGTLinkIO"):
        profile_named("somebody")
    assert PROFILES["pyigtl"].image_coordinate is None


def test_parts_and_complex_voxels_are_no_images() -> None:
    part = codec.ImageMessage(device="x", array=np.zeros((1, 3, 4)), size_ijk=(4, 3, 2))
    with pytest.raises(WireError, match="assemble"):
        adapters.image_from_message(part)
    with pytest.raises(WireError, match="complex"):
        adapters.image_from_message(codec.ImageMessage(device="x", array=np.zeros((1, 3, 4), complex)))


def test_voxels_in_native_order_are_not_copied() -> None:
    raw = codec.encode(codec.ImageMessage(device="x", array=np.arange(24, dtype="<f4").reshape(2, 3, 4)))
    message = codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])
    assert isinstance(message, codec.ImageMessage)
    assert np.shares_memory(adapters.image_from_message(message).array, message.array)


def test_pose_there_and_back() -> None:
    pose = Pose(rigid(), "probe", 12.0, 1767323045.5, sent_utc_s=1767323045.25)
    (back,) = adapters.poses_from_message(_sent(adapters.message_from_pose(pose)))
    np.testing.assert_allclose(back.ras_from_tool, rigid(), atol=1e-6)
    assert (back.tool, back.sent_utc_s, back.valid) == ("probe", 1767323045.25, True)


def test_an_invalid_pose_is_said_to_be_invalid() -> None:
    pose = Pose(rigid(), "probe", 12.0, 1767323045.5, valid=False)
    (back,) = adapters.poses_from_message(_sent(adapters.message_from_pose(pose, version=2)))
    assert not back.valid
    with pytest.raises(WireError, match="send nothing"):
        adapters.message_from_pose(pose)


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [
        ("Status", "OK", True),
        ("probeStatus", "INVALID", False),
        ("status", "MISSING", False),
        ("Else", "INVALID", True),
    ],
)
def test_status_metadata_of_trackers(key: str, value: str, valid: bool) -> None:
    message = codec.TransformMessage(device="probe", version=2, metadata={key: value})
    (pose,) = adapters.poses_from_message(message)
    assert pose.valid is valid


def test_poses_of_several_tools_in_lps() -> None:
    tools = (codec.TrackedTool("a", rigid()), codec.TrackedTool("b", rigid(60.0)))
    poses = adapters.poses_from_message(
        codec.TrackingDataMessage(device="tracker", tools=tools), None, PeerProfile("x", pose_coordinate="LPS")
    )
    assert [pose.tool for pose in poses] == ["a", "b"]
    np.testing.assert_allclose(poses[0].tip_ras_mm, LPS @ rigid()[:3, 3])
    with pytest.raises(WireError, match="is no pose"):
        adapters.poses_from_message(codec.StringMessage(device="x"))
    with pytest.raises(DataError, match="mirror"):
        adapters.poses_from_message(codec.TransformMessage(device="x", matrix=np.diag([1.0, 1.0, -1.0, 1.0])))


def test_poses_in_a_bind() -> None:
    tools = codec.TrackingDataMessage(device="tracker", tools=(codec.TrackedTool("b", rigid(60.0)),))
    inner = codec.BindMessage(device="inner", children=(tools,))
    children = (codec.TransformMessage(device="a", matrix=rigid()), codec.StringMessage(device="note"), inner)
    bind = codec.BindMessage(
        device="all", timestamp=1 << 32, version=2, metadata={"bStatus": "MISSING"}, children=children
    )
    poses = adapters.poses_from_message(_sent(bind), None, PeerProfile("x", pose_coordinate="LPS"))
    assert [(pose.tool, pose.valid, pose.sent_utc_s) for pose in poses] == [("a", True, 1.0), ("b", False, 1.0)]
    np.testing.assert_allclose(poses[0].tip_ras_mm, LPS @ rigid()[:3, 3])
    assert adapters.poses_from_message(codec.BindMessage(device="empty")) == []


@pytest.mark.parametrize("angle", [0.0, 1e-6, 90.0, 179.999, 180.0])
def test_quaternions(angle: float) -> None:
    """Of any length: the rotation does not depend on it."""
    axis, half = np.array([2.0, -1.0, 2.0]) / 3, np.deg2rad(angle) / 2
    matrix = matrix_from_quaternion(0.8 * np.array([*(np.sin(half) * axis), np.cos(half)]), (1.0, 2.0, 3.0))
    np.testing.assert_allclose(matrix[:3, :3], rotation_about(axis, angle), atol=1e-12)
    assert matrix[:3, 3].tolist() == [1.0, 2.0, 3.0]


def test_points_and_trajectories_of_a_peer_that_means_lps_and_diameters() -> None:
    profile = PeerProfile("x", pose_coordinate="LPS", point_size="diameter")
    position = np.array([1.0, 2.0, 3.0])
    points = codec.PointMessage(device="x", points=(codec.Point("Tip", position, radius_mm=5.0),))
    (point,) = adapters.points_from_message(points, profile)
    assert (point.name, point.position_mm.tolist(), point.radius_mm) == ("Tip", [-1.0, -2.0, 3.0], 2.5)
    paths = codec.TrajectoryMessage(device="x", trajectories=(codec.Trajectory("Path", position, 2 * position),))
    (path,) = adapters.trajectories_from_message(paths, profile)
    assert (path.entry_mm.tolist(), path.target_mm.tolist()) == ([-1.0, -2.0, 3.0], [-2.0, -4.0, 6.0])
    assert adapters.points_from_message(points)[0].radius_mm == 5.0


def test_status() -> None:
    status = Status("scanner", 6, "", 3, "Busy")
    back = adapters.status_from_message(_sent(adapters.message_from_status(status)))  # type: ignore[arg-type]
    assert (back.code, back.text, back.subcode, back.error_name, back.ok) == (6, "busy", 3, "Busy", False)


def test_a_log_in_a_status_is_short_where_a_person_reads_it() -> None:
    message = codec.StatusMessage(device="scanner", code=2, text="line\n" * 100_000)
    assert len(adapters.status_from_message(message).text) < 600
    heard: list[str] = []
    control = ScannerControl(lambda _message: None, on_transition=lambda turn: heard.append(turn.reason))
    control.on_message(message)
    assert "unknown error" in heard[-1]
    assert len(heard[-1]) < 700
