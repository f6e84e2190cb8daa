"""Choices of the reconstruction panel, saved with the scene. Sockets, frames and results are never in here."""

from pathlib import Path
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

SOURCES = ["scanner", "recording"]
METHODS = ["automatic", "direct", "SENSE", "GRAPPA", "compressed sensing", "NUFFT"]


@parameterNodeWrapper
class ReconstructionParameters:
    """What a person chose in the reconstruction panel."""

    source: Annotated[str, Choice(SOURCES)] = "scanner"
    host: str = "127.0.0.1"
    port: Annotated[int, WithinRange(1, 65535)] = 18944
    recording: Path
    method: Annotated[str, Choice(METHODS)] = "automatic"
    iterations: Annotated[int, WithinRange(1, 200)] = 30
    livePreview: bool = True
    outputVolume: vtkMRMLScalarVolumeNode
    comparisonVolume: vtkMRMLScalarVolumeNode
    blend: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
