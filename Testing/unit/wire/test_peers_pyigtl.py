"""Live against pyigtl, as server and as client; what it sends must always work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyigtl
import pytest
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.adapters import (
    image_from_message,
    message_from_image,
    points_from_message,
    poses_from_message,
)
from IntraopMRIReconstructionLib.wire.transport import Client, Server
from IntraopMRIReconstructionLib.wire.trust import profile_named
from peers.igtl_examples import free_port
from peers.igtl_samples import rigid
from peers.waiting import until

WAIT_S = 20.0
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def pyigtl_server() -> Iterator[pyigtl.OpenIGTLinkServer]:
    server = pyigtl.OpenIGTLinkServer(port=free_port(), local_server=True)
    yield server
    server.stop()


@pytest.fixture
def pyigtl_client() -> Iterator[tuple[pyigtl.OpenIGTLinkClient, Server]]:
    with Server() as ours:
        client = pyigtl.OpenIGTLinkClient(host="127.0.0.1", port=ours.port)
        assert ours.wait_for_peer(WAIT_S)
        yield client, ours
        client.stop()


def _messages(matrix: np.ndarray) -> list[tuple[pyigtl.messages.MessageBase, Callable[[codec.Message], None]]]:
    voxels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)

    def check_image(message: codec.Message) -> None:
        assert isinstance(message, codec.ImageMessage)
        image = image_from_message(message)
        np.testing.assert_array_equal(image.array, voxels)
        np.testing.assert_allclose(image.ras_from_ijk, LPS @ matrix, atol=1e-4)

    def check_ras_image(message: codec.Message) -> None:
        assert isinstance(message, codec.ImageMessage)
        np.testing.assert_allclose(image_from_message(message).ras_from_ijk, matrix, atol=1e-4)

    def check_pose(message: codec.Message) -> None:
        np.testing.assert_allclose(poses_from_message(message)[0].ras_from_tool, matrix, atol=1e-4)

    def check_string(message: codec.Message) -> None:
        assert isinstance(message, codec.StringMessage)
        assert message.text == "Hello"

    def check_points(message: codec.Message) -> None:
        assert isinstance(message, codec.PointMessage)
        assert [point.name for point in message.points] == ["a", "b"]
        np.testing.assert_array_equal(message.points[1].position_mm, (4, 5, 6))
        # pyigtl's number is a diameter: its profile knows.
        assert points_from_message(message, profile_named("pyigtl"))[1].radius_mm == 1.0

    return [
        (pyigtl.TransformMessage(matrix, device_name="probe"), check_pose),
        (pyigtl.ImageMessage(voxels, matrix, device_name="lps"), check_image),
        (pyigtl.ImageMessage(voxels, matrix, "ras", device_name="ras"), check_ras_image),
        (pyigtl.StringMessage("Hello", device_name="text"), check_string),
        (
            pyigtl.PointMessage([[1, 2, 3], [4, 5, 6]], names=["a", "b"], diameters=2.0, device_name="points"),
            check_points,
        ),
    ]


def test_what_a_pyigtl_server_sends(pyigtl_server: pyigtl.OpenIGTLinkServer) -> None:
    with Client(port=pyigtl_server.port) as client:
        until(pyigtl_server.is_connected)
        for message, check in _messages(rigid()):
            pyigtl_server.send_message(message, wait=True)
            received = client.expect(WAIT_S)
            check(received.message)
            assert received.sent_utc_s == pytest.approx(message.timestamp, abs=1e-3)
        assert not client.counters.refused


def test_what_a_pyigtl_client_sends(pyigtl_client: tuple[pyigtl.OpenIGTLinkClient, Server]) -> None:
    client, ours = pyigtl_client
    for message, check in _messages(rigid()):
        client.send_message(message, wait=True)
        check(ours.expect(WAIT_S).message)
    assert not ours.counters.refused


def test_version_2_of_pyigtl_brings_metadata(pyigtl_client: tuple[pyigtl.OpenIGTLinkClient, Server]) -> None:
    client, ours = pyigtl_client
    message = pyigtl.TransformMessage(rigid(), device_name="probe")
    message.header_version = 2
    message.metadata = {"Status": "MISSING", "PatientName": "Mueller"}
    client.send_message(message, wait=True)
    received = ours.expect(WAIT_S).message
    assert dict(received.metadata) == message.metadata
    assert not poses_from_message(received)[0].valid


def test_pyigtl_understands_us(pyigtl_server: pyigtl.OpenIGTLinkServer) -> None:
    with Client(port=pyigtl_server.port) as client:
        _check_pyigtl_understands(client, pyigtl_server)


def test_a_pyigtl_client_understands_us(pyigtl_client: tuple[pyigtl.OpenIGTLinkClient, Server]) -> None:
    _check_pyigtl_understands(pyigtl_client[1], pyigtl_client[0])


def _check_pyigtl_understands(ours: Client | Server, peer: pyigtl.OpenIGTLinkServer | pyigtl.OpenIGTLinkClient) -> None:
    def sent(message: codec.Message) -> pyigtl.messages.MessageBase:
        ours.send(message)
        received = peer.wait_for_message(message.device, timeout=WAIT_S)
        assert received is not None
        return received

    for version in (1, 2):
        pose = sent(codec.TransformMessage(device=f"probe {version}", version=version, matrix=rigid()))
        np.testing.assert_allclose(pose.matrix, rigid(), atol=1e-5)
    voxels = np.random.default_rng(1).integers(0, 1000, (3, 4, 5)).astype(np.uint16)
    spaced = rigid()
    spaced[:3, :3] = spaced[:3, :3] * [1.0, 2.0, 3.0]
    from_pyigtl = image_from_message(
        codec.ImageMessage(device="x", array=voxels, axes_mm=spaced[:3, :3], centre_mm=np.zeros(3))
    )
    image = sent(message_from_image(from_pyigtl, "T1"))
    np.testing.assert_array_equal(image.image, voxels)
    np.testing.assert_allclose(image.ijk_to_world_matrix, from_pyigtl.ras_from_ijk, atol=1e-4)
    assert sent(codec.StringMessage(device="text", text="Grüße")).string == "Grüße"
    point = codec.Point("Tip", np.array([1.0, 2.0, 3.0]), "Group", (1, 2, 3, 4), 2.5, "T1")
    points = sent(codec.PointMessage(device="points", points=(point,)))
    np.testing.assert_allclose(points.positions, [[1, 2, 3]])
    assert list(points.names) == ["Tip"]
