"""The command line: a whole session without Slicer's application.

``demo`` makes a simulated theatre, runs the session against it and compares with the truth. ``session`` runs against
any OpenIGTLink scanner and tracker, ``replay`` against what such a session recorded; ``measure`` adds what a person
has drawn on its scan since. ``send`` brings its DICOM objects to an archive. ``assess`` takes finished volumes from
files; ``reconstruct`` makes them of raw data. ``lab`` only makes a case and keeps the theatre open for others.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from IntraopMRIReconstructionLib.errors import IntraopError, SessionError
from IntraopMRIReconstructionLib.reconstruct.methods import METHODS
from IntraopMRIReconstructionLib.reconstruct.products import Wanted
from IntraopMRIReconstructionLib.wire.trust import PROFILES

from ..assess.implant import METALS_PPM
from ..session import Plan
from ..session.files import DRAWN_BEFORE
from ..session.links import PARTS, RECORDING
from ..session.measures import RECIPES
from .arguments import address, choice, finite, positive, profile, spot, zero_or_more
from .results import finished_or_nothing, kept_when_it_fails

if TYPE_CHECKING:
    from .run import Outcome

Handler = Callable[[int, FrameType | None], Any] | signal.Handlers
#: Exit status when results were written and something that was asked for is missing in them.
INCOMPLETE = 3
#: For a script that runs many cases.
EXITS = (
    "Exit status: 0 done; 1 failed, nothing was written; 2 wrong arguments; "
    f"{INCOMPLETE} results were written, and something that was asked for is missing in them, named at the end; "
    "128 and more: ended by a signal. Earlier results in the folder of --out are replaced, nothing else is."
)
#: What has to be said beside a measure, by its kind.
OPTIONS = {kind: recipe.options for kind, recipe in RECIPES.items() if recipe.options}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 with one sentence on stderr, 128 and the signal's number when
    it was ended by one.

    INCOMPLETE when results were written without something that was asked for; then each has its sentence on stderr.
    """
    options = _parser().parse_args(arguments)
    try:
        with _ended_by_signals():
            return int(options.run(options) or 0)
    except IntraopError as error:
        print(f"intraopmri: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # Of this computer: a disk that is full, a file that may not be read.
        print(f"intraopmri: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as ended:
        print("intraopmri: stopped; no results were written", file=sys.stderr)
        return 128 + (ended.args[0] if ended.args else signal.SIGINT)


def _end(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A request to end and the end of the terminal stop a command as Ctrl+C does: nothing half-written stays."""
    # What is ignored, as under nohup, stays so.
    with _handled({"SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}, _end):
        yield


def _load_scene() -> None:
    """Slicer's libraries, before anything is begun: an exception in the middle of their import is a crash.

    A signal ends the command there and then.
    """
    with _handled({"SIGINT": signal.default_int_handler, "SIGTERM": _end, "SIGHUP": _end}, signal.SIG_DFL):
        from ..scene import headless, offscreen, scene_io, session_view  # noqa: F401


@contextmanager
def _handled(expected: Mapping[str, Handler], handler: Handler) -> Iterator[None]:
    """Signals that are handled as expected are handled by another one."""
    before: dict[signal.Signals, Handler] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.Signals[name] for name in expected if hasattr(signal, name)):
            if signal.getsignal(number) is expected[number.name]:
                before[number] = expected[number.name]
                signal.signal(number, handler)
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


def _parser() -> argparse.ArgumentParser:
    text = "Intraoperative MRI without Slicer. Research only."
    parser = argparse.ArgumentParser(prog="intraopmri", description=text, epilog=EXITS)
    commands = parser.add_subparsers(required=True)

    demo = commands.add_parser("demo", help="a simulated session, end to end, compared with the truth")
    demo.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for the results")
    demo.set_defaults(run=_demo)

    lab = commands.add_parser("lab", help="make a case and keep its scanner and tracker running")
    lab.add_argument("--out", type=Path, default=Path("theatre"), help="folder for the case")
    lab.set_defaults(run=_lab)
    for command in (demo, lab):
        command.add_argument("--preop", type=Path, help="your own head or brain volume (NIfTI, NRRD or DICOM folder)")
        command.add_argument("--seed", type=int, default=1, help="another seed is another patient")

    session = commands.add_parser("session", help="a session against a scanner and a tracker")
    session.add_argument("--scanner", type=address, required=True, metavar="HOST:PORT", help="sends scans, or raw data")
    session.add_argument("--tracker", type=address, metavar="HOST:PORT", help="sends the poses of a pointer")
    session.add_argument("--live", type=address, metavar="HOST:PORT", help="a stream of 2D slices")
    session.add_argument("--record", action="store_true", help="keep the wire traffic with the results")
    text = "follow an ablation too: ask the scanner for its temperature scan and mark what is heated"
    session.add_argument(
        "--heat",
        nargs="?",
        type=spot,
        const=True,
        metavar="R,A,S",
        help=f"{text}; --heat=R,A,S in mm, else the hottest place",
    )
    session.add_argument("--heat-radius", type=positive, default=20.0, metavar="MM", help="beyond it nothing is heated")
    session.add_argument(
        "--heat-before", type=finite, default=37.0, metavar="C", help="temperature of the tissue before"
    )
    session.set_defaults(run=_session)
    replay = commands.add_parser("replay", help="a recorded session again")
    replay.add_argument("recording", type=Path, help="folder 'recording' in the results of a recorded session")
    replay.add_argument("--speed", type=positive, help="times as fast as it was; as fast as possible when left out")
    replay.set_defaults(run=_replay)
    for command, left_out in ((session, "the first"), (replay, "what the peer was taken for then")):
        command.add_argument(
            "--profile",
            type=profile,
            action="append",
            default=[],
            metavar="[PART=]NAME",
            help=f"what the program at the other end means; PART: {', '.join(PARTS)}, the first when left out; NAME: "
            f"{', '.join(PROFILES)}, {left_out} when left out",
        )
        command.add_argument(
            "--tool", default="", metavar="NAME", help="which tool of the tracker is the pointer; else the first seen"
        )
        command.add_argument("--case", type=Path, required=True, help="case folder with preop.nrrd, tumour, plan.json")
        text = "what is asked for: residual, implants or alignment, or a measure that a person draws for later"
        command.add_argument("--procedure", choices=("brain", "spine", *RECIPES), default="brain", help=text)
        command.add_argument(
            "--wait", type=positive, default=60.0, metavar="S", help="longest silence of the scanner (s)"
        )
        command.add_argument(
            "--navigate", type=zero_or_more, default=10.0, metavar="S", help="time to follow the pointer (s)"
        )
        command.add_argument("--out", type=Path, default=Path("session-output"), help="folder for the results")
    assess = commands.add_parser("assess", help="a session from files, no scanner needed: residual, implants, measures")
    for name, text in (
        ("preop", "preoperative volume"),
        ("tumour", "enhancing tumour, drawn on the preoperative volume"),
        ("contrast", "the scan with contrast agent, for a tumour"),
        ("native", "intraoperative scan without contrast agent"),
    ):
        text += " (NIfTI, NRRD or DICOM" + (", SEG and RTSTRUCT too)" if name == "tumour" else ")")
        assess.add_argument(f"--{name}", type=Path, required=name == "native", help=text)
    text = "implant planned on the preoperative volume, a line from entry to tip; again for each"
    assess.add_argument("--planned", type=Path, action="append", default=[], metavar="MRK.JSON", help=text)
    assess.add_argument("--diameter", type=positive, metavar="MM", help="of the planned implants")
    assess.add_argument("--metal", choices=tuple(METALS_PPM), default="", help="of the planned implants")
    text = (
        "structures outlined on the preoperative volume: a segmentation (Slicer, DICOM) with names, or a label; "
        "vertebrae are called C1 to S1, pedicles have that word in their name, others are at risk; again for each"
    )
    assess.add_argument("--outlined", action="append", default=[], metavar="SEG|NAME=LABEL", help=text)
    text = "case folder with what is known before the operation, in the place of --preop and what was drawn on it"
    assess.add_argument("--case", type=Path, help=text)
    assess.add_argument("--procedure", choices=("brain", "spine", *RECIPES), default="brain", help="of the case folder")
    text = "number or name of the enhancing tumour, when --tumour holds several"
    assess.add_argument("--label", default="", metavar="NUMBER|NAME", help=text)
    assess.add_argument("--patient", default="", help="identifier of the patient, where no DICOM header says it")
    for name in ("native", "contrast"):
        text = "when it was taken, by this computer's clock, where no DICOM header says it"
        assess.add_argument(f"--{name}-taken", default="", metavar="TIME", help=text)
    assess.add_argument("--out", type=Path, default=Path("session-output"), help="folder for the results")
    assess.set_defaults(run=_assess)
    raw = commands.add_parser("reconstruct", help="volumes of raw data from a file (MRD), by one method or several")
    raw.add_argument("raw", type=Path, metavar="RAW.H5", help="raw data in MRD (ISMRMRD)")
    raw.add_argument("--out", type=Path, required=True, metavar="VOLUME", help="NRRD, NIfTI or MetaImage to write")
    raw.add_argument("--method", action="append", choices=("auto", *METHODS), help="again for each that is compared")
    raw.add_argument("--echo", type=int, help="number of the echo, from 0")
    raw.add_argument("--frame", type=int, help="number of the repetition, from 0; the last when left out")
    text = "what the file leaves open, as its error names it; again for each"
    raw.add_argument("--choose", type=choice, action="append", default=[], metavar="NAME=VALUE", help=text)
    raw.set_defaults(run=_reconstruct)
    measure = commands.add_parser("measure", help="numbers from what was drawn on a session's scan since")
    measure.add_argument("kind", choices=tuple(RECIPES))
    measure.add_argument("--results", type=Path, default=Path("session-output"), help="folder of a finished session")
    measure.add_argument("--case", type=Path, help="case folder with what is known before the operation")
    measure.add_argument("--preop", type=Path, help="or the volume that the session began with, and drawn on it:")
    for name, file in DRAWN_BEFORE.items():
        measure.add_argument(f"--{name}", type=Path, metavar=file.partition(".")[2].upper(), help="before surgery")
    measure.add_argument("--points", type=Path, metavar="MRK.JSON", help="landmarks on the intraoperative scan")
    measure.add_argument("--outline", type=Path, metavar="NRRD", help="label on the intraoperative scan")
    measure.add_argument("--option", default="", help="; ".join(f"{k}: {', '.join(o)}" for k, o in OPTIONS.items()))
    measure.add_argument("--by", required=True, help="who has drawn this and confirms the registration")
    measure.set_defaults(run=_measure)
    send = commands.add_parser("send", help="the DICOM objects of a finished session to an archive (PACS)")
    send.add_argument("--results", type=Path, default=Path("session-output"), help="folder of a finished session")
    send.add_argument("--to", type=address, required=True, metavar="HOST:PORT", help="where the archive listens")
    send.add_argument("--called", required=True, metavar="AE", help="application entity title of the archive")
    send.add_argument("--calling", default="INTRAOPMRI", metavar="AE", help="title by which it knows this computer")
    send.add_argument("--wait", type=positive, default=30.0, metavar="S", help="longest silence of the archive (s)")
    text = "wait for storage commitment too; PORT: where the archive calls back, 0: it answers on the same connection"
    send.add_argument("--commit", type=int, metavar="PORT", help=text)
    send.set_defaults(run=_send)
    return parser


def _demo(options: argparse.Namespace) -> None:
    from .demo import run_demo

    _load_scene()
    with finished_or_nothing(options.out) as folder:
        run_demo(folder, options.seed, options.preop)
    print(f"\nResults are in {options.out}/ (open brain/report.html and spine/report.html)")


def _lab(options: argparse.Namespace) -> None:
    from .demo import run_lab

    run_lab(options.out, options.seed, options.preop)


def _session(options: argparse.Namespace) -> int:
    from .heat import Heat
    from .run import run_session

    heat = None
    if options.heat is not None:
        heat = Heat(None if options.heat is True else options.heat, options.heat_radius, options.heat_before)
    plan = plan_of_case(options.case, options.procedure)
    _load_scene()
    with finished_or_nothing(options.out) as folder, kept_when_it_fails(folder / RECORDING, options.out):
        links = {part: getattr(options, part) for part in PARTS}
        for part, profile in options.profile:
            if links[part] is None:
                raise SessionError(f"--profile names the {part}, of which no address is given: add --{part} HOST:PORT")
            links[part] = replace(links[part], profile=profile)
        if options.tool:
            if links["tracker"] is None:
                raise SessionError("--tool names a tool of the tracker: add --tracker HOST:PORT")
            links["tracker"] = replace(links["tracker"], tool=options.tool)
        outcome = run_session(
            plan,
            links["scanner"],
            links["tracker"],
            links["live"],
            folder,
            options.wait,
            options.navigate,
            options.record,
            heat,
        )
    return _told(outcome, options.out)


def _replay(options: argparse.Namespace) -> int:
    from .run import run_replay

    plan = plan_of_case(options.case, options.procedure)
    _load_scene()
    with finished_or_nothing(options.out) as folder:
        profiles = dict(options.profile)
        speed, wait, navigate = options.speed, options.wait, options.navigate
        outcome = run_replay(plan, options.recording, folder, speed, wait, navigate, profiles, options.tool)
    return _told(outcome, options.out)


def _assess(options: argparse.Namespace) -> int:
    from .files import CaseFiles, run_files

    o = options
    files = CaseFiles(
        o.native,
        o.preop,
        o.tumour,
        o.contrast,
        o.label,
        o.patient,
        o.native_taken,
        o.contrast_taken,
        tuple(o.planned),
        o.diameter,
        o.metal,
        None if o.case is None else plan_of_case(o.case, o.procedure),
        tuple(o.outlined),
    )
    _load_scene()
    with finished_or_nothing(o.out) as folder:
        outcome = run_files(files, folder)
    return _told(outcome, o.out)


def _reconstruct(options: argparse.Namespace) -> int:
    from rich.progress import Progress

    from .raw import print_made, reconstruct_file

    wanted = Wanted(contrast=options.echo, repetition=options.frame)
    methods = tuple(dict.fromkeys(options.method or ["auto"]))
    with Progress(transient=True) as bars:
        bar = bars.add_task("read", total=1.0)

        def show(fraction: float, what: str) -> bool:
            bars.update(bar, completed=fraction, description=what)
            return True

        made, refused = reconstruct_file(options.raw, options.out, methods, wanted, dict(options.choose), show)
    print_made(made, refused)
    return INCOMPLETE if refused else 0


def _told(outcome: Outcome, out: Path) -> int:
    """Say where the results are and what is missing in them; returns the exit status."""
    print(f"\nResults are in {out}/ (open report.html)", flush=True)
    for name, why in outcome.missing.items():
        print(f"intraopmri: missing: {name}; {why}", file=sys.stderr)
    return INCOMPLETE if outcome.missing else 0


def _measure(options: argparse.Namespace) -> None:
    from .measure import add_measure

    before = {name: getattr(options, name) for name in DRAWN_BEFORE if getattr(options, name) is not None}
    found = add_measure(
        options.results,
        options.case,
        options.kind,
        options.points,
        options.outline,
        options.option,
        options.by,
        options.preop,
        before,
    )
    for m in found.measurements:
        between = "" if m.interval is None else f" ({m.interval[0]:.2f} to {m.interval[1]:.2f})"
        print(f"{m.name}: " + (m.missing_because if m.value is None else f"{m.value:.2f} {m.unit}{between}"))
    print(f"{found.note}\nAdded to {options.results}/session.json and report.html".lstrip())


def _send(options: argparse.Namespace) -> None:
    from .send import send_results

    print(send_results(options.results, options.to, options.called, options.calling, options.wait, options.commit))


def plan_of_case(case: Path, procedure: str) -> Plan:
    """What a case folder knows before the operation. Raises an IntraopError that names what is missing."""
    from IntraopMRIReconstructionLib.simulate.case_files import read_case

    from ..assess.implant import Trajectory
    from ..session.files import plan_of_files
    from ..session.implants import implanted_of, vertebrae_of

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
