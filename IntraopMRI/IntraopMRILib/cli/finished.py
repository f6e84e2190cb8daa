"""Commands on files: finished volumes to a session's results, raw data to volumes, what is added to results later, and
their way to an archive.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from IntraopMRIReconstructionLib.errors import SessionError

from .arguments import address, choice, positive
from .results import INCOMPLETE, finished_or_nothing, told, words_of
from .signals import load_scene


def add_assess(parser: argparse.ArgumentParser) -> None:
    """Volumes that are there."""
    from ..assess.implant import METALS_PPM
    from ..session.measures import RECIPES

    for name, text in (
        ("preop", "preoperative volume"),
        ("tumour", "enhancing tumour, drawn on the preoperative volume"),
        ("contrast", "the scan with contrast agent, for a tumour"),
        ("native", "intraoperative scan without contrast agent"),
    ):
        text += " (NIfTI, NRRD or DICOM" + (", SEG and RTSTRUCT too)" if name == "tumour" else ")")
        parser.add_argument(f"--{name}", type=Path, required=name == "native", help=text)
    text = "implant planned on the preoperative volume, a line from entry to tip; again for each"
    parser.add_argument("--planned", type=Path, action="append", default=[], metavar="MRK.JSON", help=text)
    parser.add_argument("--diameter", type=positive, metavar="MM", help="of the planned implants")
    parser.add_argument("--metal", choices=tuple(METALS_PPM), default="", help="of the planned implants")
    text = (
        "structures outlined on the preoperative volume: a segmentation (Slicer, DICOM) with names, or a label; "
        "vertebrae are called C1 to S1, pedicles have that word in their name, others are at risk; again for each"
    )
    parser.add_argument("--outlined", action="append", default=[], metavar="SEG|NAME=LABEL", help=text)
    text = "case folder with what is known before the operation, in the place of --preop and what was drawn on it"
    parser.add_argument("--case", type=Path, help=text)
    parser.add_argument("--procedure", choices=("brain", "spine", *RECIPES), default="brain", help="of the case folder")
    text = "number or name of the enhancing tumour, when --tumour holds several"
    parser.add_argument("--label", default="", metavar="NUMBER|NAME", help=text)
    text = "number or name of its non-enhancing part"
    parser.add_argument("--non-enhancing", default="", metavar="NUMBER|NAME", help=text)
    text = (
        "T2 or FLAIR scan of the same look, whose position is checked: what is left of the non-enhancing part is "
        "proposed on it, for a person to review and to give to measure"
    )
    parser.add_argument("--propose", type=Path, metavar="SCAN", help=text)
    parser.add_argument("--flair", type=Path, help="T2 or FLAIR that lies on the preoperative volume, for --propose")
    parser.add_argument("--patient", default="", help="identifier of the patient, where no DICOM header says it")
    for name in ("native", "contrast"):
        text = "when it was taken, by this computer's clock, where no DICOM header says it"
        parser.add_argument(f"--{name}-taken", default="", metavar="TIME", help=text)
    text = "results of the operation, or of an earlier follow-up: what was left then stands beside what is there now"
    parser.add_argument("--baseline", type=Path, metavar="RESULTS", help=text)
    parser.add_argument("--out", type=Path, default=Path("session-output"), help="folder for the results")


def add_reconstruct(parser: argparse.ArgumentParser) -> None:
    """Raw data."""
    from IntraopMRIReconstructionLib.reconstruct.methods import METHODS

    parser.add_argument("raw", type=Path, metavar="RAW.H5", help="raw data in MRD (ISMRMRD)")
    parser.add_argument("--out", type=Path, required=True, metavar="VOLUME", help="NRRD, NIfTI or MetaImage to write")
    parser.add_argument("--method", action="append", choices=("auto", *METHODS), help="again for each that is compared")
    parser.add_argument("--echo", type=int, help="number of the echo, from 0")
    parser.add_argument("--frame", type=int, help="number of the repetition, from 0; the last when left out")
    text = "what the file leaves open, as its error names it; again for each"
    parser.add_argument("--choose", type=choice, action="append", default=[], metavar="NAME=VALUE", help=text)


def add_measure(parser: argparse.ArgumentParser) -> None:
    """What was drawn since."""
    from ..session.files import DRAWN_BEFORE
    from ..session.measures import RECIPES

    options = "; ".join(f"{kind}: {', '.join(r.options)}" for kind, r in RECIPES.items() if r.options)
    parser.add_argument("kind", choices=tuple(RECIPES))
    parser.add_argument("--results", type=Path, default=Path("session-output"), help="folder of a finished session")
    parser.add_argument("--case", type=Path, help="case folder with what is known before the operation")
    parser.add_argument("--preop", type=Path, help="or the volume that the session began with, and drawn on it:")
    for name, file in DRAWN_BEFORE.items():
        parser.add_argument(f"--{name}", type=Path, metavar=file.partition(".")[2].upper(), help="before surgery")
    parser.add_argument("--points", type=Path, metavar="MRK.JSON", help="landmarks on the intraoperative scan")
    parser.add_argument("--outline", type=Path, metavar="NRRD", help="label on the intraoperative scan")
    parser.add_argument("--option", default="", help=options)
    parser.add_argument("--by", required=True, help="who has drawn this and confirms the registration")


def add_send(parser: argparse.ArgumentParser) -> None:
    """To an archive."""
    parser.add_argument("--results", type=Path, default=Path("session-output"), help="folder of a finished session")
    parser.add_argument("--to", type=address, required=True, metavar="HOST:PORT", help="where the archive listens")
    parser.add_argument("--called", required=True, metavar="AE", help="application entity title of the archive")
    parser.add_argument("--calling", default="INTRAOPMRI", metavar="AE", help="title by which it knows this computer")
    parser.add_argument("--wait", type=positive, default=30.0, metavar="S", help="longest silence of the archive (s)")
    text = "wait for storage commitment too; PORT: where the archive calls back, 0: it answers on the same connection"
    parser.add_argument("--commit", type=int, metavar="PORT", help=text)


def assess(options: argparse.Namespace) -> int:
    """Returns the exit status."""
    from .cases import plan_of_case
    from .files import CaseFiles, run_files

    o = options
    if o.baseline is not None and o.baseline.resolve() == o.out.resolve():
        raise SessionError(f"'{o.out}' is the baseline, and would be replaced: choose another folder with --out")
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
        o.baseline,
        o.non_enhancing,
        o.propose,
        o.flair,
    )
    load_scene()
    with finished_or_nothing(o.out) as folder:
        outcome = run_files(files, folder)
    return told(outcome, o.out)


def reconstruct(options: argparse.Namespace) -> int:
    """Returns the exit status."""
    from IntraopMRIReconstructionLib.reconstruct.products import Wanted
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


def measure(options: argparse.Namespace) -> None:
    """Adds to the results, and prints what was added."""
    from ..session.files import DRAWN_BEFORE
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
    for measurement in found.measurements:
        print(words_of(measurement))
    print(f"{found.note}\nAdded to {options.results}/session.json and report.html".lstrip())


def send(options: argparse.Namespace) -> None:
    """Prints what the archive took."""
    from .send import send_results

    print(send_results(options.results, options.to, options.called, options.calling, options.wait, options.commit))
