"""Devices of a live link become nodes that say where they come from and how far they may be trusted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import vtk
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRIReconstructionLib.data import Image, Pose
from IntraopMRIReconstructionLib.errors import DataError, WireError
from IntraopMRIReconstructionLib.scene.devices import (
    ATTRIBUTE,
    DeviceNodes,
    TransformNodeSource,
    arrayOf,
    imageFromNode,
    polyDataOf,
)
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.adapters import message_from_image, message_from_pose
from IntraopMRIReconstructionLib.wire.header import timestamp_now
from IntraopMRIReconstructionLib.wire.timing import MOST_TOOLS
from IntraopMRIReconstructionLib.wire.transport import Client, Server
from IntraopMRIReconstructionLib.wire.trust import PROFILES, PeerProfile
from peers.igtl_samples import rigid, samples
from peers.waiting import until
from vtkmodules.util.numpy_support import vtk_to_numpy

WAIT_S = 20.0


@pytest.fixture
def link() -> Iterator[tuple[Client, Server]]:
    with Server() as server, Client(port=server.port) as client:
        yield client, server


@pytest.fixture
def scene(headless: HeadlessScene) -> Any:
    return headless.scene


def _pumped(devices: DeviceNodes, link: tuple[Client, Server], *messages: codec.Message) -> list[Any]:
    """Send the messages, wait for them, and bring them into the scene."""
    client, server = link
    before = server.counters.received
    for message in messages:
        client.send(message)
    until(lambda: server.counters.received - before == len(messages))
    return devices.pump(server)


def test_a_volume_lies_where_it_was(scene: Any, link: tuple[Client, Server], directions: np.ndarray) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * [1.0, 1.5, 2.0]
    matrix[:3, 3] = (-12.0, 7.0, 3.0)
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    devices = DeviceNodes(scene)
    _pumped(devices, link, message_from_image(Image(voxels, matrix, patient_id="42"), "T1", version=2))
    node = devices.node("vtkMRMLScalarVolumeNode", "T1")
    assert node is not None
    assert node.GetName() == "T1"
    back = imageFromNode(node)
    np.testing.assert_array_equal(back.array, voxels)
    np.testing.assert_allclose(back.ras_from_ijk, matrix, atol=1e-5)
    assert node.GetAttribute(ATTRIBUTE + "Frame") == "RAS"
    assert node.GetAttribute(ATTRIBUTE + "Peer").startswith("127.0.0.1:")
    assert node.GetAttribute(ATTRIBUTE + "Metadata.PatientID") == "42"
    assert node.GetAttribute(ATTRIBUTE + "TimeStampFault") == "absent"


def test_the_same_device_keeps_its_node(scene: Any, link: tuple[Client, Server]) -> None:
    devices = DeviceNodes(scene)
    _pumped(devices, link, codec.ImageMessage(device="T1", array=np.zeros((2, 3, 4), np.uint8)))
    first = devices.node("vtkMRMLScalarVolumeNode", "T1")
    _pumped(devices, link, codec.ImageMessage(device="T1", array=np.ones((3, 3, 4), np.uint8)))
    assert devices.node("vtkMRMLScalarVolumeNode", "T1") is first
    assert imageFromNode(first).array.shape == (3, 3, 4)


def test_colours_and_raw_data(scene: Any, link: tuple[Client, Server]) -> None:
    devices = DeviceNodes(scene)
    colour = np.arange(72, dtype=np.uint8).reshape(2, 3, 4, 3)
    others = _pumped(
        devices,
        link,
        codec.ImageMessage(device="photo", array=colour),
        codec.ImageMessage(device="raw", array=np.zeros((1, 2, 2), complex)),
        codec.NDArrayMessage(device="lines", array=np.zeros(3, "f4")),
    )
    np.testing.assert_array_equal(imageFromNode(devices.node("vtkMRMLVectorVolumeNode", "photo")).array, colour)
    assert [received.message.device for received in others] == ["raw", "lines"]


def test_every_kind_of_message(scene: Any, link: tuple[Client, Server]) -> None:
    devices = DeviceNodes(scene)
    named = samples()
    kinds = ("8-STATUS", "9-STRING", "4-SENSOR", "15-POINT", "16-TRAJ", "17-POLYDATA", "3-TDATA", "1-POSITION")
    for name in kinds:
        assert _pumped(devices, link, named[name]) == [], name
    assert devices.node("vtkMRMLTextNode", "Device").GetText() == "1 -2.5 1e-09"
    points = devices.node("vtkMRMLMarkupsFiducialNode", "Device")
    assert points.GetNthControlPointLabel(0) == "Tip"
    assert tuple(points.GetNthControlPointPositionVector(0)) == (1, 2, 3)
    line = devices.node("vtkMRMLMarkupsLineNode", "Path")
    assert tuple(line.GetNthControlPointPositionVector(1)) == (4, 5, 6)
    assert devices.node("vtkMRMLModelNode", "Device").GetPolyData().GetNumberOfPoints() == 4
    for tool in ("probe", "needle", "Device"):
        assert devices.node("vtkMRMLLinearTransformNode", tool) is not None


def test_polydata_keeps_its_cells_and_values() -> None:
    message = samples()["17-POLYDATA"]
    assert isinstance(message, codec.PolyDataMessage)
    poly = polyDataOf(message)
    counts = (poly.GetNumberOfVerts(), poly.GetNumberOfLines(), poly.GetNumberOfPolys(), poly.GetNumberOfStrips())
    assert counts == (1, 2, 2, 1)
    np.testing.assert_array_equal(vtk_to_numpy(poly.GetPoints().GetData()), message.points)
    second = vtk.vtkIdList()
    poly.GetPolys().GetCellAtId(1, second)
    assert [second.GetId(number) for number in range(second.GetNumberOfIds())] == [1, 2, 3]
    np.testing.assert_array_equal(vtk_to_numpy(poly.GetPointData().GetArray("depth")).ravel(), [1, 2, 3, 4])
    assert poly.GetCellData().GetArray("n").GetNumberOfComponents() == 3


def _lines(devices: DeviceNodes, *names: str) -> dict[str, dict[str, list[float]]]:
    """Labels and places of the points of lines that are in the scene."""
    found = {}
    for name in names:
        node = devices.node("vtkMRMLMarkupsLineNode", name)
        if node is not None:
            numbers = range(node.GetNumberOfControlPoints())
            points = {node.GetNthControlPointLabel(n): list(node.GetNthControlPointPositionWorld(n)) for n in numbers}
            found[name] = points
    return found


def test_a_trajectory_without_an_end_shows_none_at_the_origin(scene: Any, link: tuple[Client, Server]) -> None:
    devices = DeviceNodes(scene)
    entry, target, nowhere = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]), np.zeros(3)
    plan = (
        codec.Trajectory("whole", entry, target),
        codec.Trajectory("entry", entry, nowhere, kind=1),
        codec.Trajectory("target", nowhere, target, kind=2),
    )
    _pumped(devices, link, codec.TrajectoryMessage(device="plan", trajectories=plan))
    assert _lines(devices, "whole", "entry", "target") == {
        "whole": {"entry": [1.0, 2.0, 3.0], "target": [4.0, 5.0, 6.0]},
        "entry": {"entry": [1.0, 2.0, 3.0]},
        "target": {"target": [4.0, 5.0, 6.0]},
    }


def test_a_newer_plan_replaces_the_one_before(scene: Any, link: tuple[Client, Server]) -> None:
    devices = DeviceNodes(scene)

    def planned(*names: str) -> codec.TrajectoryMessage:
        ends = (np.full(3, float(number)) for number in range(1, 10))
        paths = tuple(codec.Trajectory(name, np.zeros(3), next(ends)) for name in names)
        return codec.TrajectoryMessage(device="plan", trajectories=paths)

    other = codec.TrajectoryMessage(device="biopsy", trajectories=(codec.Trajectory("L3", np.zeros(3), np.ones(3)),))
    _pumped(devices, link, planned("L4", "L5", "", "L4", ""), other)
    targets = {
        name: points["target"][0] for name, points in _lines(devices, "L4", "L5", "plan", "L4 (2)", "plan (2)").items()
    }
    assert targets == {"L4": 1.0, "L5": 2.0, "plan": 3.0, "L4 (2)": 4.0, "plan (2)": 5.0}
    _pumped(devices, link, planned("L5"))
    assert set(_lines(devices, "L4", "L5", "plan", "L4 (2)", "plan (2)", "L3")) == {"L5", "L3"}
    _pumped(devices, link, planned())
    assert set(_lines(devices, "L4", "L5", "L3")) == {"L3"}
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsLineNode") == 1


def test_what_a_bind_holds_is_shown(scene: Any, link: tuple[Client, Server]) -> None:
    devices = DeviceNodes(scene)
    bind = codec.BindMessage(
        device="all",
        timestamp=timestamp_now(),
        children=(
            codec.TransformMessage(device="probe", matrix=rigid()),
            codec.ImageMessage(device="slice", array=np.zeros((1, 4, 4), np.int16)),
            codec.ImageMessage(device="part", array=np.zeros((1, 4, 4), np.int16), size_ijk=(4, 4, 9)),
            codec.NDArrayMessage(device="numbers", array=np.zeros(3, ">f8")),
            codec.BindMessage(device="inner", children=(codec.StringMessage(device="note", text="hello"),)),
        ),
    )
    others = _pumped(devices, link, bind)
    assert [received.message.device for received in others] == ["numbers"]
    probe = devices.node("vtkMRMLLinearTransformNode", "probe")
    assert probe.GetAttribute(ATTRIBUTE + "Name") == "probe"
    assert devices.node("vtkMRMLTextNode", "note").GetText() == "hello"
    assert devices.node("vtkMRMLScalarVolumeNode", "slice") is not None
    (problem,) = devices.problems
    assert "IMAGE 'part'" in problem
    state = devices.poseState("probe")
    assert state is not None
    assert state.usable


def test_a_pose_feeds_its_transform_and_goes_stale(scene: Any, link: tuple[Client, Server]) -> None:
    devices = DeviceNodes(scene)
    _pumped(devices, link, message_from_pose(Pose(rigid(), "probe", time.monotonic(), time.time())))
    node = devices.node("vtkMRMLLinearTransformNode", "probe")
    assert node is not None
    matrix = vtk.vtkMatrix4x4()
    node.GetMatrixTransformToParent(matrix)
    np.testing.assert_allclose(arrayOf(matrix), rigid(), atol=1e-5)
    assert float(node.GetAttribute(ATTRIBUTE + "LatencyS")) == 0.0
    assert abs(float(node.GetAttribute(ATTRIBUTE + "SentUtcS")) - time.time()) < 60.0
    devices.refresh(nowMonotonicS=time.monotonic() + 1.0)
    assert "has not moved on" in node.GetAttribute(ATTRIBUTE + "UnusableBecause")
    _pumped(devices, link, message_from_pose(Pose(rigid(), "probe", 0.0, time.time(), valid=False), version=2))
    devices.refresh()
    assert "does not see 'probe'" in node.GetAttribute(ATTRIBUTE + "UnusableBecause")


def test_drops_are_shown(scene: Any, link: tuple[Client, Server]) -> None:
    devices = DeviceNodes(scene)
    _pumped(devices, link, *(codec.TransformMessage(device="probe", matrix=rigid(number)) for number in range(10)))
    node = devices.node("vtkMRMLLinearTransformNode", "probe")
    assert node is not None
    assert node.GetAttribute(ATTRIBUTE + "Dropped") == "9"


def test_only_the_main_thread_writes(scene: Any, link: tuple[Client, Server]) -> None:
    client, server = link
    client.send(codec.StringMessage(device="text"))
    received = server.expect(WAIT_S)
    devices = DeviceNodes(scene)
    caught: list[str] = []

    def show() -> None:
        try:
            devices.show(received)
        except WireError as error:
            caught.append(str(error))

    other = threading.Thread(target=show)
    other.start()
    other.join()
    assert "main thread" in caught[0]
    assert devices.node("vtkMRMLTextNode", "text") is None


def test_nodes_of_another_connector_are_left_alone(scene: Any, link: tuple[Client, Server]) -> None:
    theirs = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "probe")
    devices = DeviceNodes(scene)
    _pumped(devices, link, codec.TransformMessage(device="probe", matrix=rigid()))
    ours = devices.node("vtkMRMLLinearTransformNode", "probe")
    assert ours is not theirs
    assert theirs.GetName() == "probe"
    assert theirs.GetAttribute(ATTRIBUTE + "Name") is None


def test_a_node_of_another_connector_as_a_source(scene: Any) -> None:
    theirs = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "StylusToReference")
    now = [100.0]
    source = TransformNodeSource(theirs, clock=lambda: now[0])
    now[0] = 101.0
    assert "has not moved on for 1.00 s" in source.state().unusable_because
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(rigid().ravel().tolist())
    theirs.SetMatrixTransformToParent(matrix)
    state = source.state()
    assert state.usable
    assert state.pose.tool == "StylusToReference"
    np.testing.assert_allclose(state.pose.ras_from_tool, rigid(), atol=1e-9)
    source.close()
    matrix.SetElement(0, 0, 2.0)
    theirs.SetMatrixTransformToParent(matrix)
    now[0] = 102.0
    with pytest.raises(DataError, match="rigid"):
        source.state()


def test_volumes_that_cannot_be_a_source(scene: Any) -> None:
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    with pytest.raises(DataError, match="'empty' is empty"):
        imageFromNode(node)


def test_a_scaling_of_plus_is_shown_but_is_no_tool(scene: Any, headless: HeadlessScene) -> None:
    scaled = np.diag([0.2, 0.2, 0.2, 1.0])
    with Server(profile=PROFILES["Plus"]) as server, Client(port=server.port) as client:
        devices = DeviceNodes(scene, PROFILES["Plus"])
        _pumped(devices, (client, server), codec.TransformMessage(device="ImageToReference", matrix=scaled))
    node = devices.node("vtkMRMLLinearTransformNode", "ImageToReference")
    matrix = vtk.vtkMatrix4x4()
    node.GetMatrixTransformToParent(matrix)
    np.testing.assert_allclose(arrayOf(matrix), scaled, atol=1e-6)
    assert "no tool" in node.GetAttribute(ATTRIBUTE + "UnusableBecause")
    assert devices.poseState("ImageToReference") is None


def test_what_cannot_be_shown_stops_nothing(scene: Any, link: tuple[Client, Server]) -> None:
    devices = DeviceNodes(scene)
    many = tuple(codec.TrackedTool(f"tool {number}", rigid()) for number in range(MOST_TOOLS + 1))
    messages = [
        codec.TrackingDataMessage(device="liar", tools=many[:-1]),
        codec.TrackingDataMessage(device="second liar", tools=many[-1:]),
    ]
    _pumped(devices, link, *messages, codec.StringMessage(device="text"))
    assert devices.node("vtkMRMLTextNode", "text") is not None
    assert "invents names" in devices.problems[0]


def test_positions_of_a_peer_that_means_lps(scene: Any, link: tuple[Client, Server]) -> None:
    devices = DeviceNodes(scene, PeerProfile("x", pose_coordinate="LPS"))
    _pumped(devices, link, samples()["15-POINT"], codec.TransformMessage(device="probe", matrix=rigid()))
    points = devices.node("vtkMRMLMarkupsFiducialNode", "Device")
    assert points is not None
    assert tuple(points.GetNthControlPointPositionVector(0)) == (-1, -2, 3)
    node = devices.node("vtkMRMLLinearTransformNode", "probe")
    assert node is not None
    assert node.GetAttribute(ATTRIBUTE + "Profile") == "x"


def test_two_senders_of_one_device_name_have_a_node_each(scene: Any) -> None:
    """The image of one never stands where the other's is meant, and one that comes back has its node again."""

    def shown(client: Client, value: int) -> None:
        count = server.counters.received
        client.send(codec.ImageMessage(device="Live", array=np.full((1, 2, 2), value, np.int16)))
        until(lambda: server.counters.received > count)
        devices.pump(server)

    def values() -> list[int]:
        found = [devices.node("vtkMRMLScalarVolumeNode", "Live", sender) for sender in range(3)]
        return [int(imageFromNode(node).array[0, 0, 0]) for node in found if node is not None]

    devices = DeviceNodes(scene)
    with Server() as server, Client(port=server.port) as first:
        shown(first, 1)
        with Client(port=server.port) as second:
            shown(second, 2)
            shown(first, 3)
            assert values() == [3, 2]
            names = [node.GetName() for node in (devices.node("vtkMRMLScalarVolumeNode", "Live", n) for n in (0, 1))]
            assert len(set(names)) == 2
            (said,) = devices.problems
            assert said.startswith("IMAGE 'Live' comes from 127.0.0.1:")
        # A link that flaps, as long as it likes: no node is added.
        for value in range(4, 8):
            until(lambda: len(server.peers) == 1)
            with Client(port=server.port) as again:
                shown(again, value)
        assert values() == [3, 7]


def test_two_plans_of_one_name_do_not_take_each_others_lines(scene: Any) -> None:
    def plan(x_mm: float, *names: str) -> codec.TrajectoryMessage:
        paths = [codec.Trajectory(name, np.array([x_mm, 0, 0]), np.array([x_mm, 0, 9])) for name in names]
        return codec.TrajectoryMessage(device="Plan", trajectories=tuple(paths))

    devices = DeviceNodes(scene)
    with Server() as server, Client(port=server.port) as first, Client(port=server.port) as second:
        _pumped(devices, (first, server), plan(1.0, "A", "B"))
        _pumped(devices, (second, server), plan(2.0, "A"))
        _pumped(devices, (second, server), plan(2.0, "C"))
        lines = {name: devices.node("vtkMRMLMarkupsLineNode", name) for name in ("A", "B")}
        assert all(line is not None and line.GetNthControlPointPosition(0)[0] == 1.0 for line in lines.values())
        assert devices.node("vtkMRMLMarkupsLineNode", "A", 1) is None
        assert devices.node("vtkMRMLMarkupsLineNode", "C", 1) is not None
