"""A live stream of 2D slices through the operating field, sent through pyigtl as IMAGE ``Live2D`` (LPS, its way)."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

from ..data import Image
from ..errors import DataError
from ..geometry import RAS_FROM_LPS, apply, invert
from .case_files import Stop, read_pointer, read_scan, scans_of
from .grids import stream
from .head import WHITE
from .peers import pyigtl_server, stream_to_peer
from .process import parser, run
from .rendering import rician

NAME = "live"
DEVICE = "Live2D"
#: The slices go up and down this far about the field (mm), once in so many seconds.
SWEEP_MM, SWEEP_S = 12.0, 8.0
NOISE = 0.05


def slice_of(image: Image, k: int, rng: np.random.Generator) -> Image:
    """Slice ``k`` (clamped to the volume) with noise, int16, shape (1, j, i), where it lies in space."""
    k = int(np.clip(k, 0, image.array.shape[0] - 1))
    pixels = rician(image.array[k : k + 1].astype(np.float32), NOISE * WHITE, rng)
    matrix = image.ras_from_ijk.copy()
    matrix[:3, 3] = apply(image.ras_from_ijk, (0, 0, k))
    return Image(np.round(pixels).astype(np.int16), matrix, name=DEVICE)


def slice_index(image: Image, centre_ras_mm: npt.ArrayLike, time_s: float) -> int:
    """Which slice is shown at a time: a sweep about the field's centre."""
    middle = apply(invert(image.ras_from_ijk), centre_ras_mm)[2]
    sweep = SWEEP_MM * np.sin(2 * np.pi * time_s / SWEEP_S)
    return round(float(middle + sweep / image.spacing_mm[2]))


def main(argv: list[str] | None = None) -> None:
    """Stream until SIGTERM, or the end of standard input with ``--with-parent``."""
    arguments = parser("A live 2D slice stream that speaks OpenIGTLink through pyigtl.")
    arguments.add_argument("--rate", type=float, default=5.0, help="slices per second")
    chosen = arguments.parse_args(argv)
    names = scans_of(chosen.case)
    if not names:
        raise DataError(f"{chosen.case} holds no scans to show; make a case with write_case first")
    image = read_scan(chosen.case, names[min(1, len(names) - 1)])
    stops: list[Stop] = []
    if len(names) > 1:
        stops, _ = read_pointer(chosen.case)
    j, i = image.array.shape[1:3]
    centre = stops[-1].tip_ras_mm if stops else apply(image.ras_from_ijk, (i / 2, j / 2, image.array.shape[0] / 2))
    rng = stream(0, "live")
    with pyigtl_server(NAME, chosen.port, chosen.with_parent) as (server, stop):
        import pyigtl

        def messages(time_s: float) -> list[object]:
            frame = slice_of(image, slice_index(image, centre, time_s), rng)
            lps_from_ijk = RAS_FROM_LPS @ frame.ras_from_ijk
            return [pyigtl.ImageMessage(frame.array, lps_from_ijk, "lps", device_name=DEVICE)]

        stream_to_peer(server, stop, chosen.rate, messages)


if __name__ == "__main__":
    sys.exit(run(main))
