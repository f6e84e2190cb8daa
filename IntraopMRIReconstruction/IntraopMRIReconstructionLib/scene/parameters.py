"""Choices of the reconstruction panel, saved with the scene. Sockets, frames and results are never in here."""

from enum import Enum
from pathlib import Path
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class Source(Enum):
    """Where raw data come from."""

    SCANNER = 1
    FILE = 2

    def label(self) -> str:
        """Name for a person."""
        return {Source.SCANNER: _("Scanner (OpenIGTLink)"), Source.FILE: _("File (ISMRMRD)")}[self]


class Method(Enum):
    """How raw data become a volume; the value is the name that the library knows."""

    AUTO = "auto"
    FFT = "fft"
    HOMODYNE = "homodyne"
    POCS = "pocs"
    GRAPPA = "grappa"
    SENSE = "sense"
    CG_SENSE = "cg-sense"
    L1_WAVELET = "l1-wavelet"
    TV = "tv"

    def label(self) -> str:
        """Name for a person."""
        return _("Automatic") if self is Method.AUTO else self.value


@parameterNodeWrapper
class ReconstructionParameters:
    """What a person chose in the reconstruction panel."""

    source: Source = Source.SCANNER
    host: str = "127.0.0.1"
    port: Annotated[int, WithinRange(1, 65535)] = 18944
    recording: Path
    method: Method = Method.AUTO
    iterations: Annotated[int, WithinRange(1, 200)] = 30
    livePreview: bool = True
    outputVolume: vtkMRMLScalarVolumeNode
    comparisonVolume: vtkMRMLScalarVolumeNode
    blend: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
