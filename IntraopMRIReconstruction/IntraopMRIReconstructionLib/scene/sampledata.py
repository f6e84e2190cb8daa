"""Offers the anatomy of the simulated theatre in Slicer's Sample Data module."""

CATEGORY = "IntraopMRI"
#: The template as the nilearn project ships it; fixed by tag and digest.
TEMPLATE_URL = (
    "https://raw.githubusercontent.com/nilearn/nilearn/0.11.1/nilearn/datasets/data/"
    "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
)
TEMPLATE_SHA256 = "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6"


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
