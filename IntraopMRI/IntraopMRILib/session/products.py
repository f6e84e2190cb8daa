"""What becomes of a scan in a session: raw data go through the one door of the reconstruction module.

What comes out is a picture of the patient, which is registered, or a map of degrees or Hz, never taken for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from IntraopMRIReconstructionLib.data import Image, Progress, assumed_geometry
from IntraopMRIReconstructionLib.errors import ReconstructionError, SessionError
from IntraopMRIReconstructionLib.reconstruct.corrections import BLIPS, OPPOSITE, Corrections
from IntraopMRIReconstructionLib.reconstruct.live import LiveScan
from IntraopMRIReconstructionLib.reconstruct.products import Wanted, make
from IntraopMRIReconstructionLib.reconstruct.quantity_image import UNIT
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction

from .updates import MapReady

#: What is said of EPI whose field nobody has put right.
DISTORTED = "the picture is displaced along its phase encoding where the field is uneven: do not measure on it; "


class Products:
    """Makes what the header of each scan says that it is for; keeps the last EPI scan, which its opposite corrects."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        #: The last EPI image whose distortion is in it, and which way its blips go.
        self._opposable: tuple[str, Image] | None = None

    def made(self, live: LiveScan, progress: Progress) -> Reconstruction:
        """What a whole scan gives. Raises ReconstructionError when it gives nothing, Cancelled when told, SessionError
        when nobody knows how it lies in the patient."""
        check_placed(live.name, live.encoding.metadata)
        kept = live.calibrations
        if live.encoding.trajectory != "epi":
            return make(live.collector, Wanted(), progress, self._threads, kept)
        blips, before = live.encoding.metadata.get(BLIPS, ""), self._opposable
        self._opposable = None
        plain = make(live.collector, Wanted(), progress, self._threads, kept)
        if blips not in OPPOSITE:
            return _warned(plain, DISTORTED + "its header does not name which way the blips go, so none corrects it")
        if before is None or before[0] != OPPOSITE[blips]:
            self._opposable = blips, plain.image
            return _warned(plain, DISTORTED + "a scan with opposite blips puts it right")
        try:
            return make(
                live.collector, Wanted(corrections=Corrections(opposed=before[1])), progress, self._threads, kept
            )
        except ReconstructionError as error:
            self._opposable = blips, plain.image
            return _warned(plain, f"{DISTORTED}{error}")


def check_placed(name: str, metadata: Mapping[str, str]) -> None:
    """Raise SessionError for a scan whose place in the patient was assumed and is in no header."""
    if assumed := assumed_geometry(metadata):
        raise SessionError(
            f"where '{name}' lies in the patient is {assumed}: it may be mirrored, and nothing is registered to it or "
            "measured on it; choose a scan whose header says how it lies"
        )


def is_map(image: Image) -> bool:
    """Whether the voxels of an image are a quantity with a unit and no picture of the patient."""
    return bool(image.metadata.get(UNIT))


def map_of(image: Image, made: Reconstruction | None) -> MapReady | None:
    """The maps among what a scan gave: ``image`` itself or what was ``made`` beside it; None when there are none."""
    beside = () if made is None else tuple(made.maps.values())
    maps = tuple(each for each in (image, *beside) if is_map(each))
    # A map lies over the picture of the same moment.
    pictures = (each for each in (image, *beside) if not is_map(each))
    return MapReady(maps, next(pictures, None)) if maps else None


def _warned(made: Reconstruction, text: str) -> Reconstruction:
    return replace(made, warnings=(*made.warnings, text))
