"""Choices of the session panel, saved with the scene. Sockets, frames and results are never in here.

There is no field that says 'registered' or 'carried over': a loaded scene starts with neither until a person confirms
again.
"""

from enum import Enum
from typing import Annotated

from IntraopMRIReconstructionLib.scene.parameters import Peer as Dialect
from slicer import (
    vtkMRMLLinearTransformNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLMarkupsLineNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
)
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper, parameterPack


class Phase(Enum):
    """Pages of the panel, in the order in which the team works."""

    CASE = 1
    CONNECT = 2
    REGISTER = 3
    SCAN = 4
    NAVIGATE = 5
    DECIDE = 6


class Metal(Enum):
    """What an implant is made of: the size of its void follows from it."""

    UNKNOWN = 1
    TITANIUM = 2
    COBALT_CHROMIUM = 3

    def label(self) -> str:
        """Name for a person."""
        return {
            Metal.UNKNOWN: _("Metal not known"),
            Metal.TITANIUM: _("Titanium"),
            Metal.COBALT_CHROMIUM: _("Cobalt-chromium"),
        }[self]

    @property
    def key(self) -> str:
        """As the assessment calls it; empty when it is not known."""
        return "" if self is Metal.UNKNOWN else self.name.lower().replace("_", "-")

    @classmethod
    def ofSusceptibility(cls, ppm: float | None) -> "Metal":
        """The metal that a plan means by its susceptibility against tissue, ppm; unknown when it is no such metal's."""
        from ..assess.implant import METALS_PPM

        return next((metal for metal in cls if ppm is not None and METALS_PPM.get(metal.key) == ppm), cls.UNKNOWN)


class Comparison(Enum):
    """How the intraoperative volume is compared with the preoperative one."""

    BLEND = 1
    CHECKERBOARD = 2
    FLICKER = 3
    SIDE_BY_SIDE = 4

    def label(self) -> str:
        """Name for a person."""
        return {
            Comparison.BLEND: _("Blend"),
            Comparison.CHECKERBOARD: _("Checkerboard"),
            Comparison.FLICKER: _("Flicker"),
            Comparison.SIDE_BY_SIDE: _("Side by side"),
        }[self]


class Pair(Enum):
    """Which two volumes are compared."""

    BEFORE_NOW = 1
    RIGID_NOW = 2
    RIGID_CARRIED = 3

    def label(self) -> str:
        """Name for a person."""
        return {
            Pair.BEFORE_NOW: _("Before (carried over) and now"),
            Pair.RIGID_NOW: _("Before (rigid pose) and now"),
            Pair.RIGID_CARRIED: _("Rigid pose and carried over"),
        }[self]


class ShiftMap(Enum):
    """What is laid over the intraoperative volume in colours."""

    NONE = 1
    SHIFT = 2
    UNCERTAINTY = 3
    DISAGREEMENT = 4
    QUANTITY = 5

    def label(self) -> str:
        """Name for a person."""
        return {
            ShiftMap.NONE: _("Nothing"),
            ShiftMap.SHIFT: _("Brain shift"),
            ShiftMap.UNCERTAINTY: _("Uncertainty"),
            ShiftMap.DISAGREEMENT: _("Cross-check"),
            ShiftMap.QUANTITY: _("Temperature or field"),
        }[self]


class Reslice(Enum):
    """Planes that follow the pointer."""

    STANDARD = 1
    IN_PLANE = 2
    PROBES_EYE = 3

    def label(self) -> str:
        """Name for a person."""
        return {
            Reslice.STANDARD: _("Axial, coronal, sagittal through the tip"),
            Reslice.IN_PLANE: _("Along the pointer"),
            Reslice.PROBES_EYE: _("Probe's eye"),
        }[self]


class Decision(Enum):
    """What the team decides after the review."""

    UNDECIDED = 1
    RESECT_FURTHER = 2
    CLOSE = 3
    SCAN_AGAIN = 4

    def label(self) -> str:
        """Name for a person."""
        return {
            Decision.UNDECIDED: _("Not decided"),
            Decision.RESECT_FURTHER: _("Resect further"),
            Decision.CLOSE: _("Finish and close"),
            Decision.SCAN_AGAIN: _("Scan again"),
        }[self]


@parameterPack
class Peer:
    """Where a device listens, and whether it is part of the session."""

    used: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, WithinRange(1, 65535)] = 18944


@parameterPack
class RobotPeer:
    """The same of what few theatres have."""

    used: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, WithinRange(1, 65535)] = 18947


@parameterNodeWrapper
class SessionParameters:
    """What the team chose, page by page."""

    phase: Phase = Phase.CASE

    patientName: str
    patientId: str
    procedureName: str
    preopVolume: vtkMRMLScalarVolumeNode
    tumourSegmentation: vtkMRMLSegmentationNode
    riskSegmentation: vtkMRMLSegmentationNode
    plannedTarget: vtkMRMLMarkupsFiducialNode
    plannedImplant: vtkMRMLMarkupsLineNode
    #: Whether all lines beside it in the data tree are planned implants too.
    implantFolder: bool = False
    plannedLandmarks: vtkMRMLMarkupsFiducialNode
    implantDiameterMm: Annotated[float, WithinRange(0.5, 20.0)] = 5.0
    implantMetal: Metal = Metal.UNKNOWN

    scanner: Peer
    tracker: Peer
    live: Peer
    robot: RobotPeer
    # Not in the packs: a scene that was saved without one of a pack's fields cannot be read.
    scannerDialect: Dialect = Dialect.AS_SENT
    trackerDialect: Dialect = Dialect.AS_SENT
    liveDialect: Dialect = Dialect.AS_SENT
    robotDialect: Dialect = Dialect.MR_ROBOT
    #: Name of the tracker's tool that is the pointer; empty for the first that is seen.
    pointerTool: str
    imageOldAfterMin: Annotated[float, WithinRange(1.0, 240.0)] = 30.0

    trackerReportsScannerFrame: bool = True
    #: JSON: tool name to ToolCalibration of panels/calibrate.py. Used only after a person has confirmed it.
    toolCalibrations: str

    protocol: str
    #: The volume that is offered as the next scan. What it is and when it was taken is written on the node.
    sceneScan: vtkMRMLScalarVolumeNode
    comparison: Comparison = Comparison.BLEND
    pair: Pair = Pair.BEFORE_NOW
    shiftMap: ShiftMap = ShiftMap.NONE
    shiftArrows: bool = False
    #: What was decided about planned things, as JSON, to be said again beside them: never a decision for another scan.
    carriedBefore: str
    blend: Annotated[float, WithinRange(0.0, 1.0)] = 0.5

    reslice: Reslice = Reslice.STANDARD
    followPointer: bool = True
    riskAlarmMm: Annotated[float, WithinRange(1.0, 30.0)] = 5.0
    soundAlarm: bool = True
    residualOpacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.6
    fillResidual: bool = True
    fillAtRisk: bool = False

    measureOutline: vtkMRMLSegmentationNode
    #: What non-enhancing tumour is proposed on, and how it looked before surgery.
    measureScan: vtkMRMLScalarVolumeNode
    measureFlair: vtkMRMLScalarVolumeNode
    heatedPlace: vtkMRMLMarkupsFiducialNode
    heatedRadius: Annotated[float, WithinRange(3.0, 100.0)] = 20.0
    heatBaseline: Annotated[float, WithinRange(15.0, 42.0)] = 37.0
    measurePoints: vtkMRMLMarkupsFiducialNode
    plannedCorrection: vtkMRMLLinearTransformNode

    decision: Decision = Decision.UNDECIDED
    surgeon: str
    comment: str

    archiveAddress: str
    archiveTitle: str
    ownTitle: str = "INTRAOPMRI"
    #: Where the archive calls back with its storage commitment; 0: it is not asked.
    commitmentPort: Annotated[int, WithinRange(0, 65535)] = 0
