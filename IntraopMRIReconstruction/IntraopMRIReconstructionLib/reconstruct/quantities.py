"""Numbers from several frames of one scan: field in Hz, temperature in degrees C, spectral bins beside metal.

Every frame is reconstructed with its phase and with the coil weights of the first, so that what is left between frames
is the object's. The numerics and their sources are in :mod:`.field_map`, :mod:`.thermometry` and :mod:`.metal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..data import Encoding, Image, Progress, no_progress
from ..errors import ReconstructionError
from ..geometry import apply
from .auto import Frame, Options, Phased, phased, reconstruct
from .field_map import field_map
from .metal import mavric
from .result import Parameter, Reconstruction, provenance_of, stepping
from .thermometry import (
    BODY_C,
    LETHAL_CEM43_MIN,
    PPM_PER_C,
    Heat,
    Thermometer,
    coldest,
    cooling_from,
    referenceless,
)
from .unmixing import Calibrations

Quantity = Literal["image", "field map", "temperature", "spectral bins"]

#: Entries of an image's metadata: what its voxels are, their unit, and what that means.
QUANTITY, UNIT, DEFINITION = "quantity", "unit", "definition"
#: Entry of a map of temperature in which tissue has cooled: the change from which that is certain.
COOLED_FROM = "cooled_from_c"
DEFINITIONS = {
    "temperature change": "temperature minus that of the reference frame, by the phase of water protons at "
    f"{PPM_PER_C:g} ppm/°C (Ishihara 1995; Rieke and Butts Pauly 2008)",
    "thermal dose (CEM43)": "equivalent minutes at 43 °C since the reference frame: a degree halves the time above, "
    f"and takes it down to a quarter below; {LETHAL_CEM43_MIN:g} min kill most tissues (Sapareto and Dewey 1984)",
    "off-resonance": "frequency of water minus that of the scanner",
}
#: Seconds from frame to frame, for the dose, when the frames carry no time of their own.
FRAME_INTERVAL_S = "frame_interval_s"
#: Centre frequencies of the contrasts of a multi-spectral scan, Hz, separated by spaces.
BIN_CENTRES_HZ = "bin_centres_hz"

Bool = npt.NDArray[np.bool_]


class Frames(Protocol):
    """A scan whose frames can be had; see :mod:`.collect`."""

    encoding: Encoding

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """The (contrast, repetition) pairs that have begun, sorted."""

    def kspace(self, contrast: int = 0, repetition: int = 0) -> Frame:
        """One frame."""


@dataclass(frozen=True)
class Heating:
    """How temperature is measured.

    ``reference``: repetition before heating. ``frame``: repetition that is shown, the last when None. ``spot_ras_mm``:
    the middle of what is heated, None when unknown; ``radius_mm``: beyond it nothing is heated. ``drift``: take the
    drift of the field away, by tissue beyond the radius; needs the spot. ``referenceless``: temperature within the
    radius from the shown frame alone; needs the spot. ``baseline_c``: temperature in the reference frame.
    """

    reference: int = 0
    frame: int | None = None
    spot_ras_mm: tuple[float, float, float] | None = None
    radius_mm: float = 20.0
    drift: bool = True
    referenceless: bool = False
    baseline_c: float = BODY_C


def missing_for(quantity: Quantity, encoding: Encoding) -> str:
    """What a scan lacks for a quantity, in words; "" when it has all that its header can promise."""
    times = encoding.echo_times_s
    if quantity == "field map":
        if encoding.contrasts < 2:
            return "a field map needs at least two echoes, the scan has one"
        if len(times) != encoding.contrasts:
            return f"a field map needs the time of each of {encoding.contrasts} echoes, the header has {len(times)}"
    if quantity == "temperature":
        if encoding.repetitions < 2:
            return "temperature needs a frame before heating and one after, the scan has one frame"
        if not times or not encoding.field_t:
            return "temperature needs the echo time and the field strength, which the header lacks"
    if quantity == "spectral bins":
        centres = encoding.metadata.get(BIN_CENTRES_HZ, "").split()
        if encoding.contrasts < 2 or len(centres) != encoding.contrasts:
            return "spectral bins need the centre frequency of each contrast, which the header lacks"
    return ""


def measured(
    scan: Frames,
    quantity: Quantity,
    method: str = "auto",
    options: Options | None = None,
    heating: Heating | None = None,
    progress: Progress = no_progress,
    threads: int = 2,
) -> Reconstruction:
    """A quantity of a scan as a volume whose metadata name its unit; NaN where it is not known.

    Raises ReconstructionError when the scan lacks what it needs, and Cancelled when ``progress`` returns False.
    """
    lacks = missing_for(quantity, scan.encoding)
    if lacks:
        raise ReconstructionError(lacks)
    makers = {"field map": _field_map, "spectral bins": _spectral}
    if quantity == "temperature":
        return _temperature(scan, heating or Heating(), method, options, progress, threads)
    return makers[quantity](scan, method, options, progress, threads)


class LiveThermometer:
    """Temperature frame by frame: give it each complete frame of one scan in the order of time."""

    def __init__(self, heating: Heating, method: str = "auto", options: Options | None = None) -> None:
        self._heating, self._method, self._options = heating, method, options
        self._calibrations = Calibrations(refresh_after_s=float("inf"))
        self._thermometer: Thermometer | None = None
        self._reference: Phased | None = None
        self._unheated: Bool | None = None
        self._count, self._drift_c = 0, 0.0

    def add(self, frame: Frame, progress: Progress = no_progress, threads: int = 2) -> Reconstruction:
        """Take in the next frame; the first is the reference. Raises ReconstructionError as :func:`measured`."""
        encoding, heating = frame.encoding, self._heating
        image = phased(frame, self._calibrations, self._method, progress, threads, self._options)
        time_s = self._time_s(frame)
        if self._thermometer is None or self._reference is None:
            if not encoding.field_t or not encoding.echo_times_s:
                raise ReconstructionError("temperature needs the echo time and the field strength in the header")
            heated = _heated(encoding, heating)
            if heated is not None and heating.drift:
                self._unheated = ~heated
            self._reference = image
            self._thermometer = Thermometer(
                image.array, encoding.field_t, encoding.echo_times_s[0], heating.baseline_c, self._unheated
            )
        heat = self._thermometer.add(image.array, time_s if time_s is not None else float(self._count))
        self._count += 1
        self._drift_c += heat.drift_c
        return self._wrapped(frame, image, heat, time_s is not None)

    def _time_s(self, frame: Frame) -> float | None:
        """When the frame was acquired, on the clock of the frames or by the header's interval."""
        interval = frame.encoding.metadata.get(FRAME_INTERVAL_S, "")
        try:
            each = float(interval)
        except ValueError:
            each = 0.0
        if each > 0:
            return frame.repetition * each
        return frame.acquired_utc_s

    def _wrapped(self, frame: Frame, image: Phased, heat: Heat, timed: bool) -> Reconstruction:
        assert self._thermometer is not None
        assert self._reference is not None
        encoding, heating = frame.encoding, self._heating
        change = heat.temperature_c - np.float32(heating.baseline_c)
        parameters: dict[str, Parameter] = {
            "reference_frame": heating.reference,
            "frame": frame.repetition,
            "field_t": float(encoding.field_t or 0),
            "echo_time_ms": 1000 * encoding.echo_times_s[0],
            "unambiguous_between_frames_c": round(self._thermometer.unambiguous_c, 1),
            "baseline_c": heating.baseline_c,
            "drift_removed_c": round(self._drift_c, 2) if self._unheated is not None else "not corrected",
        }
        if heat.noise_c is not None:
            parameters["noise_c"] = round(heat.noise_c, 2)
        warnings = ["fat does not shift with temperature: its voxels are wrong"]
        if self._unheated is None:
            warnings.append("the drift of the field is not corrected: mark where the tissue is heated")
        if not timed:
            warnings.append("the dose is not known: the scan does not say how long a frame takes")
        reason = f"phase against frame {heating.reference}"
        if heating.referenceless:
            heated = _heated(encoding, heating)
            if heated is None:
                raise ReconstructionError("referenceless thermometry needs the place that is heated: mark it")
            assert encoding.field_t is not None
            change = referenceless(image.array, heated, encoding.field_t, encoding.echo_times_s[0])
            reason = (
                f"phase within {heating.radius_mm:g} mm of the spot against the tissue around it, in this frame alone"
            )
            parameters["drift_removed_c"] = "not needed"
            warnings = [text for text in warnings if "drift" not in text]
        maps = {"magnitude": (np.abs(image.array), "", "magnitude")}
        if timed:
            maps["dose"] = (heat.dose_min, "min", "thermal dose (CEM43)")
        parameters |= dict(image.parameters)
        said: dict[str, str] = {}
        below = cooling_from(change, None if heating.referenceless else heat.noise_c)
        # A field that drifts, and is not corrected, moves all of the map: only what differs from it has cooled.
        drifted = float(np.nanmedian(change)) if not heating.referenceless and self._unheated is None else 0.0
        if (lowest := coldest(change, min(below, below + drifted))) is not None:
            parameters["coldest_c"] = round(lowest, 1)
            said = {COOLED_FROM: f"{below:.2f}"}
            warnings.append(
                f"tissue has cooled by up to {-lowest:.1f} °C (blue): ice gives no signal, so frozen tissue has no "
                "temperature, and the dose does not count cold"
            )
        return _result(
            frame, change, "temperature change", "°C", f"PRF thermometry ({image.method})",
            f"{reason}; images: {image.reason}", parameters, (*image.warnings, *warnings), maps, said,
        )  # fmt: skip


def _temperature(
    scan: Frames, heating: Heating, method: str, options: Options | None, progress: Progress, threads: int
) -> Reconstruction:
    known = [repetition for contrast, repetition in scan.frames if contrast == 0]
    last = known[-1] if heating.frame is None else heating.frame
    for name, value in (("reference frame", heating.reference), ("shown frame", last)):
        if value not in known:
            raise ReconstructionError(f"the {name} must be one of {known[0]}..{known[-1]}, got {value}")
    if last < heating.reference:
        raise ReconstructionError(f"the shown frame {last} must not be before the reference frame {heating.reference}")
    live = LiveThermometer(heating, method, options)
    chosen = [number for number in known if heating.reference <= number <= last]
    result: Reconstruction | None = None
    for order, number in enumerate(chosen):

        def part(fraction: float, what: str, order: int = order) -> bool:
            return progress((order + fraction) / len(chosen), f"frame {order + 1} of {len(chosen)}, {what}")

        result = live.add(scan.kspace(0, number), part, threads)
    assert result is not None
    return result


def _field_map(scan: Frames, method: str, options: Options | None, progress: Progress, threads: int) -> Reconstruction:
    encoding = scan.encoding
    calibrations = Calibrations(refresh_after_s=float("inf"))
    repetition = max(r for _, r in scan.frames)
    echoes: list[Phased] = []
    frames = [scan.kspace(contrast, repetition) for contrast in range(encoding.contrasts)]
    for number, frame in enumerate(frames):

        def part(fraction: float, what: str, number: int = number) -> bool:
            return progress((number + fraction) / (len(frames) + 1), f"echo {number + 1} of {len(frames)}, {what}")

        echoes.append(phased(frame, calibrations, method, part, threads, options))
    stepping(progress)(len(frames) / (len(frames) + 1), "unwrapping")
    found = field_map(np.stack([echo.array for echo in echoes]), encoding.echo_times_s)
    spread = found.hz[found.mask]
    parameters: dict[str, Parameter] = {
        "echo_times_ms": " ".join(f"{1000 * time:.2f}" for time in encoding.echo_times_s),
        "ambiguity_hz": round(found.ambiguity_hz, 1),
        "connected_parts": found.parts,
        "range_hz": f"{spread.min():.0f} to {spread.max():.0f}",
    }
    warnings = [*echoes[0].warnings, "fat counts as water off resonance unless the echoes are in phase"]
    if found.parts > 1:
        warnings.append(f"{found.parts} separate parts: each but one may be off by {found.ambiguity_hz:.0f} Hz")
    maps = {"magnitude": (np.abs(echoes[0].array), "", "magnitude")}
    if len(echoes) > 2:
        maps["deviation"] = (found.deviation_hz, "Hz", "standard deviation of the field")
    return _result(
        frames[0], found.hz, "off-resonance", "Hz", f"B0 field map ({echoes[0].method})",
        f"phase of {len(echoes)} echoes; images: {echoes[0].reason}", parameters, tuple(warnings), maps,
    )  # fmt: skip


def _spectral(scan: Frames, method: str, options: Options | None, progress: Progress, threads: int) -> Reconstruction:
    encoding = scan.encoding
    try:
        centres = np.array([float(text) for text in encoding.metadata[BIN_CENTRES_HZ].split()])
    except ValueError as error:
        raise ReconstructionError(
            f"centres of spectral bins must be numbers in Hz, got '{encoding.metadata[BIN_CENTRES_HZ]}'"
        ) from error
    repetition = max(r for _, r in scan.frames)
    bins: list[Reconstruction] = []
    frame: Frame = scan.kspace(0, repetition)
    for number in range(encoding.contrasts):

        def part(fraction: float, what: str, number: int = number) -> bool:
            return progress((number + fraction) / len(centres), f"bin {number + 1} of {len(centres)}, {what}")

        bins.append(reconstruct(scan.kspace(number, repetition), method, part, threads, options))
    order = np.argsort(centres)
    stack = np.stack([bins[number].image.array for number in order])
    # Voxels outside the object are those that no bin shows brighter than a tenth of the brightest.
    noise = float(np.percentile(stack.max(axis=0), 99)) * 0.1 / 3
    found = mavric(stack, centres[order], noise)
    parameters: dict[str, Parameter] = {"bin_centres_hz": " ".join(f"{c:g}" for c in centres[order])}
    return _result(
        frame, found.magnitude, "magnitude", "", f"multi-spectral ({bins[0].method})",
        f"root sum of squares of {len(bins)} spectral bins; each: {bins[0].reason}", parameters, bins[0].warnings,
        {"off-resonance": (found.hz, "Hz", "off-resonance")},
    )  # fmt: skip


def _heated(encoding: Encoding, heating: Heating) -> Bool | None:
    """(z, y, x) voxels within the radius of the spot; None without a spot."""
    if heating.spot_ras_mm is None:
        return None
    if not heating.radius_mm > 0:
        raise ReconstructionError(f"the heated region needs a radius above 0 mm, got {heating.radius_mm}")
    z, y, x = encoding.recon_matrix
    k, j, i = np.meshgrid(np.arange(z), np.arange(y), np.arange(x), indexing="ij")
    away = apply(encoding.ras_from_ijk, np.stack([i, j, k], axis=-1)) - np.asarray(heating.spot_ras_mm)
    heated = np.asarray(np.linalg.norm(away, axis=-1) <= heating.radius_mm)
    if not heated.any() or heated.all():
        raise ReconstructionError(
            f"a region of {heating.radius_mm:g} mm about {heating.spot_ras_mm} holds "
            f"{'nothing' if not heated.any() else 'all'} of the scan: move the mark or change the radius"
        )
    return heated


def _result(
    frame: Frame,
    array: npt.NDArray[Any],
    quantity: str,
    unit: str,
    method: str,
    reason: str,
    parameters: dict[str, Parameter],
    warnings: tuple[str, ...],
    maps: dict[str, tuple[npt.NDArray[Any], str, str]],
    said: Mapping[str, str] = MappingProxyType({}),
) -> Reconstruction:
    """``maps``: name to (voxels, unit, what they are). ``said``: more metadata of the image itself."""
    provenance = provenance_of(frame, method, reason, parameters)
    name = frame.encoding.protocol or frame.encoding.scan_id
    image = Image(
        np.asarray(array, dtype=np.float32),
        frame.encoding.ras_from_ijk,
        f"{name} {quantity}",
        frame.acquired_utc_s,
        frame.encoding.patient_id,
        metadata=provenance | _meaning(quantity, unit) | said,
    )
    extra = {
        key: replace(
            image.with_array(np.asarray(values, dtype=np.float32), f"{name} {what}"),
            metadata=provenance | _meaning(what, of),
        )
        for key, (values, of, what) in maps.items()
    }
    return Reconstruction(image, method, reason, parameters, warnings, provenance, MappingProxyType(extra))


def _meaning(quantity: str, unit: str) -> dict[str, str]:
    defined = {DEFINITION: DEFINITIONS[quantity]} if quantity in DEFINITIONS else {}
    return {QUANTITY: quantity, UNIT: unit} | defined
