"""A session from files alone, without scanner and network: for data that were collected before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import IntraopError, SessionError
from IntraopMRIReconstructionLib.simulate.volumes import read_volume, write_volume

from ..assess.implant import METALS_PPM, Trajectory
from ..assess.proposal import NECROSIS
from ..dicom_series import is_dicom, read_series
from ..scan_facts import TAKEN_FROM, DicomFacts, local_text, local_utc_s
from ..segmentations import read_structure
from ..session import Plan, Session
from ..session.baseline import not_after, read_baseline
from ..session.files import read_points, read_structures
from ..session.implants import told_apart
from ..session.measures import PROPOSED, RECIPES
from ..session.updates import Role
from ..workflow.record import image_entry
from .follow import follow
from .outcome import Outcome
from .results import LAID, OPEN, PROPOSAL, words_of

PROCEDURE, IMPLANTS = "Tumour resection, control on files", "Implants, control on files"


@dataclass(frozen=True)
class CaseFiles:
    """NIfTI, NRRD or DICOM (folder with one volume, or a slice of it) each; and ``tumour``, ``planned`` or ``plan``.

    ``tumour``: drawn on the preoperative volume, a label or as :mod:`..segmentations` reads it; ``label``: number or
    name of the enhancing tumour in it, empty when there is only one; it needs ``contrast``. ``planned``: lines from
    entry to tip (.mrk.json) of implants of ``diameter_mm`` and ``metal`` (one of METALS_PPM, empty when unknown).
    ``outlined``: segmentations or 'NAME=LABEL' on the preoperative volume, beside them: vertebrae, pedicles, structures
    at risk. ``plan``: what a case folder knows, in the place of all these.
    ``baseline``: results of an earlier session of this patient, whose residual is compared.
    ``non_enhancing``: number or name of that part in ``tumour``; ``propose``: intraoperative T2 or FLAIR in the
    look of the other scans, on which what is left of it is proposed; ``flair``: one that lies on ``preop``.
    ``patient_id``: empty to take that of the DICOM headers. ``native_taken``, ``contrast_taken``: as a person enters
    them, where no header says.
    """

    native: Path
    preop: Path | None = None
    tumour: Path | None = None
    contrast: Path | None = None
    label: str = ""
    patient_id: str = ""
    native_taken: str = ""
    contrast_taken: str = ""
    planned: tuple[Path, ...] = ()
    diameter_mm: float | None = None
    metal: str = ""
    plan: Plan | None = None
    outlined: tuple[str, ...] = ()
    baseline: Path | None = None
    non_enhancing: str = ""
    propose: Path | None = None
    flair: Path | None = None


def run_files(files: CaseFiles, folder: Path, wait_s: float = 60.0) -> Outcome:
    """Register the scans, assess what the plan asks for, write report, record and scene to ``folder``.

    The rules are those of a session with a scanner: what a person must draw is added later by ``measure``. Raises an
    IntraopError with one sentence when something is missing or a stage fails; then there is no number.
    """
    plan, scans = read_case_files(files)
    if files.baseline is not None:
        if "contrast" not in scans:
            raise SessionError("a baseline is about a residual: give --contrast and --tumour, or leave --baseline out")
        plan, native = replace(plan, baseline=read_baseline(files.baseline)), image_entry(scans["native"], "native")
        assert plan.baseline is not None
        if why := not_after(plan.baseline, native.name, native.acquired_utc):
            raise SessionError(why)
    if files.propose is None and files.flair is not None:
        raise SessionError("a T2 or FLAIR from before surgery is for a proposal: give --propose, or leave --flair out")
    if files.propose is not None and plan.tumour is None:
        raise SessionError("what is left of a tumour is proposed by its outline before surgery: give --tumour")
    if files.propose is not None:
        plan = replace(plan, measures=(*plan.measures, PROPOSED))
    scan = None if files.propose is None else _scan(*_read(files.propose), "native", "", False)
    flair = None if files.flair is None else _read(files.flair)[0]
    with Session(plan) as session:
        session.connect(None)
        for role, image in scans.items():
            session.offer_scan(image, role)
        if scan is None:
            return follow(plan, session, folder, wait_s)
        title, given = RECIPES[PROPOSED].title, (session, scan, flair, folder)
        return follow(plan, session, folder, wait_s, beside=lambda: {title: proposal_for_review(*given)})


def proposal_for_review(session: Session, scan: Image, flair: Image | None, folder: Path) -> str:
    """Write PROPOSAL, and OPEN where it cannot be told, to ``folder``; why there is no number yet, in words.

    Where the patient has moved between both scans, ``scan`` as well, as it was laid on the registered one.
    """
    try:
        proposal = session.propose(scan, flair)
    except IntraopError as error:
        return f"nothing is proposed: {error}"
    write_volume(proposal.label, folder / PROPOSAL)
    write_volume(proposal.open, folder / OPEN)
    moved = proposal.scan is not scan
    if moved:
        write_volume(proposal.scan, folder / LAID)
    return (
        f"{PROPOSAL} is a proposal that nobody has reviewed ({words_of(proposal.volume)}; {proposal.rests_on}) Correct "
        f"it{f' on {LAID}' if moved else ''}, with {OPEN} where it cannot be told, then give it to "
        f"'measure {PROPOSED} --outline'"
    )


def read_case_files(files: CaseFiles) -> tuple[Plan, dict[Role, Image]]:
    """The plan, and the scans with their times. Raises an IntraopError that says what is wrong or missing."""
    loose = files.preop, files.tumour, files.planned, files.patient_id, files.outlined
    if files.plan is not None and any(loose):
        raise SessionError(
            "a case folder knows the plan: leave --preop, --tumour, --planned, --outlined and --patient out beside it"
        )
    if files.plan is None and (files.preop is None or (files.tumour is None) == (not files.planned)):
        raise SessionError("name a case folder with --case, or --preop with either --tumour or --planned")
    about_tumour = files.tumour is not None or (files.plan is not None and files.plan.tumour is not None)
    if about_tumour != (files.contrast is not None):
        raise SessionError(
            "a residual tumour is seen with contrast agent, nothing else is: give --contrast for it alone"
        )
    paths = {"preoperative": files.preop, "native": files.native, "contrast": files.contrast}
    read = {role: _read(path) for role, path in paths.items() if path is not None}
    known = _one_patient({role: header for role, (_image, header) in read.items()})
    taken: dict[Role, str] = {"native": files.native_taken, "contrast": files.contrast_taken}
    pair = files.contrast is not None
    scans = {role: _scan(*read[role], role, entered, pair) for role, entered in taken.items() if role in read}
    if files.plan is not None:
        return replace(files.plan, patient=files.plan.patient or known), scans
    preop, header = read["preoperative"]
    named = (files.patient_id, header.patient_id, *(scan.patient_id for scan in scans.values()))
    patient = next((name for name in named if name), "")
    if not patient:
        raise SessionError("no file says whose images these are: name the patient with --patient")
    structures = _outlined(files.outlined, preop)
    if files.tumour is not None:
        tumour = _tumour(files.tumour, files, preop)
        return Plan(patient, PROCEDURE, preop, tumour, at_risk=structures, patient=known), scans
    implants = tuple(_planned(path, files) for path in files.planned)
    names = [implant.name for implant in implants]
    if len(set(names)) < len(names):
        raise SessionError(f"two planned implants have one name, that of their file: {', '.join(names)}; rename one")
    outlined = told_apart(structures, implants)
    plan = Plan(patient, IMPLANTS, preop, trajectories=implants, patient=known, **vars(outlined))
    return plan, scans


def _tumour(path: Path, files: CaseFiles, preop: Image) -> Image:
    """The enhancing tumour, or with its non-enhancing part, or that alone."""
    if not files.non_enhancing:
        return read_structure(path, files.label, preop, "--label")
    tumour = read_structure(path, files.non_enhancing, preop, "--non-enhancing")
    labels = np.where(tumour.array != 0, NECROSIS + 1, 0).astype(np.uint8)
    if files.label:
        enhancing = read_structure(path, files.label, preop, "--label")
        if enhancing.array.shape != labels.shape or not np.allclose(enhancing.ras_from_ijk, tumour.ras_from_ijk):
            raise SessionError(f"--label and --non-enhancing of {path} lie on two grids: save them as one segmentation")
        labels[enhancing.array != 0] = 1
    return tumour.with_array(labels)


def _outlined(named: Iterable[str], preop: Image) -> dict[str, Image]:
    """All structures by their names. Raises SessionError when two have one name."""
    found: dict[str, Image] = {}
    for each in named:
        more = read_structures(each, preop)
        if both := sorted(set(found) & set(more)):
            raise SessionError(f"two structures of --outlined are called '{both[0]}': name them apart")
        found |= more
    return found


def _one_patient(headers: Mapping[str, DicomFacts]) -> Mapping[str, str]:
    """What the headers say of the patient beside the identifier. Raises SessionError when two contradict each other."""
    for (one, first), (two, second) in combinations(headers.items(), 2):
        if different := first.contradicts(second.patient):
            raise SessionError(f"the {one} and the {two} volume are of two patients: {different}")
    return next((header.patient for header in headers.values() if header.patient), {})


def _planned(path: Path, files: CaseFiles) -> Trajectory:
    """A line of two points, from entry to tip, called as its file."""
    points = read_points(path)
    if len(points) != 2:
        raise SessionError(f"{path} holds {len(points)} points: a planned implant is a line from its entry to its tip")
    if files.diameter_mm is None:
        raise SessionError("planned implants need their diameter in mm: give --diameter")
    entry, tip = (place for _name, place in points)
    return Trajectory(entry, tip, files.diameter_mm, path.name.split(".")[0], METALS_PPM.get(files.metal))


def _read(path: Path) -> tuple[Image, DicomFacts]:
    return read_series(path) if is_dicom(path) else (read_volume(path), DicomFacts())


def _scan(image: Image, header: DicomFacts, role: Role, entered: str, pair: bool) -> Image:
    """A scan with its time, which must be known in a ``pair``: it shows which of both was first."""
    if header.modality not in ("", "MR"):
        raise SessionError(
            f"the {role} scan '{image.name}' is {header.modality}, no MR: name the folder of the MR series"
        )
    taken, source = local_utc_s(entered), "entered by hand"
    if header.taken_utc_s is not None:
        if taken is not None:
            raise SessionError(
                f"--{role}-taken says '{entered}', but the header of '{image.name}' says "
                f"{local_text(header.taken_utc_s)}: leave the option out"
            )
        taken, source = header.taken_utc_s, header.taken_from
    if taken is None and pair:
        raise SessionError(
            f"the {role} scan does not say when it was taken, and without it nothing shows which scan was first: give "
            f"the time with --{role}-taken 'YYYY-MM-DD HH:MM'"
        )
    return replace(
        image,
        acquired_utc_s=taken,
        metadata={**image.metadata, **({} if taken is None else {TAKEN_FROM: source})},
    )
