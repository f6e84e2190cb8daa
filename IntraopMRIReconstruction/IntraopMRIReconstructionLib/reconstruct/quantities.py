"""Numbers from several frames of one scan: field in Hz, temperature in degrees C, the parts of a scan beside metal.

Every frame is reconstructed with its phase and with the coil weights of the first, so that what is left between frames
is the object's. The numerics and their sources are in :mod:`.field_map`, :mod:`.thermometry` and :mod:`.multispectral`.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..data import Encoding, Image, Progress, no_progress
from ..errors import ReconstructionError
from . import metal, multispectral
from .ablation import HeatNumbers, Marked, has_moved, heat_numbers, marked, peak_of, told, too_long_unseen, why_missing
from .auto import Frame, Options, Phased, phased
from .field_map import field_map
from .frame_clock import FrameClock
from .quantity_image import BASELINE, COOLED_FROM, Frames, quantity_result
from .result import Parameter, Reconstruction, stepping
from .thermometry import BODY_C, Heat, Thermometer, coldest, cooling_from, radians_per_c, referenceless
from .unmixing import Calibrations

Quantity = Literal["image", "field map", "temperature", "spectral bins", "SEMAC"]
#: Quantities that are images themselves, put together from parts that are none.
COMBINED: tuple[Quantity, ...] = ("SEMAC", "spectral bins")

#: Quantities that a header may name a scan for, in its metadata under this entry; what else it is for shows by itself.
NAMED: tuple[Quantity, ...] = ("temperature", "field map")
SCAN_FOR = "scan_for"
#: Entry of a header: "-1" for a scanner whose phase turns backwards where the frequency is higher, so that its phase
#: rises with the temperature; 1 is meant where it is missing.
PHASE_SIGN = "phase_sign"

Bool = npt.NDArray[np.bool_]


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
        try:
            radians_per_c(encoding.field_t, times[0])
            _phase_sign(encoding)
        except ReconstructionError as error:
            return str(error)
    if quantity == "spectral bins":
        return metal.bins_missing(encoding)
    return metal.semac_missing(encoding) if quantity == "SEMAC" else ""


def named_by(encoding: Encoding) -> Quantity | None:
    """What a header names the scan for, None when it names nothing. Raises ReconstructionError for another name."""
    said = encoding.metadata.get(SCAN_FOR, "")
    found = next((quantity for quantity in NAMED if quantity == said), None)
    if said and found is None:
        raise ReconstructionError(f"a header may name a scan for {' or '.join(NAMED)}, got '{said}': check the header")
    return found


def combined_by(encoding: Encoding) -> Quantity:
    """What the contrasts of a scan are put together by, "image" when each is an image of its own."""
    return next((quantity for quantity in COMBINED if not missing_for(quantity, encoding)), "image")


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
    if quantity == "temperature":
        return _temperature(scan, heating or Heating(), method, options, progress, threads)
    makers = {
        "field map": _field_map,
        "spectral bins": multispectral.bins_together,
        "SEMAC": multispectral.slices_in_place,
    }
    return makers[quantity](scan, method, options, progress, threads)


class LiveThermometer:
    """Temperature frame by frame: give it each complete frame of one scan in the order of time."""

    def __init__(self, heating: Heating, method: str = "auto", options: Options | None = None) -> None:
        self.heating, self._method, self._options = heating, method, options
        self._calibrations = Calibrations(refresh_after_s=float("inf"))
        self._thermometer: Thermometer | None = None
        self._reference: Encoding | None = None
        self._clock = FrameClock()
        self._mark: Marked | None = None
        self._newest: tuple[Frame, Phased, Heat] | None = None
        self._numbers: HeatNumbers | None = None
        #: Why the newest frame was not taken as the reference was; "" when it was.
        self._odd = ""
        #: Frame from which on something has moved; None while nothing has.
        self.moved_in: int | None = None
        #: Peak in the mark (C) with its interval, by frame, as long as it is known.
        self.course: dict[int, tuple[float, float, float]] = {}
        self._repetitions: list[int] = []

    def add(self, frame: Frame, progress: Progress = no_progress, threads: int = 2) -> Reconstruction:
        """Take in the next frame; the first is the reference. Raises ReconstructionError as :func:`measured`, and for a
        frame that does not follow the last, or was not taken as the reference was."""
        encoding, heating = frame.encoding, self.heating
        self._check(encoding)
        image = phased(frame, self._calibrations, self._method, progress, threads, self._options)
        clock = copy(self._clock)
        tick = clock.tick(frame)
        if self._thermometer is None:
            lacks = missing_for("temperature", replace(encoding, repetitions=max(2, encoding.repetitions)))
            if lacks:
                raise ReconstructionError(lacks)
            assert encoding.field_t is not None
            mark = _marked(encoding, heating)
            self._thermometer = Thermometer(
                image.array, encoding.field_t, encoding.echo_times_s[0], heating.baseline_c,
                _unheated(mark, heating), phase_sign=_phase_sign(encoding),
            )  # fmt: skip
            self._reference, self._mark = encoding, mark
        heat = self._thermometer.add(image.array, tick.time_s, tick.unseen_s)
        self._clock = clock
        self._repetitions.append(frame.repetition)
        self._newest, self._numbers = (frame, image, heat), None
        if self.moved_in is None and has_moved(heat):
            self.moved_in = frame.repetition
        return self._wrapped(*self._newest)

    def told(self, heating: Heating) -> Reconstruction | None:
        """Another mark or baseline holds for all frames since the reference; the newest by it, None before the first.

        Raises ReconstructionError, and keeps the old one, when it cannot be.
        """
        if self._thermometer is not None and self._newest is not None:
            frame, image, _heat = self._newest
            mark = _marked(frame.encoding, heating)
            found = self._thermometer.told(_unheated(mark, heating), heating.baseline_c)
            self._newest, self.heating, self._mark = (frame, image, found[-1]), heating, mark
            self._numbers = None
            self._follow(found)
        self.heating = heating
        return None if self._newest is None else self._wrapped(*self._newest)

    @property
    def heat(self) -> Heat | None:
        """The newest frame's; None before the first."""
        return None if self._newest is None else self._newest[2]

    def numbers(self, image: Image) -> HeatNumbers:
        """Of the newest frame, whose map is ``image``. To be asked for after the first frame."""
        assert self._newest is not None
        assert self._thermometer is not None
        frame, _image, heat = self._newest
        if self._odd:
            self._numbers = heat_numbers(heat, self._thermometer.tissue, None, image, self.heating.baseline_c).without(
                self._odd
            )
        if self._numbers is None or self._numbers.peak.based_on != (image.uid,):
            mark = self._mark if self.heating.drift else None
            tissue, baseline_c = self._thermometer.tissue, self.heating.baseline_c
            found = heat_numbers(heat, tissue, mark, image, baseline_c, self.moved_in)
            peak = found.peak
            if peak.value is not None and peak.interval is not None:
                self.course[frame.repetition] = peak.value, *peak.interval
            why = self._no_dose(heat)
            self._numbers = found.without_dose(why) if why else found
        return self._numbers

    def _no_dose(self, heat: Heat) -> str:
        """Why the time since the reference is not known well enough for a dose; "" when it is."""
        return self._clock.untimed or self._clock.late() or too_long_unseen(heat)

    def _follow(self, heats: list[Heat]) -> None:
        """Motion, and the course of the peak, by another mark in all frames; that of the newest is for the numbers."""
        assert self._thermometer is not None
        self.moved_in, baseline_c = None, self.heating.baseline_c
        self.course.clear()
        for number, heat in zip(self._repetitions[-len(heats) :], heats, strict=True):
            if self.moved_in is None and has_moved(heat):
                self.moved_in = number
            if self._mark is None or heat is heats[-1]:
                continue
            peak = peak_of(heat, self._mark, baseline_c)
            if peak is not None and not why_missing(
                heat, self._thermometer.tissue, self._mark, baseline_c, self.moved_in
            ):
                self.course[number] = peak

    def _check(self, encoding: Encoding) -> None:
        """Raises ReconstructionError for a frame that cannot be held against the reference."""
        reference = self._reference
        if reference is None:
            return
        same = np.allclose(encoding.ras_from_ijk, reference.ras_from_ijk, atol=1e-3)
        facts = ("recon_matrix", "encoded_matrix", "echo_times_s", "field_t", "coils")
        changed = [name for name in facts if getattr(encoding, name) != getattr(reference, name)]
        self._odd = ""
        if not same or changed:
            what = " and ".join([*([] if same else ["place"]), *(name.replace("_", " ") for name in changed)])
            self._odd = f"{what} of the scan changed since the reference: take a new reference"
            raise ReconstructionError(self._odd)

    def _wrapped(self, frame: Frame, image: Phased, heat: Heat) -> Reconstruction:
        assert self._thermometer is not None
        encoding, heating = frame.encoding, self.heating
        corrected = heat.deviation_c is not None
        change = heat.temperature_c - np.float32(heating.baseline_c)
        parameters: dict[str, Parameter] = {
            "reference_frame": heating.reference,
            "frame": frame.repetition,
            "field_t": float(encoding.field_t or 0),
            "echo_time_ms": 1000 * encoding.echo_times_s[0],
            "unambiguous_between_frames_c": round(self._thermometer.unambiguous_c, 1),
            "baseline_c": heating.baseline_c,
            "drift_removed_c": round(heat.drift_c, 2) if corrected else "not corrected",
        }
        if heat.noise_c is not None:
            parameters["noise_c"] = round(heat.noise_c, 2)
        warnings = ["fat does not shift with temperature: its voxels are wrong"]
        if not corrected:
            warnings.append("the drift of the field is not corrected: mark where the tissue is heated")
        no_dose = self._no_dose(heat)
        if no_dose:
            warnings.append(f"the dose is not known: {no_dose}")
        reason = f"phase against frame {heating.reference}"
        if heating.referenceless:
            if self._mark is None:
                raise ReconstructionError("referenceless thermometry needs the place that is heated: mark it")
            assert encoding.field_t is not None
            change = referenceless(
                image.array, self._mark.inside, encoding.field_t, encoding.echo_times_s[0],
                phase_sign=_phase_sign(encoding),
            )  # fmt: skip
            reason = (
                f"phase within {heating.radius_mm:g} mm of the spot against the tissue around it, in this frame alone"
            )
            parameters["drift_removed_c"] = "not needed"
            warnings = [text for text in warnings if "drift" not in text]
        maps = {"magnitude": (np.abs(image.array), "", "magnitude")}
        if not no_dose:
            maps["dose"] = (heat.dose_min, "min", "thermal dose (CEM43)")
        parameters |= dict(image.parameters)
        said = {BASELINE: f"{heating.baseline_c:g} °C"}
        below = cooling_from(change, None if heating.referenceless else heat.noise_c)
        # A field that drifts, and is not corrected, moves all of the map: only what differs from it has cooled.
        drifted = float(np.nanmedian(change)) if not heating.referenceless and not corrected else 0.0
        if (lowest := coldest(change, min(below, below + drifted))) is not None:
            parameters["coldest_c"] = round(lowest, 1)
            said[COOLED_FROM] = f"{below:.2f}"
            warnings.append(
                f"tissue has cooled by up to {-lowest:.1f} °C (blue): ice gives no signal, so frozen tissue has no "
                "temperature, and the dose does not count cold"
            )
        result = quantity_result(
            frame, change, "temperature change", "°C", f"PRF thermometry ({image.method})",
            f"{reason}; images: {image.reason}", parameters, (*image.warnings, *warnings), maps, said,
        )  # fmt: skip
        if corrected and not heating.referenceless:
            found = self.numbers(result.image)
            known = {m.name: told(m) for m in found.measurements if m.value is not None}
            missing = (found.missing_because,) if found.missing_because else found.notes
            result = replace(result, parameters={**result.parameters, **known}, warnings=(*result.warnings, *missing))
        return result


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
    parameters |= dict(echoes[0].parameters)
    warnings = [*echoes[0].warnings, "fat counts as water off resonance unless the echoes are in phase"]
    if found.parts > 1:
        warnings.append(f"{found.parts} separate parts: each but one may be off by {found.ambiguity_hz:.0f} Hz")
    maps = {"magnitude": (np.abs(echoes[0].array), "", "magnitude")}
    if len(echoes) > 2:
        maps["deviation"] = (found.deviation_hz, "Hz", "standard deviation of the field")
    return quantity_result(
        frames[0], found.hz, "off-resonance", "Hz", f"B0 field map ({echoes[0].method})",
        f"phase of {len(echoes)} echoes; images: {echoes[0].reason}", parameters, tuple(warnings), maps,
    )  # fmt: skip


def _marked(encoding: Encoding, heating: Heating) -> Marked | None:
    """Voxels (z, y, x) within the radius of the spot, and beside it; None without a spot."""
    if heating.spot_ras_mm is None:
        return None
    apart_mm = float(np.linalg.norm(encoding.ras_from_ijk[:3, 2]))
    # Where z is Fourier encoded, a voxel shows its middle as it does in the plane.
    thickness = 0.0 if encoding.is_3d else min(1.0, metal.slice_thickness_mm(encoding) / apart_mm)
    return marked(encoding.ras_from_ijk, encoding.recon_matrix, heating.spot_ras_mm, heating.radius_mm, thickness)


def _unheated(mark: Marked | None, heating: Heating) -> Bool | None:
    return None if mark is None or not heating.drift else ~mark.inside


def _phase_sign(encoding: Encoding) -> int:
    said = encoding.metadata.get(PHASE_SIGN, "") or "1"
    if said not in ("1", "-1"):
        raise ReconstructionError(f'"{PHASE_SIGN}" in the header must be "1" or "-1", got "{said}"')
    return int(said)
