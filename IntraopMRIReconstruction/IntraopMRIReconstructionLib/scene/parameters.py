"""Choices of the reconstruction panel, saved with the scene. Sockets, frames and results are never in here."""

from enum import Enum
from pathlib import Path
from typing import Annotated

from slicer import vtkMRMLMarkupsFiducialNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class Source(Enum):
    """Where raw data come from."""

    SCANNER = 1
    FILE = 2
    MRD = 3

    def label(self) -> str:
        """Name for a person."""
        return {
            Source.SCANNER: _("Scanner (OpenIGTLink)"),
            Source.FILE: _("File (ISMRMRD)"),
            Source.MRD: _("Scanner (MRD stream)"),
        }[self]


class Peer(Enum):
    """Program at the other end, where its words mean something else than they say; the value is its profile's name."""

    AS_SENT = "as sent"
    OPENIGTLINKIO = "OpenIGTLinkIO"
    MRIGTLBRIDGE = "mrigtlbridge"
    PLUS = "Plus"
    PYIGTL = "pyigtl"
    PYIGTL_RAS = "pyigtl with RAS matrices"
    POSES_LPS = "poses in LPS"
    MR_ROBOT = "MR robot"

    def label(self) -> str:
        """Name for a person."""
        return {Peer.AS_SENT: _("As sent"), Peer.POSES_LPS: _("Poses in LPS")}.get(self, self.value)


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
    GRIDDING = "gridding"
    ITERATIVE_SENSE = "iterative-sense"

    def label(self) -> str:
        """Name for a person."""
        return _("Automatic") if self is Method.AUTO else self.value


class Make(Enum):
    """What is made of a scan; the value is the name that the library knows."""

    IMAGE = "image"
    FIELD_MAP = "field map"
    TEMPERATURE = "temperature"
    SPECTRAL_BINS = "spectral bins"
    SEMAC = "SEMAC"

    def label(self) -> str:
        """Name for a person."""
        return {
            Make.IMAGE: _("Image"),
            Make.FIELD_MAP: _("B0 field map (Hz)"),
            Make.TEMPERATURE: _("Temperature change (°C)"),
            Make.SPECTRAL_BINS: _("Spectral bins together"),
            Make.SEMAC: _("Slices in place (SEMAC)"),
        }[self]


class Ghost(Enum):
    """Where the difference between forward and backward lines of EPI is taken from."""

    AUTO = "auto"
    NAVIGATORS = "navigators"
    ENTROPY = "entropy"
    NONE = "none"

    def label(self) -> str:
        """Name for a person."""
        return {
            Ghost.AUTO: _("Automatic"),
            Ghost.NAVIGATORS: _("Navigators"),
            Ghost.ENTROPY: _("Sharpest image"),
            Ghost.NONE: _("Leave the ghost"),
        }[self]


class Coils(Enum):
    """How method fft puts the images of the coils together; the value is the name that the library knows."""

    AUTO = "rss"
    WALSH = "walsh"
    INATI = "inati"
    ESPIRIT = "espirit"

    def label(self) -> str:
        """Name for a person."""
        return {
            Coils.AUTO: _("Automatic (sum of squares)"),
            Coils.WALSH: _("Walsh"),
            Coils.INATI: _("Inati"),
            Coils.ESPIRIT: _("ESPIRiT"),
        }[self]


class Completion(Enum):
    """How a side of k-space that was not acquired is completed; the value is the name that the library knows."""

    AUTO = "auto"
    HOMODYNE = "homodyne"
    POCS = "pocs"
    NONE = "none"

    def label(self) -> str:
        """Name for a person."""
        return {
            Completion.AUTO: _("Automatic"),
            Completion.HOMODYNE: _("Homodyne"),
            Completion.POCS: _("POCS"),
            Completion.NONE: _("Leave it out"),
        }[self]


#: Stands for the weight that a method takes by itself: one step below the least.
WEIGHT_STEP = 0.0005
AUTOMATIC_WEIGHT = -WEIGHT_STEP


class Brightness(Enum):
    """How uneven brightness of surface coils is evened out."""

    NONE = "none"
    QUICK = "quick"
    N4 = "n4"

    def label(self) -> str:
        """Name for a person."""
        return {
            Brightness.NONE: _("As measured"),
            Brightness.QUICK: _("Even, quickly"),
            Brightness.N4: _("Even, by N4"),
        }[self]


@parameterNodeWrapper
class ReconstructionParameters:
    """What a person chose in the reconstruction panel."""

    source: Source = Source.SCANNER
    host: str = "127.0.0.1"
    port: Annotated[int, WithinRange(1, 65535)] = 18944
    peer: Peer = Peer.AS_SENT
    listenHost: str = "127.0.0.1"
    listenPort: Annotated[int, WithinRange(1, 65535)] = 9002
    recording: Path
    make: Make = Make.IMAGE
    method: Method = Method.AUTO
    iterations: Annotated[int, WithinRange(0, 200)] = 0
    weight: Annotated[float, WithinRange(AUTOMATIC_WEIGHT, 1.0)] = AUTOMATIC_WEIGHT
    coils: Coils = Coils.AUTO
    completion: Completion = Completion.AUTO
    snrUnits: bool = False
    livePreview: bool = True
    frame: Annotated[int, WithinRange(-1, 65535)] = -1
    echo: Annotated[int, WithinRange(-1, 65535)] = -1
    ghost: Ghost = Ghost.AUTO
    delays: bool = True
    deblurView: bool = True
    referenceFrame: Annotated[int, WithinRange(0, 65535)] = 0
    heatedPlace: vtkMRMLMarkupsFiducialNode
    heatedRadius: Annotated[float, WithinRange(3.0, 100.0)] = 20.0
    heatBaseline: Annotated[float, WithinRange(15.0, 42.0)] = 37.0
    drift: bool = True
    referenceless: bool = False
    brightness: Brightness = Brightness.NONE
    gradientTable: Path
    opposedVolume: vtkMRMLScalarVolumeNode
    outputVolume: vtkMRMLScalarVolumeNode
    comparisonVolume: vtkMRMLScalarVolumeNode
    blend: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
