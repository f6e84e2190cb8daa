"""Raw data from a file (MRD) to volumes: one for each method that is asked for, with how each came about beside it."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from IntraopMRIReconstructionLib.data import Image, assumed_geometry
from IntraopMRIReconstructionLib.errors import OpenChoice, ReconstructionError, SessionError
from IntraopMRIReconstructionLib.reconstruct.collect import Collector, collector
from IntraopMRIReconstructionLib.reconstruct.products import Wanted, make, quantity_of
from IntraopMRIReconstructionLib.reconstruct.quantities import COMBINED
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction
from IntraopMRIReconstructionLib.simulate.volumes import write_volume

#: Volumes in one file each, by their endings.
ENDINGS = (".nrrd", ".nii.gz", ".nii", ".mha")
#: Lines that are taken from a file at a time: enough that reading is fast, few enough for any memory.
LINES_AT_ONCE = 256


@dataclass(frozen=True)
class Made:
    """``file``: of the volume; ``seconds``: that its reconstruction took."""

    file: Path
    result: Reconstruction
    seconds: float


def reconstruct_file(
    raw: Path,
    out: Path,
    methods: Sequence[str],
    wanted: Wanted,
    chosen: Mapping[str, int | str],
    show: Callable[[float, str], bool],
) -> tuple[list[Made], dict[str, str]]:
    """Reconstruct a scan by each of the methods; ``out`` for one, its name with that of the method for several.

    Beside each volume lie its maps, and as .json how it came about. Where the orientation is assumed, the volumes say
    that they have none. ``chosen``: what the file leaves open, by the name
    that the error gives it. Returns what was made, and why a method was refused, by its name. Raises an IntraopError
    when there is no volume at all: nothing is written then.
    """
    ending = next((ending for ending in ENDINGS if out.name.endswith(ending)), "")
    if not ending or out.name == ending:
        raise SessionError(f"'{out}' is no name of a volume: let it end in {', '.join(ENDINGS)}")
    stem = out.name.removesuffix(ending)
    files = {method: f"{stem}-{method}" if len(methods) > 1 else stem for method in methods}
    _check_free(out.with_name(name + end) for name in files.values() for end in (ending, ".json"))
    if not out.parent.is_dir():
        raise SessionError(f"there is no folder '{out.parent}': make it, or choose another one with --out")
    scan = _collected(raw, chosen)
    quantity = quantity_of(wanted, scan.encoding)
    if quantity not in ("image", *COMBINED):
        # In a file it would look like any volume, and could be taken for anatomy.
        raise SessionError(f"'{raw}' is a scan for a {quantity}: name an echo with --echo to get its image")
    made, refused = [], {}
    placed = not assumed_geometry(scan.encoding.metadata)
    if not placed and ending != ".nrrd":
        raise SessionError("the orientation is assumed, and only NRRD can say so: let --out end in .nrrd")
    with tempfile.TemporaryDirectory(prefix=f".{stem}.", dir=out.parent) as work:
        for method, name in files.items():
            started = time.perf_counter()
            try:
                result = make(scan, replace(wanted, method=method), show)
            except ReconstructionError as error:
                refused[method] = str(error)
                continue
            made.append(Made(out.with_name(name + ending), result, time.perf_counter() - started))
            _write(result, Path(work), name, ending, placed)
        if not made:
            raise ReconstructionError("; ".join(f"{method}: {why}" for method, why in refused.items()))
        places = {file: out.with_name(file.name) for file in Path(work).iterdir()}
        _check_free(places.values())
        for file, place in places.items():
            file.replace(place)
    return made, refused


def _check_free(places: Iterable[Path]) -> None:
    """Raises SessionError when one of the files that would be written exists: it may be of something else."""
    for place in places:
        if place.exists():
            raise SessionError(f"'{place}' exists already: choose another name with --out")


def _collected(raw: Path, chosen: Mapping[str, int | str]) -> Collector:
    """Every line of the file. Raises WireError for what is no MRD, SessionError that names what a person has to say."""
    from IntraopMRIReconstructionLib.wire.mrd_file import MrdReader
    from IntraopMRIReconstructionLib.wire.mrd_scan import MrdOptions

    options = dict(chosen)
    group = str(options.pop("group", ""))
    try:
        reading = MrdReader(raw, MrdOptions(**options), group)  # type: ignore[arg-type]
    except OpenChoice as question:
        values = ", ".join(f"--choose {question.option}={value}" for value in question.values)
        raise SessionError(f"{question.problem}: add one of {values}") from question
    except TypeError as error:
        known = ", ".join(["group", *MrdOptions.__dataclass_fields__])
        raise SessionError(f"--choose names what the file does not leave open ({error}): it may be {known}") from error
    with reading:
        scan = collector(reading.encoding)
        for block in reading.blocks(LINES_AT_ONCE):
            scan.add(block)
    return scan


def _without_space(file: Path) -> None:
    """Say in a NRRD file that its axes are not those of a patient: no reader takes it for anatomy in its place."""
    header, blank, voxels = file.read_bytes().partition(b"\n\n")
    file.write_bytes(re.sub(rb"(?m)^space: .*$", b"space dimension: 3", header) + blank + voxels)


def _write(result: Reconstruction, folder: Path, name: str, ending: str, placed: bool) -> None:
    images: dict[str, Image] = {name: result.image}
    images |= {f"{name}-{what.replace(' ', '-')}": image for what, image in result.maps.items()}
    for file, image in images.items():
        try:
            write_volume(image, folder / f"{file}{ending}")
        except RuntimeError as error:
            raise SessionError(f"{file}{ending} cannot be written: {str(error).strip().splitlines()[-1]}") from error
        if not placed:
            _without_space(folder / f"{file}{ending}")
    said = {"warnings": list(result.warnings), "provenance": dict(result.provenance)}
    (folder / f"{name}.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def print_made(made: Sequence[Made], refused: Mapping[str, str]) -> None:
    """What was made of the raw data, for a person."""
    for each in made:
        image = each.result.image
        size = " x ".join(str(n) for n in image.array.shape[::-1])
        step = " x ".join(f"{mm:.2f}" for mm in image.spacing_mm)
        print(
            f"{each.file}: {each.result.method}, {each.seconds:.1f} s, {size} voxels of {step} mm; {each.result.reason}"
        )
        for warning in each.result.warnings:
            print(f"  {warning}")
    for method, why in refused.items():
        print(f"  {method}: not possible, {why}")
