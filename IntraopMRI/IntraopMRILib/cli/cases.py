"""The plan of a session from a case folder."""

from __future__ import annotations

from pathlib import Path

from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.simulate.case_files import read_case

from ..assess.implant import Trajectory
from ..session import Plan
from ..session.files import plan_of_files
from ..session.implants import implanted_of, vertebrae_of
from ..session.measures import RECIPES


def plan_of_case(case: Path, procedure: str) -> Plan:
    """What a case folder knows before the operation. Raises an IntraopError that names what is missing."""
    if not case.is_dir():
        raise SessionError(f"there is no case folder at '{case}': name one that holds plan.json, such as 'lab' makes")
    if procedure in RECIPES:
        return plan_of_files(case, procedure)
    content = read_case(case)
    patient = content.plan.patient_id
    if procedure == "brain":
        if content.preop is None or content.tumour is None:
            raise SessionError(f"{case} has no preop.nrrd or no tumour.seg.nrrd: a brain session needs both")
        at_risk = {} if content.at_risk is None else vertebrae_of(content.at_risk, content.plan.at_risk)
        why = "plan.json names it, but at_risk.seg.nrrd holds no voxel of it: outline it"
        return Plan(
            patient,
            "Tumour resection, intraoperative control",
            content.preop,
            content.tumour,
            targets=content.plan.points,
            at_risk=at_risk,
            left_out={f"Structure at risk {name}": why for name in content.plan.at_risk if name not in at_risk},
        )
    bones = {} if content.vertebrae is None else vertebrae_of(content.vertebrae, content.plan.vertebrae)
    implant = content.plan.implant
    if content.spine_preop is None or (implant is None and len(bones) < 2):
        raise SessionError(
            f"{case} has no spine_preop.nrrd, or neither a planned implant nor vertebrae: a spine session needs them"
        )
    if implant is None:
        procedure = "Correction of the spine, intraoperative control"
        return Plan(patient, procedure, content.spine_preop, vertebrae=bones, measures=("alignment",))
    planned = Trajectory(
        implant.entry_ras_mm, implant.tip_ras_mm, implant.diameter_mm, "Pedicle screw", implant.susceptibility_ppm
    )
    return Plan(
        patient,
        "Pedicle screw, intraoperative control",
        content.spine_preop,
        trajectories=(planned,),
        vertebrae=bones,
        implanted=implanted_of((planned,), bones),
        pedicles={} if content.pedicle is None else {planned.name: content.pedicle},
    )
