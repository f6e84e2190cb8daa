"""Offers the anatomy of the simulated theatre and simulated raw data in Slicer's Sample Data module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

CATEGORY = "IntraopMRI"
#: The template as the nilearn project ships it; fixed by tag and digest.
TEMPLATE_URL = (
    "https://raw.githubusercontent.com/nilearn/nilearn/0.11.1/nilearn/datasets/data/"
    "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
)
TEMPLATE_SHA256 = "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6"


#: Name in the Sample Data module, and of the example that is simulated.
SIMULATED = {
    "SimulatedRadialScan": "radial",
    "SimulatedLiveRadialScan": "radial-live",
    "SimulatedInterleavedScan": "interleaved-live",
    "SimulatedSpiralScan": "spiral",
    "SimulatedEPI": "epi",
    "SimulatedEPIOppositeBlips": "epi-opposite-blips",
    "SimulatedMultiEchoScan": "multi-echo",
    "SimulatedThermometry": "thermometry",
    "SimulatedSemacScan": "semac",
}


def register(thumbnail: str) -> None:
    """Add the template to the Sample Data module. ``thumbnail``: path of a PNG file, about 260 x 280."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="SimulatedTheatreHead",
        thumbnailFileName=thumbnail,
        uris=TEMPLATE_URL,
        fileNames="SimulatedTheatreHead.nii.gz",
        checksums="SHA256:" + TEMPLATE_SHA256,
        nodeNames="SimulatedTheatreHead",
    )
    for name in SIMULATED:
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY, sampleName=name, thumbnailFileName=thumbnail, customDownloader=_simulate
        )


def _simulate(source: Any) -> None:
    """Write the example's ISMRMRD file, unless it is there, and choose it in the reconstruction module."""
    from ..errors import IntraopError
    from ..simulate.raw_scans import write_examples
    from .panel import ensurePackages
    from .parameters import Source

    name = SIMULATED[source.sampleName]
    folder = Path(slicer.app.temporaryPath) / "IntraopMRI"
    path = folder / f"{name}.h5"
    try:
        ensurePackages("IntraopMRIReconstruction")
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_examples(folder, (name,))
    except (IntraopError, OSError) as error:
        slicer.util.errorDisplay(str(error))
        return
    slicer.util.selectModule("IntraopMRIReconstruction")
    parameters = slicer.util.getModuleLogic("IntraopMRIReconstruction").getParameterNode()
    parameters.source, parameters.recording = Source.FILE, path
