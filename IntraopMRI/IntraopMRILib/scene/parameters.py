"""Choices of the session panel, saved with the scene. Sockets, frames and results are never in here.

There is no field that says 'registered': a loaded scene starts unregistered until a person confirms again.
"""

from typing import Annotated

from slicer import vtkMRMLMarkupsFiducialNode, vtkMRMLMarkupsLineNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

PHASES = ["case", "connect", "register", "scan", "navigate", "decide"]
COMPARISONS = ["blend", "checkerboard", "flicker", "side by side"]
RESLICES = ["axial", "in plane", "probe's eye"]
DECISIONS = ["undecided", "resect further", "close", "scan again"]


@parameterNodeWrapper
class SessionParameters:
    """What the team chose, page by page."""

    phase: Annotated[str, Choice(PHASES)] = "case"

    patientName: str
    patientId: str
    procedureName: str
    preopVolume: vtkMRMLScalarVolumeNode
    tumourSegmentation: vtkMRMLSegmentationNode
    tumourSegment: str
    riskSegmentation: vtkMRMLSegmentationNode
    plannedTarget: vtkMRMLMarkupsFiducialNode
    plannedImplant: vtkMRMLMarkupsLineNode

    scannerHost: str = "127.0.0.1"
    scannerPort: Annotated[int, WithinRange(1, 65535)] = 18944
    trackerHost: str = "127.0.0.1"
    trackerPort: Annotated[int, WithinRange(1, 65535)] = 18945
    poseStaleAfterS: Annotated[float, WithinRange(0.1, 10.0)] = 0.5
    imageOldAfterMin: Annotated[float, WithinRange(1.0, 240.0)] = 30.0

    plannedLandmarks: vtkMRMLMarkupsFiducialNode
    touchedLandmarks: vtkMRMLMarkupsFiducialNode
    surfaceTrace: vtkMRMLMarkupsFiducialNode

    protocol: str
    intraopVolume: vtkMRMLScalarVolumeNode
    comparison: Annotated[str, Choice(COMPARISONS)] = "blend"
    blend: Annotated[float, WithinRange(0.0, 1.0)] = 0.5

    reslice: Annotated[str, Choice(RESLICES)] = "axial"
    riskAlarmMm: Annotated[float, WithinRange(0.5, 30.0)] = 5.0
    soundAlarm: bool = True
    residualOpacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.6

    decision: Annotated[str, Choice(DECISIONS)] = "undecided"
    surgeon: str
    comment: str
