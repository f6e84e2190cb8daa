"""OpenIGTLink devices as named MRML nodes, and any node of a scene as a device: main thread only."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import vtk
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

from ..data import POSE_STALE_S, AnyArray, Image, Pose
from ..errors import DataError, IntraopError, WireError
from ..geometry import ras_from_lps_matrix
from ..wire.adapters import image_from_message, native, points_from_message, trajectories_from_message
from ..wire.codec import (
    BindMessage,
    CommandMessage,
    ImageMessage,
    Message,
    PointMessage,
    PolyDataMessage,
    PositionMessage,
    QuaternionTrackingMessage,
    SensorMessage,
    StatusMessage,
    StringMessage,
    TrackingDataMessage,
    Trajectory,
    TrajectoryMessage,
    TransformMessage,
)
from ..wire.messages_shape import ENTRY_ONLY, TARGET_ONLY
from ..wire.timing import PoseBoard, PoseState
from ..wire.transport import Endpoint, Received
from ..wire.trust import AS_SENT, PeerProfile

#: Prefix of the attributes that tell where a node comes from and how far it may be trusted.
ATTRIBUTE = "IntraopMRI.Device."
#: Messages handled per call of :meth:`DeviceNodes.pump`: a flood must not freeze the window.
MOST_PER_PUMP = 200

_CELLS = {"vertices": "SetVerts", "lines": "SetLines", "polygons": "SetPolys", "triangle_strips": "SetStrips"}


class DeviceNodes:
    """Keeps one node per device of a link up to date.

    IMAGE gives a volume, TRANSFORM, POSITION and each tool of TDATA and QTDATA a linear transform, STRING, STATUS,
    COMMAND and SENSOR a text, POINT fiducials, TRAJ lines, POLYDATA a model, BIND what its children give. Other
    messages (raw data, queries) give no node and are returned by :meth:`pump` for others to use. Nodes of the same name
    that somebody else made, such as those of Slicer's OpenIGTLinkIF, are left alone.

    Two peers that send under one device name have a node each, which is said; a tool comes from one of them, see
    :class:`PoseBoard`.

    A TRAJ is the whole plan of its device: lines that a newer one no longer names leave the scene.
    """

    def __init__(self, scene: Any, profile: PeerProfile = AS_SENT, staleAfterS: float = POSE_STALE_S) -> None:
        self.scene, self.profile = scene, profile
        self._poses = PoseBoard(staleAfterS, profile)
        self.problems: deque[str] = deque(maxlen=MOST_PER_PUMP)
        self._nodes: dict[tuple[str, str, int], str] = {}
        self._plans: dict[tuple[str, int], set[str]] = {}
        #: Senders by type and device; what each of them sends goes to the nodes of its place in the list.
        self._senders: dict[tuple[str, str], list[str]] = {}
        self._endpoints: weakref.WeakSet[Endpoint] = weakref.WeakSet()

    def node(self, className: str, name: str, sender: int = 0) -> Any:
        """The node of a device or tool, None when there is none (any more).

        ``sender``: of several that send it at once, in the order in which they came.
        """
        identifier = self._nodes.get((className, name, sender))
        return None if identifier is None else self.scene.GetNodeByID(identifier)

    def pump(self, endpoint: Endpoint, most: int = MOST_PER_PUMP) -> list[Received]:
        """Bring what has come since the last call into the scene; call it from a timer. Returns what gave no node.

        A message that cannot be shown is said so in ``problems`` and stops nothing.
        """
        self._checkThread()
        self._endpoints.add(endpoint)
        others = []
        for _ in range(most):
            received = endpoint.receive(0)
            if received is None:
                break
            for part in _parts(received):
                try:
                    nodes = self.show(part)
                except IntraopError as error:
                    self.problems.append(f"{part.message.type_name} '{part.message.device}': {error}")
                    continue
                if not nodes:
                    others.append(part)
        self.refresh(endpoint)
        return others

    def show(self, received: Received) -> list[Any]:
        """Bring one message into the scene; the nodes that it changed, empty when there is no node for its type."""
        self._checkThread()
        shown = []
        for part in _parts(received):
            nodes = self._show(part)
            for node in nodes:
                self._describe(node, part)
            shown += nodes
        return shown

    def refresh(self, endpoint: Endpoint | None = None, nowMonotonicS: float | None = None) -> None:
        """Say of every tool how old its pose is and whether it may be used, and how many messages were dropped."""
        for tool in self._poses.tools:
            node, state = self.node("vtkMRMLLinearTransformNode", tool), self._poses.state(tool, nowMonotonicS)
            if node is not None and state is not None:
                _setAttribute(node, "UnusableBecause", state.unusable_because)
        if endpoint is None:
            return
        for (kind, device), count in endpoint.counters.dropped.items():
            for identifier in self._nodes.values():
                node = self.scene.GetNodeByID(identifier)
                if node is not None and _attribute(node, "Name") == device and _attribute(node, "Type") == kind:
                    _setAttribute(node, "Dropped", str(count))

    def poseState(self, tool: str, nowMonotonicS: float | None = None) -> PoseState | None:
        """Latest pose of a tool and whether it may be used now."""
        return self._poses.state(tool, nowMonotonicS)

    @staticmethod
    def _checkThread() -> None:
        if threading.current_thread() is not threading.main_thread():
            raise WireError("nodes may only be written by the main thread: call pump() from a timer of the window")

    def _show(self, received: Received) -> list[Any]:
        message = received.message
        if isinstance(message, ImageMessage):
            return [] if _isRawData(message) else [self._volume(message, received)]
        if isinstance(message, TransformMessage) and not self.profile.rigid_transforms:
            return [self._affine(message, received)]
        if isinstance(message, TransformMessage | PositionMessage | TrackingDataMessage | QuaternionTrackingMessage):
            return [self._transform(pose) for pose in self._poses.update(received)]
        if isinstance(message, StringMessage | StatusMessage | CommandMessage | SensorMessage):
            node = self._get("vtkMRMLTextNode", message.device, self._sender(received))
            node.SetText(_textOf(message))
            return [node]
        if isinstance(message, PointMessage):
            return [self._points(message, self._sender(received))]
        if isinstance(message, TrajectoryMessage):
            return self._plan(message, self._sender(received))
        if isinstance(message, PolyDataMessage):
            node = self._get("vtkMRMLModelNode", message.device, self._sender(received))
            node.SetAndObservePolyData(polyDataOf(message))
            return [node]
        return []

    def _volume(self, message: ImageMessage, received: Received) -> Any:
        image = image_from_message(message, self.profile, received)
        kind = "vtkMRMLScalarVolumeNode" if image.array.ndim == 3 else "vtkMRMLVectorVolumeNode"
        node = self._get(kind, message.device, self._sender(received))
        node.SetIJKToRASMatrix(_vtkMatrix(image.ras_from_ijk))
        node.SetAndObserveImageData(_vtkImage(image.array))
        return node

    def _affine(self, message: TransformMessage, received: Received) -> Any:
        """A peer that also sends scalings: shown as it is, and a tool only when it is rigid."""
        try:
            return self._transform(self._poses.update(received)[0])
        except DataError as error:
            node = self._get("vtkMRMLLinearTransformNode", message.device, self._sender(received))
            lps = self.profile.pose_coordinate == "LPS"
            node.SetMatrixTransformToParent(_vtkMatrix(ras_from_lps_matrix(message.matrix) if lps else message.matrix))
            _setAttribute(node, "UnusableBecause", f"no tool: {error}")
            return node

    def _transform(self, pose: Pose) -> Any:
        node = self._get("vtkMRMLLinearTransformNode", pose.tool)
        # A tool that its tracker does not see keeps its last place and is marked by refresh().
        if pose.valid:
            node.SetMatrixTransformToParent(_vtkMatrix(pose.ras_from_tool))
        return node

    def _points(self, message: PointMessage, sender: int) -> Any:
        node = self._get("vtkMRMLMarkupsFiducialNode", message.device, sender)
        node.RemoveAllControlPoints()
        for point in points_from_message(message, self.profile):
            node.AddControlPoint(vtk.vtkVector3d(*point.position_mm), point.name)
        return node

    def _plan(self, message: TrajectoryMessage, sender: int) -> list[Any]:
        """A line for each trajectory, also for those that share a name or have none."""
        lines: dict[str, Any] = {}
        for path in trajectories_from_message(message, self.profile):
            name = path.name or message.device
            number = sum(1 for known in lines if known == name or known.startswith(f"{name} ("))
            name = name if number == 0 else f"{name} ({number + 1})"
            lines[name] = self._line(name, path, sender)
        for gone in self._plans.get((message.device, sender), set()) - lines.keys():
            node = self.node("vtkMRMLMarkupsLineNode", gone, sender)
            if node is not None:
                self.scene.RemoveNode(node)
        self._plans[message.device, sender] = set(lines)
        return list(lines.values())

    def _line(self, name: str, path: Trajectory, sender: int) -> Any:
        """An end that the trajectory does not have is no place: it is not drawn."""
        node = self._get("vtkMRMLMarkupsLineNode", name, sender)
        node.RemoveAllControlPoints()
        if path.kind != TARGET_ONLY:
            node.AddControlPoint(vtk.vtkVector3d(*path.entry_mm), "entry")
        if path.kind != ENTRY_ONLY:
            node.AddControlPoint(vtk.vtkVector3d(*path.target_mm), "target")
        return node

    def _sender(self, received: Received) -> int:
        """Which of the senders of this device it is.

        One that comes anew, as a peer under another port does, takes the place of one that has left; beside those that
        are connected it gets nodes of its own, or one image would stand where the other is meant.
        """
        kind, device, peer = received.message.type_name, received.message.device, received.peer
        senders = self._senders.setdefault((kind, device), [])
        if peer in senders:
            return senders.index(peer)
        connected = {address for endpoint in self._endpoints for address in endpoint.peers}
        left = next((place for place, other in enumerate(senders) if other not in connected), None)
        if left is not None:
            senders[left] = peer
            return left
        senders.append(peer)
        if len(senders) > 1:
            self.problems.append(
                f"{kind} '{device}' comes from {' and '.join(senders)}: each has a node of its own; rename one of them"
            )
        return len(senders) - 1

    def _get(self, className: str, name: str, sender: int = 0) -> Any:
        node = self.node(className, name, sender)
        if node is None:
            label = name or "device"
            if self.scene.GetFirstNodeByName(label) is not None:
                label = self.scene.GenerateUniqueName(label)
            node = self.scene.AddNewNodeByClass(className, label)
            self._nodes[className, name, sender] = node.GetID()
        return node

    def _describe(self, node: Any, received: Received) -> None:
        message, latency, offset = received.message, received.latency_s, received.clock_offset_s
        _setAttribute(node, "Name", message.device)
        _setAttribute(node, "Type", message.type_name)
        _setAttribute(node, "Peer", received.peer)
        _setAttribute(node, "Profile", self.profile.name)
        _setAttribute(node, "Frame", "RAS")
        _setAttribute(node, "ReceivedUtcS", f"{received.received_utc_s:.6f}")
        _setAttribute(node, "SentUtcS", "" if received.sent_utc_s is None else f"{received.sent_utc_s:.6f}")
        _setAttribute(node, "TimeStampFault", received.time.fault)
        _setAttribute(node, "LatencyS", "" if latency is None else f"{latency:.6f}")
        _setAttribute(node, "ClockOffsetS", "" if offset is None else f"{offset:.6f}")
        for key, value in message.metadata.items():
            _setAttribute(node, f"Metadata.{key}", value)


class TransformNodeSource:
    """The pose of any linear transform node, such as one of Slicer's OpenIGTLinkIF, with its age.

    A connector does not tell when its message came or was sent, so the age counts from the last change of the node: a
    tool that is held perfectly still looks stale. Main thread only; :meth:`close` when done.
    """

    def __init__(
        self, node: Any, tool: str = "", staleAfterS: float = POSE_STALE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._node, self._tool, self._staleAfterS, self._clock = node, tool or node.GetName(), staleAfterS, clock
        self._changedS = self._clock()
        self._tag = node.AddObserver(slicer.vtkMRMLTransformNode.TransformModifiedEvent, self._changed)

    def state(self) -> PoseState:
        """The pose now. Raises DataError when the node does not hold a rigid motion."""
        now = self._clock()
        age = now - self._changedS
        matrix = vtk.vtkMatrix4x4()
        self._node.GetMatrixTransformToWorld(matrix)
        pose = Pose(arrayOf(matrix), self._tool, self._changedS, time.time() - age)
        stale = f"'{self._tool}' has not moved on for {age:.2f} s" if age > self._staleAfterS else ""
        return PoseState(pose, age, stale)

    def close(self) -> None:
        """Stop watching the node."""
        self._node.RemoveObserver(self._tag)

    def _changed(self, _caller: Any, _event: str) -> None:
        self._changedS = self._clock()


def imageFromNode(node: Any) -> Image:
    """Image of any scalar volume node, such as one of Slicer's OpenIGTLinkIF; voxels copied. Raises DataError."""
    data = node.GetImageData()
    if data is None or data.GetPointData().GetScalars() is None:
        raise DataError(
            f"the volume '{node.GetName()}' is empty: choose another, or wait until its device has sent one"
        )
    if node.GetParentTransformNode() is not None:
        raise DataError(f"the volume '{node.GetName()}' hangs under a transform: harden it, or choose another")
    scalars = vtk_to_numpy(data.GetPointData().GetScalars())
    i, j, k = data.GetDimensions()
    shape = (k, j, i) if scalars.ndim == 1 else (k, j, i, scalars.shape[1])
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return Image(scalars.reshape(shape).copy(), arrayOf(matrix), name=node.GetName())


def polyDataOf(message: PolyDataMessage) -> Any:
    """vtkPolyData of a POLYDATA message, copied."""
    result = vtk.vtkPolyData()
    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(native(message.points), deep=True))
    result.SetPoints(points)
    for section, setter in _CELLS.items():
        cells = message.cells(section)
        if cells:
            lengths = [len(cell) for cell in cells]
            offsets = numpy_to_vtkIdTypeArray(np.cumsum([0, *lengths]).astype(np.int64), deep=True)
            indices = numpy_to_vtkIdTypeArray(np.concatenate(cells).astype(np.int64), deep=True)
            array = vtk.vtkCellArray()
            array.SetData(offsets, indices)
            getattr(result, setter)(array)
    for attribute in message.attributes:
        values = numpy_to_vtk(native(attribute.values), deep=True)
        values.SetName(attribute.name)
        of = result.GetCellData() if attribute.kind & 0x10 else result.GetPointData()
        of.AddArray(values)
    return result


def arrayOf(matrix: Any) -> npt.NDArray[np.float64]:
    """vtkMatrix4x4 to a (4, 4) array."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _vtkMatrix(matrix: npt.NDArray[np.float64]) -> Any:
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(matrix.ravel().tolist())
    return result


def _vtkImage(array: AnyArray) -> Any:
    k, j, i = array.shape[:3]
    components = array.shape[3] if array.ndim == 4 else 1
    result = vtk.vtkImageData()
    result.SetDimensions(i, j, k)
    result.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).reshape(-1, components), deep=True))
    return result


def _parts(received: Received) -> list[Received]:
    """A message, or each of those that a BIND holds."""
    if not isinstance(received.message, BindMessage):
        return [received]
    children = (replace(received, message=child) for child in received.message.children)
    return [part for child in children for part in _parts(child)]


def _isRawData(message: ImageMessage) -> bool:
    return "ky" in message.metadata or np.iscomplexobj(message.array)


def _textOf(message: Message) -> str:
    if isinstance(message, StatusMessage):
        return f"{message.meaning}: {message.said}" if message.text else message.meaning
    if isinstance(message, SensorMessage):
        return " ".join(f"{value:.9g}" for value in message.values)
    return message.text if isinstance(message, StringMessage | CommandMessage) else ""


def _setAttribute(node: Any, key: str, value: str) -> None:
    """Only what changes is written: every write tells all observers of the node."""
    if _attribute(node, key) != value:
        node.SetAttribute(ATTRIBUTE + key, value)


def _attribute(node: Any, key: str) -> str | None:
    value = node.GetAttribute(ATTRIBUTE + key)
    return None if value is None else str(value)
