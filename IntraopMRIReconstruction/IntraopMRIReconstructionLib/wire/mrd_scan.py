"""Readouts of MRD into :class:`Encoding` and :class:`Acquisition` blocks, and back.

All lines of a block are treated at once; file and stream share this. What is done to the data, and nothing else:
lines are numbered within the encoded matrix, of which ``centre`` says where k-space has its own, and discarded samples
are zero. Short (asymmetric) readouts stay short: the ``centre`` along x says which of their samples is the centre.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..data import ECHO_TRAIN, GEOMETRY, OPEN_COUNTERS, READ_AS, READ_ONLY, Acquisition, AnyArray, Encoding, LineFlag
from ..errors import OpenChoice, WireError
from .mrd_geometry import Placement, place
from .mrd_header import (
    CALIBRATION_PARAMETERS,
    EPI_PARAMETERS,
    GEOMETRY_PARAMETER,
    OWN_PARAMETERS,
    MrdHeader,
    Space,
)
from .mrd_layout import NOT_FOR_IMAGES, MrdFlag
from .mrd_lines import Lines, has, line_flags, samples_of
from .mrd_semac import SEMAC_FOV_MM, SliceSteps, flattened, refuse_hidden_steps, slices_apart_mm
from .plausible import refuse_implausible

#: Normalised trajectories end at 0.5; a little more is rounding or a last sample on the edge.
TRAJECTORY_EDGE = 0.5 + 1e-3


@dataclass(frozen=True)
class MrdOptions:
    """What a file cannot say or what a person chooses from it.

    ``encoding_space``: which of the header's encodings is read, None for the only one with image lines.
    ``slice_index``, ``phase``, ``set_index``: read only the lines with this counter; needed when there are several
    phases or sets. ``assume_axial``: take readouts without directions as axial instead of refusing them.
    ``trajectory_unit``: trajectories in MRD have no fixed unit.
    ``kspace_sign``: sign of the phase, signal = sum of image times exp(sign 2 pi i k r); -1 is what MRD tools assume,
    +1 turns the axes of the grid around. ``scan_id``: name of the scan, from the header when empty.
    """

    encoding_space: int | None = None
    slice_index: int | None = None
    phase: int | None = None
    set_index: int | None = None
    assume_axial: bool = False
    trajectory_unit: Literal["normalised", "cycles_per_fov"] = "normalised"
    kspace_sign: Literal[-1, 1] = -1
    scan_id: str = ""


@dataclass(frozen=True, eq=False)
class ScanPlan:
    """How the lines of one scan become blocks. Built by :func:`plan_scan`; its ``options`` name the encoding space."""

    encoding: Encoding
    options: MrdOptions
    placement: Placement
    line_shift: tuple[int, int]
    steps: SliceSteps | None = None

    @property
    def is_cartesian(self) -> bool:
        """Whether every line fills one row of the encoded matrix."""
        return self.encoding.trajectory == "cartesian"

    def for_images(self, heads: AnyArray) -> npt.NDArray[np.bool_]:
        """Which lines belong to the image."""
        return for_images(heads, self.options, self.encoding.trajectory == "epi")

    def blocks(self, lines: Lines) -> list[Acquisition]:
        """Acquisitions of ``lines``: one block for each run of equal counters, channels and length.

        Raises WireError when a line does not fit into its own head or into the encoded matrix.
        """
        heads = lines.heads
        chosen = np.flatnonzero(self.for_images(heads) | has(heads, MrdFlag.NOISE))
        if not chosen.size:
            return []
        # Nobody averages lines that only calibrate, however they are numbered.
        alone = _only_calibrates(heads) & (heads["idx"]["average"] > 0)
        if alone.any():
            heads = heads.copy()
            heads["idx"]["average"][alone] = 0
            lines = replace(lines, heads=heads)
        if self.steps is not None:
            heads = self.steps.as_contrasts(heads, self.for_images(heads))
            lines = replace(lines, heads=heads)
        chosen_heads = heads[chosen]
        idx, length = chosen_heads["idx"], chosen_heads["number_of_samples"]
        key = np.column_stack(
            [has(chosen_heads, MrdFlag.NOISE), length, chosen_heads["active_channels"]]
            + [idx[name] for name in ("contrast", "repetition", "average")]
        ).astype(np.int64)
        _, first, group = np.unique(key, axis=0, return_index=True, return_inverse=True)
        groups = [chosen[group.reshape(-1) == number] for number in np.argsort(first)]
        ends = bool(has(chosen_heads, MrdFlag.LAST_IN_MEASUREMENT).any())
        return [self._block(lines, rows, ends and rows is groups[-1]) for rows in groups]

    def left_out(self, heads: AnyArray) -> Counter[str]:
        """How many readouts belong neither to the chosen image nor to the noise scan, by what they are."""
        result: Counter[str] = Counter()
        rest = heads[~(self.for_images(heads) | has(heads, MrdFlag.NOISE))]
        if not len(rest):
            return result
        kinds = [
            (f"{(flag.name or '').lower().replace('_', ' ')} readouts", has(rest, flag))
            for flag in (*NOT_FOR_IMAGES, MrdFlag.PHASE_CORRECTION)
        ]
        other = rest["encoding_space_ref"] != self.options.encoding_space
        kinds.append(("calibration readouts of other encodings", other & has(rest, MrdFlag.CALIBRATION)))
        kinds.append(("readouts of other encodings", other))
        kinds.append(("readouts of other slices, phases or sets", np.ones(len(rest), dtype=bool)))
        counted = np.zeros(len(rest), dtype=bool)
        for what, rows in kinds:
            result[what] += int((rows & ~counted).sum())
            counted |= rows
        return +result

    def _block(self, lines: Lines, rows: npt.NDArray[np.intp], last: bool) -> Acquisition:
        heads = lines.heads[rows]
        head = heads[0]
        flags = line_flags(heads)
        imaging = not flags[0] & LineFlag.NOISE
        samples = samples_of(lines, rows, int(head["active_channels"]), int(head["number_of_samples"]))
        trajectory = None
        if imaging:
            samples = self._checked(samples, heads)
            trajectory = self._trajectory(lines, rows)
        ky, kz = self._line_numbers(heads, flags)
        idx = head["idx"]
        return Acquisition(
            scan_id=self.encoding.scan_id,
            samples=samples,
            ky=ky,
            kz=kz,
            flags=flags,
            contrast=int(idx["contrast"]),
            repetition=int(idx["repetition"]),
            average=int(idx["average"]),
            trajectory=trajectory,
            last=last,
        )

    def _checked(self, samples: npt.NDArray[np.complex64], heads: AnyArray) -> npt.NDArray[np.complex64]:
        """Readouts that fit into the encoded matrix, discarded samples set to zero."""
        width, count = self.encoding.encoded_matrix[2], samples.shape[2]
        for row in np.flatnonzero(heads["discard_pre"] | heads["discard_post"]):
            samples[row, :, : int(heads["discard_pre"][row])] = 0
            samples[row, :, max(count - int(heads["discard_post"][row]), 0) :] = 0
        if not self.is_cartesian:
            return samples
        if count > width:
            raise WireError(f"a readout has {count} samples, the encoded matrix is {width} wide: wrong header or file")
        centre = self.encoding.centre_index[2]
        forward = ~has(heads, MrdFlag.REVERSE)
        # Writers leave the centre sample of a full readout at 0 when they do not know it.
        known = (heads["center_sample"] > 0) | (count < width)
        moved = np.flatnonzero(forward & known & (heads["center_sample"] != centre))
        if moved.size:
            raise WireError(
                f"the centre of the readouts changes from sample {centre} to {heads['center_sample'][moved[0]]} "
                f"(scan counter {heads['scan_counter'][moved[0]]}); one scan has one"
            )
        return samples

    def _line_numbers(
        self, heads: AnyArray, flags: npt.NDArray[np.uint32]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        idx = heads["idx"]
        if flags[0] & LineFlag.NOISE:
            return np.zeros(len(heads), np.int32), np.zeros(len(heads), np.int32)
        ky = idx["kspace_encode_step_1"].astype(np.int32) + self.line_shift[1]
        if self.encoding.is_3d:
            kz = idx["kspace_encode_step_2"].astype(np.int32) + self.line_shift[0]
        else:
            rank = self.placement.slice_rank
            kz = np.array([rank.get(int(number), 0) for number in idx["slice"]], np.int32)
        checked = (flags & LineFlag.NAVIGATOR) == 0
        limits = [("partition or slice", kz, self.encoding.encoded_matrix[0])]
        if self.is_cartesian:
            limits.append(("phase encoding", ky, self.encoding.encoded_matrix[1]))
        for name, numbers, count in limits:
            wrong = np.flatnonzero(((numbers < 0) | (numbers >= count)) & checked)
            if wrong.size:
                raise WireError(
                    f"{name} line {numbers[wrong[0]]} lies outside the encoded matrix of {count} lines "
                    f"(scan counter {heads['scan_counter'][wrong[0]]}): wrong header or damaged data"
                )
        return ky, kz

    def _trajectory(self, lines: Lines, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32] | None:
        head = lines.heads[rows[0]]
        dimensions, count = int(head["trajectory_dimensions"]), int(head["number_of_samples"])
        if self.encoding.trajectory not in ("radial", "spiral") or lines.trajectory is None or not dimensions:
            return None
        wanted = 3 if self.encoding.is_3d else 2
        chosen = [lines.trajectory[row] for row in rows]
        if dimensions < wanted or any(len(line) != dimensions * count for line in chosen):
            raise WireError(
                f"a trajectory of {wanted} or {wanted + 1} x {count} numbers was expected, got {len(chosen[0])} "
                f"numbers in {dimensions} dimensions"
            )
        # A dimension more than the scan has is a density weight.
        points = np.concatenate(chosen).reshape(len(rows), count, dimensions)[:, :, :wanted]
        if self.options.trajectory_unit == "cycles_per_fov":
            return np.ascontiguousarray(points)
        reach = float(np.abs(points).max())
        if not reach <= TRAJECTORY_EDGE:
            raise WireError(
                f"a normalised trajectory lies within +-0.5, got {reach:.4g}; when the file holds cycles per field "
                "of view, say so with trajectory_unit"
            )
        return np.asarray(points * np.array(self.encoding.encoded_matrix[::-1][:wanted], np.float32), np.float32)


def plan_scan(
    header: MrdHeader, heads: AnyArray, options: MrdOptions, name: str = "mrd", goes_on: bool = False
) -> ScanPlan:
    """Encoding and line layout from the header and the heads of the lines (all of a file, the first of a stream).

    ``name``: scan id when neither options nor header give one. ``goes_on``: more lines will come, with counters that
    nobody knows where the header leaves their limits out, as the standard allows.

    Raises WireError when no line belongs to an image, or when the geometry cannot be trusted; OpenChoice when one
    between encodings, phases, sets or slices is open.
    """
    if options.encoding_space is None:
        options = replace(options, encoding_space=_only_space(heads, len(header.spaces)))
    every_slice = heads[for_images(heads, replace(options, slice_index=None))]
    space, steps = chosen_space(header, options, slices_apart_mm(every_slice))
    images = heads[for_images(heads, options, space.trajectory == "epi")]
    if not len(images):
        raise WireError(f"none of the {len(heads)} readouts belongs to an image of encoding {options.encoding_space}")
    _refuse_open_choices(images)
    space = _measured(space, images)
    is_3d = space.encoded_matrix[0] > 1
    if steps is not None:
        images = steps.as_contrasts(images, np.ones(len(images), dtype=bool))
    elif not is_3d and space.trajectory == "cartesian":
        refuse_hidden_steps(_without_navigators(images))
    placement = place(
        _without_navigators(images),
        space.recon_matrix,
        space.recon_fov_mm,
        is_3d=is_3d,
        assume_axial=options.assume_axial,
        kspace_sign=options.kspace_sign,
    )
    shifts, centre = _centring(space, images)
    slices = len(placement.slice_rank)
    stack_mm = slices * placement.spacing_mm

    def stacked(matrix: tuple[int, int, int]) -> tuple[int, int, int]:
        return matrix if is_3d else (slices, *matrix[1:])

    def stacked_mm(fov_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        return fov_mm if is_3d else (stack_mm, *fov_mm[1:])

    dwell_s = float(images["sample_time_us"][0]) * 1e-6
    encoding = Encoding(
        scan_id=options.scan_id or header.measurement_id or name,
        trajectory=space.trajectory,
        encoded_matrix=stacked(space.encoded_matrix),
        recon_matrix=stacked(space.recon_matrix),
        encoded_fov_mm=stacked_mm(space.encoded_fov_mm),
        recon_fov_mm=stacked_mm(space.recon_fov_mm),
        coils=int(images["active_channels"][0]),
        ras_from_ijk=placement.ras_from_ijk,
        is_3d=is_3d,
        acceleration=space.acceleration,
        calibration_lines=_calibration_lines(header, images, is_3d),
        centre=centre if is_3d else (slices // 2, *centre[1:]),
        contrasts=_count(space, images, "contrast"),
        repetitions=_count(space, images, "repetition"),
        averages=_count(space, _for_averages(images), "average"),
        protocol=header.protocol,
        patient_id=header.patient_id,
        field_t=header.field_t,
        echo_times_s=header.echo_times_s,
        dwell_time_s=dwell_s if dwell_s > 0 else None,
        metadata=_metadata(header, heads, options, placement, space)
        | ({} if steps is None else {SEMAC_FOV_MM: f"{steps.fov_mm:g}", READ_AS: steps.known_by})
        | ({OPEN_COUNTERS: ",".join(unknown)} if goes_on and (unknown := _open_counters(space, steps)) else {}),
    )
    refuse_implausible(encoding)
    return ScanPlan(encoding, options, placement, shifts, steps)


def for_images(heads: AnyArray, options: MrdOptions, epi: bool = False) -> npt.NDArray[np.bool_]:
    """Which lines belong to the chosen image: not noise, no dummy or feedback scan, the chosen counters.

    ``epi``: the lines for the correction of phases as well, which is what they are for in such a scan alone.
    """
    other = MrdFlag.NOISE if epi else MrdFlag.NOISE | MrdFlag.PHASE_CORRECTION
    for flag in NOT_FOR_IMAGES:
        other |= flag
    chosen = ~has(heads, other) & (heads["encoding_space_ref"] == options.encoding_space)
    for counter, value in (("slice", options.slice_index), ("phase", options.phase), ("set", options.set_index)):
        if value is not None:
            chosen &= heads["idx"][counter] == value
    return np.asarray(chosen)


def _only_space(heads: AnyArray, count: int) -> int:
    """The encoding with image lines; of several those that do more than calibrate. OpenChoice when there are two."""
    found = [number for number in range(count) if for_images(heads, MrdOptions(number)).any()]
    images = heads[~has(heads, MrdFlag.CALIBRATION)]
    whole = [number for number in found if for_images(images, MrdOptions(number)).any()] or found
    if len(whole) > 1:
        raise OpenChoice(f"the scan holds images of {len(whole)} encodings", "encoding_space", tuple(whole))
    return whole[0] if whole else 0


def chosen_space(header: MrdHeader, options: MrdOptions, apart_mm: float = 0.0) -> tuple[Space, SliceSteps | None]:
    """The encoding that is read, and its steps of slice encoding (SEMAC) where it has some.

    Of options that name none the first counts. ``apart_mm``: distance of the slices, 0 when not known.

    Raises WireError when there is none of that number, and as :func:`.mrd_semac.flattened`.
    """
    number = options.encoding_space or 0
    if not 0 <= number < len(header.spaces):
        raise WireError(f"encoding_space must be 0 to {len(header.spaces) - 1}, got {number}")
    return flattened(header, header.spaces[number], options.kspace_sign, apart_mm)


def _refuse_open_choices(images: AnyArray) -> None:
    for counter, option in (("phase", "phase"), ("set", "set_index")):
        values = np.unique(images["idx"][counter])
        if len(values) > 1:
            raise OpenChoice(f"the scan holds {len(values)} values of '{counter}'", option, tuple(values.tolist()))
    if has(images, MrdFlag.COMPRESSION).any():
        raise WireError("the readouts are compressed; write the file without compression")
    channels = np.unique(images["active_channels"])
    if len(channels) > 1:
        raise WireError(f"the number of coils changes in mid-scan: {channels.tolist()}")


def _measured(space: Space, images: AnyArray) -> Space:
    """The space without lines that the limits leave out on both sides alike: they are filled with zeros, never measured
    (phase resolution below 1), so that none of them is missing."""
    matrix = list(space.encoded_matrix)
    for axis, step in ((0, 2), (1, 1)):
        limit, numbers = space.limits.get(f"kspace_encoding_step_{step}"), images["idx"][f"kspace_encode_step_{step}"]
        if limit is None or space.trajectory not in ("cartesian", "epi") or not limit.minimum < limit.maximum:
            continue
        count = limit.maximum - limit.minimum + 1
        inside = limit.minimum <= int(numbers.min()) and int(numbers.max()) <= limit.maximum
        if count < matrix[axis] and limit.centre - limit.minimum == count // 2 and inside:
            matrix[axis] = count
    return replace(space, encoded_matrix=(matrix[0], matrix[1], matrix[2]))


def _shift(count: int, minimum: int, maximum: int, centre: int) -> tuple[int, int]:
    """By how much to move lines minimum..maximum so that ``centre`` lies at count // 2, and where it comes to lie.

    The lines stay inside 0..count - 1. A range that cannot be centred, or that lacks lines on one side only, keeps an
    honest centre elsewhere: by that, what is left out shows.
    """
    first, last = count // 2 - centre + minimum, count // 2 - centre + maximum
    if first > 0 and last == count - 1:
        return -minimum, centre - minimum
    if first == 0 and last < count - 1:
        return count - 1 - maximum, count - 1 - maximum + centre
    shift = max(-minimum, min(count // 2 - centre, count - 1 - maximum))
    return shift, centre + shift


def _centring(space: Space, images: AnyArray) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Shifts of the line numbers (z, y), and where the centre (z, y, x) comes to lie."""
    shift_z, centre_z = _line_centring(space, images, 2, space.encoded_matrix[0])
    shift_y, centre_y = 0, space.encoded_matrix[1] // 2
    if space.trajectory in ("cartesian", "epi"):
        shift_y, centre_y = _line_centring(space, images, 1, space.encoded_matrix[1])
    width = space.encoded_matrix[2]
    # Where the centre of a line that was read backwards lies, before it is turned or after, writers take either way.
    forward = images[~has(images, MrdFlag.REVERSE)]
    first = forward[0] if len(forward) else images[0]
    samples, centre_sample = int(first["number_of_samples"]), int(first["center_sample"])
    centre_x = width // 2
    # Writers leave the centre sample of a full readout at 0 when they do not know it.
    if space.trajectory == "cartesian" and (samples < width or centre_sample):
        centre_x = centre_sample
    return (shift_z, shift_y), (centre_z, centre_y, centre_x)


def _line_centring(space: Space, images: AnyArray, step: int, count: int) -> tuple[int, int]:
    """Shift and centre of one phase-encoded axis with ``count`` lines."""
    limit = space.limits.get(f"kspace_encoding_step_{step}")
    if count == 1 or limit is None or (limit.maximum == 0 and images["idx"][f"kspace_encode_step_{step}"].any()):
        return 0, count // 2
    if not (0 <= limit.minimum <= limit.centre <= limit.maximum and limit.maximum - limit.minimum < count):
        raise WireError(f"MRD header: limits of kspace_encoding_step_{step} do not fit into {count} lines: {limit}")
    return _shift(count, limit.minimum, limit.maximum, limit.centre)


def _calibration_lines(header: MrdHeader, images: AnyArray, is_3d: bool) -> tuple[int, int]:
    """Number of calibration lines (z, y), by their flags; a stream knows them from its header at best."""
    flagged = images[has(images, MrdFlag.CALIBRATION | MrdFlag.CALIBRATION_AND_IMAGE)]
    counted = tuple(
        len(np.unique(flagged["idx"][f"kspace_encode_step_{step}"])) if len(flagged) else 0 for step in (2, 1)
    )
    texts = [header.user_parameters.get(name, "") for name in CALIBRATION_PARAMETERS]
    said = [int(text) if text.isdecimal() else 0 for text in texts]
    return max(counted[0], said[0]) if is_3d else 0, max(counted[1], said[1])


def _only_calibrates(heads: AnyArray) -> npt.NDArray[np.bool_]:
    return has(heads, MrdFlag.CALIBRATION) & ~has(heads, MrdFlag.CALIBRATION_AND_IMAGE)


def _for_averages(images: AnyArray) -> AnyArray:
    """Lines whose averages count; all when there are no others."""
    lines = _without_navigators(images)
    averaged = lines[~_only_calibrates(lines)]
    return averaged if len(averaged) else lines


def _without_navigators(images: AnyArray) -> AnyArray:
    """Image lines alone: some scanners number the navigators of EPI as averages of their own."""
    lines = images[~has(images, MrdFlag.PHASE_CORRECTION)]
    return lines if len(lines) else images


def _count(space: Space, images: AnyArray, counter: str) -> int:
    return max(space.count(counter), int(images["idx"][counter].max()) + 1)


def _open_counters(space: Space, steps: SliceSteps | None) -> list[str]:
    """Of contrast, repetition and average those whose limit the header leaves out."""
    names = ("repetition", "average") if steps is not None else ("contrast", "repetition", "average")
    return [name for name in names if name not in space.limits]


def _metadata(
    header: MrdHeader, heads: AnyArray, options: MrdOptions, placement: Placement, space: Space
) -> dict[str, str]:
    result = {
        "source": "MRD",
        GEOMETRY: placement.note or header.user_parameters.get(GEOMETRY_PARAMETER) or "from the acquisition headers",
        READ_ONLY: ", ".join(_read_only(options, len(header.spaces))),
        "patient_position": header.patient_position,
        "frame_of_reference": header.frame_of_reference,
        ECHO_TRAIN: "" if space.echo_train is None else str(space.echo_train),
    }
    if space.encoded_matrix[0] == 1:
        result["slice_thickness_mm"] = f"{space.recon_fov_mm[0]:g}"
    result |= {key: header.user_parameters.get(name, "") for key, name in OWN_PARAMETERS.items()}
    if space.trajectory == "epi":
        known = {key: space.description[name] for key, name in EPI_PARAMETERS.items() if name in space.description}
        result |= {key: repr(value * 1e-6) for key, value in known.items()}
    if space.trajectory in ("radial", "spiral"):
        shots = space.count("kspace_encoding_step_1")
        # A header that does not know writes no limit, or 0.
        result["shots"] = str(shots) if shots > 1 else ""
        result["radial_order"] = "golden" if space.order == "goldenangle" else ""
    announced, came = space.count("slice"), len(placement.slice_rank)
    if options.slice_index is None and came < announced:
        result["slices_missing"] = f"{announced - came} of {announced}"
    noise = heads[has(heads, MrdFlag.NOISE)]
    if len(noise) and noise["sample_time_us"][0] > 0:
        result["noise_dwell_time_s"] = repr(float(noise["sample_time_us"][0]) * 1e-6)
    if space.encoded_matrix[0] > 1 and announced > 1:
        result[READ_AS] = f"one of {announced} slabs, each a volume of its own"
    return {key: value for key, value in result.items() if value}


def _read_only(options: MrdOptions, spaces: int) -> list[str]:
    """Which part of what the file holds was chosen, in words."""
    chosen = [("slice", options.slice_index), ("phase", options.phase), ("set", options.set_index)]
    words = [f"{name} {value}" for name, value in chosen if value is not None]
    return ([f"encoding {options.encoding_space} of {spaces}"] if spaces > 1 else []) + words
