"""Live against the C++ library of OpenIGTLink: Debian's examples, values compared in both directions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.adapters import image_from_message
from IntraopMRIReconstructionLib.wire.header import utc_of
from IntraopMRIReconstructionLib.wire.message import Message
from IntraopMRIReconstructionLib.wire.messages_tracking import matrix_from_quaternion
from IntraopMRIReconstructionLib.wire.transport import Client, Server
from peers import igtl_examples
from peers.igtl_examples import free_port, numbers_after, running
from peers.igtl_samples import rigid
from peers.waiting import until

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(bool(igtl_examples.missing()), reason=igtl_examples.missing() or "-"),
]

WAIT_S = 30.0


@pytest.fixture(scope="module", autouse=True)
def _programs() -> None:
    igtl_examples.build()


def _connected(port: int) -> Client:
    """Client of a program that is just starting."""
    tick = threading.Event()
    for _ in range(int(WAIT_S / 0.02)):
        client = Client(port=port, reconnect=False)
        try:
            return client.__enter__()
        except WireError:
            tick.wait(0.02)
    raise AssertionError(f"nothing listens on {port}")


def _ask(name: str, *arguments: object, send: Message | None = None, count: int = 1) -> list[Message]:
    """Messages of a C++ server, after ``send`` was sent to it."""
    port = free_port()
    with running(name, port, *arguments), _connected(port) as client:
        if send is not None:
            client.send(send)
        messages = [client.expect(WAIT_S).message for _ in range(count)]
        assert not client.counters.refused
        return messages


def _hear(
    name: str, *arguments: object, count: int = 1, answer: Callable[[Server], None] | None = None
) -> list[Message]:
    """Messages that a C++ client sends to our server."""
    with Server() as server:
        if answer is not None:
            answer(server)
        with running(name, "127.0.0.1", server.port, *arguments):
            messages = [server.expect(WAIT_S).message for _ in range(count)]
        assert not server.counters.refused
        return messages


def _tracker_pose(step: int) -> np.ndarray:
    """What the example programs call a random matrix: a path with a tool that turns."""
    phi, theta = 0.2 * step, 0.1 * step
    quaternion = (0.0, 0.6666666666 * np.cos(theta), 0.577350269189626, 0.6666666666 * np.sin(theta))
    return matrix_from_quaternion(quaternion, (50 * np.cos(phi), 50 * np.sin(phi), 50 * np.cos(phi)))


@pytest.mark.parametrize("direction", ["server", "client"])
def test_tracker(direction: str) -> None:
    messages = _ask("TrackerServer", 20, count=5) if direction == "server" else _hear("TrackerClient", 20, count=5)
    for step, message in enumerate(messages):
        assert isinstance(message, codec.TransformMessage)
        assert message.device == "Tracker"
        np.testing.assert_allclose(message.matrix, _tracker_pose(step), atol=1e-4)


@pytest.mark.parametrize("direction", ["server", "client"])
def test_imager(direction: str) -> None:
    folder = igtl_examples.SOURCES / "Imager" / "img"
    messages = (
        _ask("ImagerServer", 20, folder, count=5)
        if direction == "server"
        else _hear("ImagerClient", 20, folder, count=5)
    )
    for number, message in enumerate(messages):
        assert isinstance(message, codec.ImageMessage)
        assert message.device == "ImagerClient"
        raw = (folder / f"igtlTestImage{number + 1}.raw").read_bytes()
        np.testing.assert_array_equal(message.array, np.frombuffer(raw, np.uint8).reshape(1, 256, 256))
        image = image_from_message(message)
        np.testing.assert_allclose(image.spacing_mm, (1, 1, 5))
        axes = image.ras_from_ijk[:3, :3]
        np.testing.assert_allclose(axes, message.axes_mm)
        np.testing.assert_allclose(image.ras_from_ijk[:3, 3], message.centre_mm - axes @ [127.5, 127.5, 0])


@pytest.mark.parametrize("direction", ["server", "client"])
def test_status(direction: str) -> None:
    (message,) = _ask("StatusServer") if direction == "server" else _hear("StatusClient")
    assert isinstance(message, codec.StatusMessage)
    assert (message.device, message.code, message.subcode, message.error_name) == ("Device", 1, 128, "OK!")
    assert message.text == "This is a test to send status message."


@pytest.mark.parametrize("direction", ["server", "client"])
def test_string(direction: str) -> None:
    messages = _ask("StringServer", 20, count=3) if direction == "server" else _hear("StringClient", 20, count=3)
    texts = [message.text for message in messages if isinstance(message, codec.StringMessage)]
    assert texts == ["OpenIGTLink", "Network", "Communication"]


@pytest.mark.parametrize("direction", ["server", "client"])
def test_point(direction: str) -> None:
    (message,) = _ask("PointServer") if direction == "server" else _hear("PointClient")
    assert isinstance(message, codec.PointMessage)
    for number, point in enumerate(message.points):
        assert (point.name, point.group, point.owner) == (f"POINT_{number}", "GROUP_0", "IMAGE_0")
        np.testing.assert_array_equal(point.position_mm, np.array([10, 20, 30]) + 30 * number)
        assert point.radius_mm == 15 + 30 * number
        assert point.rgba == tuple(255 if channel in (number, 3) else 0 for channel in range(4))
    assert len(message.points) == 3


@pytest.mark.parametrize("direction", ["server", "client"])
def test_trajectory(direction: str) -> None:
    (message,) = _ask("TrajectoryServer") if direction == "server" else _hear("TrajectoryClient")
    assert isinstance(message, codec.TrajectoryMessage)
    ends = [((10, 20, 30), (20, 20, 40)), ((40, 50, 60), (20, 30, 10)), ((70, 80, 90), (10, 40, 20))]
    if direction == "client":
        # Its source sets the target of the second path twice and leaves the third at 0.
        ends[1], ends[2] = (ends[1][0], (10, 40, 20)), (ends[2][0], (0, 0, 0))
    for number, (path, (entry, target)) in enumerate(zip(message.trajectories, ends, strict=True)):
        assert (path.name, path.group, path.owner) == (f"TRAJECTORY_{number}", "GROUP_0", "IMAGE_0")
        np.testing.assert_array_equal(path.entry_mm, entry)
        np.testing.assert_array_equal(path.target_mm, target)
        assert path.radius_mm == 15 + 30 * number


@pytest.mark.parametrize("direction", ["server", "client"])
def test_capability(direction: str) -> None:
    (message,) = _ask("CapabilityServer") if direction == "server" else _hear("CapabilityClient")
    assert isinstance(message, codec.CapabilityMessage)
    assert message.types[-2:] == ("GET_IMAGE", "GET_LBMETA")


def test_polydata_of_a_server() -> None:
    (message,) = _ask("PolyDataServer", send=codec.Query(verb="GET", of="POLYDATA", device="Cube"))
    assert isinstance(message, codec.PolyDataMessage)
    assert message.device == "Cube"
    corners = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]
    np.testing.assert_array_equal(message.points, corners)
    faces = [[0, 3, 2, 1], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]]
    assert [cell.tolist() for cell in message.cells("polygons")] == faces
    (attribute,) = message.attributes
    assert (attribute.name, attribute.kind, attribute.values.ravel().tolist()) == ("attr", 0, list(range(8)))


def test_tracking_data_of_a_server_starts_and_stops() -> None:
    port = free_port()
    with running("TrackingDataServer", port), _connected(port) as client:
        client.send(codec.Query.start("TDATA", "Tracker", 0.02, "Patient"))
        message = client.expect(WAIT_S, "TDATA").message
        assert isinstance(message, codec.TrackingDataMessage)
        assert [(tool.name, tool.kind) for tool in message.tools] == [
            ("Channel 0", 1),
            ("Channel 1", 2),
            ("Channel 2", 4),
        ]
        for tool in message.tools:
            radius = np.hypot(tool.matrix[0, 3], tool.matrix[1, 3])
            assert radius == pytest.approx(50.0, abs=1e-3)
            assert tool.matrix[0, 3] == tool.matrix[2, 3]
        client.send(codec.Query(verb="STP", of="TDATA", device="Tracker"))


def test_quaternion_tracking_of_a_server() -> None:
    (message,) = _ask("QuaternionTrackingDataServer", send=codec.Query.start("QTDATA", "Tracker", 0.02, "Patient"))
    assert isinstance(message, codec.QuaternionTrackingMessage)
    assert [tool.name for tool in message.tools] == ["Channel 0", "Channel 1", "Channel 2"]
    for tool in message.tools:
        assert np.hypot(*tool.position_mm[:2]) == pytest.approx(50.0, abs=1e-3)
        # The example does not bring its quaternions to unit length; the rotation is the same.
        assert np.linalg.norm(tool.quaternion) == pytest.approx(0.8819, abs=1e-3)
        assert np.linalg.det(tool.matrix[:3, :3]) == pytest.approx(1.0)


def test_image_meta_of_a_server() -> None:
    (message,) = _ask("ImageMetaServer", send=codec.Query(verb="GET", of="IMGMETA", device="Any"))
    assert isinstance(message, codec.ImageMetaMessage)
    seen = [(image.name, image.device, image.modality, image.patient_id, image.size_ijk) for image in message.images]
    assert seen == [
        ("IMAGE_DESCRIPTION_0", "IMAGE_0", "CT", "PATIENT_ID_0", (512, 512, 64)),
        ("IMAGE_DESCRIPTION_1", "IMAGE_1", "MRI", "PATIENT_ID_1", (256, 128, 32)),
        ("IMAGE_DESCRIPTION_2", "IMAGE_2", "PET", "PATIENT_ID_2", (256, 256, 32)),
    ]
    assert utc_of(message.images[0].timestamp) == pytest.approx(1.2345, abs=1e-6)
    assert message.images[0].scalar_code == 5


def test_label_meta_of_a_server() -> None:
    (message,) = _ask("LabelMetaServer", send=codec.Query(verb="GET", of="LBMETA", device="Any"))
    assert isinstance(message, codec.LabelMetaMessage)
    first = message.labels[0]
    assert (first.name, first.device, first.label) == ("LABEL_DESCRIPTION_0", "LABEL_0", 1)
    assert (first.rgba, first.size_ijk, first.owner) == ((255, 0, 0, 255), (512, 512, 64), "IMAGE_0")


def test_bind_of_a_client() -> None:
    (message,) = _hear("BindClient", 20)
    assert isinstance(message, codec.BindMessage)
    text, pose = message.children
    assert isinstance(text, codec.StringMessage)
    assert (text.device, text.text) == ("StringMessage", "OpenIGTLink")
    assert isinstance(pose, codec.TransformMessage)
    np.testing.assert_allclose(pose.matrix, _tracker_pose(0), atol=1e-4)


def _read(output: Path, mark: str) -> str:
    until(lambda: mark in output.read_text(errors="replace"))
    return output.read_text(errors="replace")


def _receive_server(message: Message, mark: str) -> str:
    """What the C++ ReceiveServer prints about a message of ours; it prints values only when it found the CRC right."""
    port = free_port()
    with running("ReceiveServer", port) as output, _connected(port) as client:
        client.send(message)
        return _read(output, mark)


def test_receive_server_understands_our_transform() -> None:
    text = _receive_server(codec.TransformMessage(device="probe", matrix=rigid()), "0, 0, 0, 1")
    rows = [line for line in text.splitlines() if line.count(",") >= 3]
    printed = np.array([[float(value) for value in row.rstrip(", ").split(",")] for row in rows[-4:]])
    np.testing.assert_allclose(printed, rigid(), atol=1e-4)


def test_receive_server_understands_our_position() -> None:
    message = codec.PositionMessage(
        device="probe", position_mm=np.array([1.5, -2.5, 3.0]), quaternion=np.array([0.0, 0.6, 0.0, 0.8])
    )
    text = _receive_server(message, "quaternion =")
    assert numbers_after("position   =", text) == [[1.5, -2.5, 3.0]]
    assert numbers_after("quaternion =", text) == [[0.0, 0.6, 0.0, 0.8]]


def test_receive_server_understands_our_image() -> None:
    message = codec.ImageMessage(
        device="T1", array=np.zeros((4, 6, 5), np.int16), axes_mm=np.diag([1.5, 2.5, 3.5]), centre_mm=np.ones(3)
    )
    text = _receive_server(message, "Sub-Volume offset")
    assert "Device Name           : T1" in text
    assert numbers_after("Scalar Type           :", text) == [[4]]
    assert numbers_after("\nDimensions            :", text) == [[5, 6, 4]]
    assert numbers_after("Spacing               :", text) == [[1.5, 2.5, 3.5]]
    assert numbers_after("Sub-Volume dimensions :", text) == [[5, 6, 4]]
    assert numbers_after("Sub-Volume offset     :", text) == [[0, 0, 0]]


def test_receive_server_understands_our_status_string_and_capability() -> None:
    text = _receive_server(
        codec.StatusMessage(device="x", code=6, subcode=77, error_name="Busy", text="wait"), "======\n"
    )
    for expected in ("Code      : 6", "SubCode   : 77", "Error Name: Busy", "Status    : wait"):
        assert expected in text
    assert "String: hello" in _receive_server(codec.StringMessage(device="x", text="hello"), "hello")
    assert "Typename #1: TRANSFORM" in _receive_server(
        codec.CapabilityMessage(device="x", types=("IMAGE", "TRANSFORM")), "#1"
    )


def test_receive_server_understands_our_points_and_trajectories() -> None:
    point = codec.Point("Tip", np.array([1.0, 2.0, 3.0]), "Landmark", (1, 2, 3, 4), 2.5, "T1")
    text = _receive_server(codec.PointMessage(device="x", points=(point,)), "Owner")
    for expected in ("Name      : Tip", "GroupName : Landmark", "Owner     : T1"):
        assert expected in text
    assert numbers_after("RGBA      :", text) == [[1, 2, 3, 4]]
    assert numbers_after("Position  :", text) == [[1, 2, 3]]
    assert numbers_after("Radius    :", text) == [[2.5]]
    path = codec.Trajectory(
        "Path", np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]), 3, "Plan", (9, 8, 7, 6), 1.5, "T1"
    )
    text = _receive_server(codec.TrajectoryMessage(device="x", trajectories=(path,)), "Owner")
    assert numbers_after("Entry Pt  :", text) == [[1, 2, 3]]
    assert numbers_after("Target Pt :", text) == [[4, 5, 6]]
    assert numbers_after("Radius    :", text) == [[1.5]]


def test_receive_server_understands_our_bind() -> None:
    bind = codec.BindMessage(
        device="x",
        children=(codec.StringMessage(device="odd", text="abc"), codec.TransformMessage(device="tool", matrix=rigid())),
    )
    text = _receive_server(bind, "0, 0, 0, 1")
    assert "Message name: odd" in text
    assert "Message name: tool" in text


def _our_answer(name: str, offers: dict[str, Message], mark: str, *arguments: object) -> str:
    """What a C++ client prints about the answer of our server."""
    with Server() as server:
        for type_name, message in offers.items():
            server.offer(type_name, "", lambda message=message: message)  # type: ignore[misc]
        with running(name, "127.0.0.1", server.port, *arguments) as output:
            return _read(output, mark)


def test_polydata_client_reads_our_answer() -> None:
    message = codec.PolyDataMessage(
        device="x",
        points=np.array([[0, 0, 0], [1, 0, 0], [0, 1.5, 0]], "f4"),
        polygons=np.array([3, 0, 1, 2], ">u4"),
        attributes=(codec.PolyAttribute("depth", 0, np.array([[1.0], [2], [3]], "f4")),),
    )
    text = _our_answer("PolyDataClient", {"POLYDATA": message}, "data[2]")
    assert numbers_after("point[2] =", text)[0] == [0, 1.5, 0]
    # The client prints the first index of a cell twice.
    assert numbers_after("cell[0] =", text)[0] == [0, 0, 1, 2]
    assert "Name = depth" in text
    assert numbers_after("data[2] =", text)[0] == [3]


def test_image_meta_client_reads_our_answer() -> None:
    image = codec.ImageMeta("T1", "T1 device", "MRI", "Doe^J", "42", 0, (64, 65, 66), 5)
    text = _our_answer(
        "ImageMetaClient", {"IMGMETA": codec.ImageMetaMessage(device="x", images=(image,))}, "ScalarType"
    )
    for expected in (
        "Name       : T1",
        "DeviceName : T1 device",
        "Modality   : MRI",
        "PatientID  : 42",
        "ScalarType : 5",
    ):
        assert expected in text
    assert numbers_after("Size       :", text)[0] == [64, 65, 66]


def test_tracking_data_client_starts_our_stream() -> None:
    tools = (codec.TrackedTool("needle", rigid(), 3),)
    text = _our_answer(
        "TrackingDataClient",
        {"TDATA": codec.TrackingDataMessage(device="x", tools=tools)},
        "================================",
        20,
    )
    assert "Name       : needle" in text
    assert "Type       : 3" in text
    rows = [line for line in text.splitlines() if line.count(",") >= 3]
    printed = np.array([[float(value) for value in row.rstrip(", ").split(",")] for row in rows[:4]])
    np.testing.assert_allclose(printed, rigid(), atol=1e-4)
