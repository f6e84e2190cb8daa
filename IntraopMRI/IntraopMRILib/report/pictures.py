"""Small pictures of a piece of the residual for the report: three planes through it, its outline on the scan."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy import ndimage

from .parts import Picture

Pixels = npt.NDArray[np.uint8]

#: Half the side of a picture: room for bearings around a small piece, and around a larger one.
HALF_MM, ROOM_MM = 18.0, 8.0
#: Pixels along the side of one plane, and between two.
SIDE, GAP = 220, 4
#: Directions to the right and up of axial, coronal and sagittal, RAS: as radiologists look at them.
PLANES = (
    ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    ((-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
)
RED, BLUE, WHITE, BAR_MM = (255, 45, 45), (86, 180, 233), (221, 227, 234), 10.0
#: Where an outline of dashes is drawn: without colours it still is no residual.
DASHES = np.indices((SIDE, SIDE)).sum(axis=0) // 6 % 2 == 0
#: Darkest and brightest part of the voxels around, %.
WINDOW = (1.0, 99.5)


def piece_picture(number: int, scan: Image, label: Image, counts: bool) -> Picture:
    """Axial, coronal and sagittal through the middle of a piece, beside one another, as PNG.

    ``label``: the piece, 0 outside, in the frame of ``scan``. ``counts``: whether it is residual: its outline is red.
    """
    points = apply(label.ras_from_ijk, np.argwhere(label.array)[:, ::-1].astype(np.float64))
    middle = (points.min(axis=0) + points.max(axis=0)) / 2.0
    half = max(HALF_MM, float(np.abs(points - middle).max()) + ROOM_MM)
    planes = []
    for right, up in PLANES:
        steps = (np.arange(SIDE) + 0.5) / SIDE * 2.0 - 1.0
        places = (
            middle + half * (steps[None, :, None] * np.array(right) - steps[:, None, None] * np.array(up))
        ).reshape(-1, 3)
        values, inside = _sampled(scan, places), _sampled(label, places) > 0.5
        planes.append((values.reshape(SIDE, SIDE), inside.reshape(SIDE, SIDE)))
    low, high = np.percentile([values for values, _ in planes], WINDOW)
    strip: Pixels = np.zeros((SIDE, 3 * SIDE + 2 * GAP, 3), dtype=np.uint8)
    for index, (values, inside) in enumerate(planes):
        tile = strip[:, index * (SIDE + GAP) :][:, :SIDE]
        tile[:] = (255.0 * np.clip((values - low) / max(high - low, 1e-9), 0.0, 1.0)).astype(np.uint8)[..., None]
        edge = inside & ~ndimage.binary_erosion(inside, iterations=2)
        tile[edge if counts else edge & DASHES] = RED if counts else BLUE
    bar = round(BAR_MM / (2.0 * half) * SIDE)
    strip[-10:-6, -8 - bar : -8] = WHITE
    words = "outline red" if counts else "outline blue and dashed, not counted"
    return Picture(_png(strip), f"Piece {number}: axial, coronal and sagittal, {words}", number)


def _sampled(image: Image, places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Values at RAS points (n, 3), 0 outside; only the part of the image around them is touched."""
    index = apply(invert(image.ras_from_ijk), places)[:, ::-1]
    size = np.array(image.array.shape[:3])
    low = np.clip(np.floor(index.min(axis=0)).astype(int) - 1, 0, size)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 2, low, size)
    part = image.array[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
    if not part.size:
        return np.zeros(len(places))
    values = ndimage.map_coordinates(np.asarray(part, dtype=np.float32), (index - low).T, order=1, mode="constant")
    return np.asarray(values, dtype=np.float64)


def _png(pixels: Pixels) -> bytes:
    """Red, green, blue (height, width, 3) as a PNG file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "piece.png"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), str(file))
        return file.read_bytes()
