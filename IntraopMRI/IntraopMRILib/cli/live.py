"""Commands that follow a scanner: a session, or what one has recorded; and the demo and the lab, which simulate one."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from IntraopMRIReconstructionLib.errors import SessionError

from .arguments import address, finite, positive, profile, spot, zero_or_more
from .results import RECORDING, finished_or_nothing, kept_when_it_fails, told
from .signals import load_scene


def add_demo(parser: argparse.ArgumentParser) -> None:
    """A simulated session."""
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for the results")
    _add_case(parser)


def add_lab(parser: argparse.ArgumentParser) -> None:
    """The theatre alone."""
    parser.add_argument("--out", type=Path, default=Path("theatre"), help="folder for the case")
    _add_case(parser)


def add_session(parser: argparse.ArgumentParser) -> None:
    """Against a scanner."""
    parser.add_argument("--scanner", type=address, required=True, metavar="HOST:PORT", help="sends scans, or raw data")
    parser.add_argument("--tracker", type=address, metavar="HOST:PORT", help="sends the poses of a pointer")
    parser.add_argument("--live", type=address, metavar="HOST:PORT", help="a stream of 2D slices")
    parser.add_argument("--record", action="store_true", help="keep the wire traffic with the results")
    text = "follow an ablation too: ask the scanner for its temperature scan and mark what is heated"
    parser.add_argument(
        "--heat",
        nargs="?",
        type=spot,
        const=True,
        metavar="R,A,S",
        help=f"{text}; --heat=R,A,S in mm, else the hottest place",
    )
    parser.add_argument("--heat-radius", type=positive, default=20.0, metavar="MM", help="beyond it nothing is heated")
    parser.add_argument(
        "--heat-before", type=finite, default=37.0, metavar="C", help="temperature of the tissue before"
    )
    _add_following(parser, "the first")


def add_replay(parser: argparse.ArgumentParser) -> None:
    """From a recording."""
    parser.add_argument("recording", type=Path, help="folder 'recording' in the results of a recorded session")
    parser.add_argument("--speed", type=positive, help="times as fast as it was; as fast as possible when left out")
    _add_following(parser, "what the peer was taken for then")


def demo(options: argparse.Namespace) -> None:
    """Both procedures, compared with the truth."""
    from .demo import run_demo

    load_scene()
    with finished_or_nothing(options.out) as folder:
        run_demo(folder, options.seed, options.preop)
    print(f"\nResults are in {options.out}/ (open brain/report.html and spine/report.html)")


def lab(options: argparse.Namespace) -> None:
    """Serves until it is interrupted."""
    from .demo import run_lab

    run_lab(options.out, options.seed, options.preop)


def session(options: argparse.Namespace) -> int:
    """Returns the exit status."""
    from ..session.links import PARTS
    from .cases import plan_of_case
    from .heat import Heat
    from .run import run_session

    heat = None
    if options.heat is not None:
        heat = Heat(None if options.heat is True else options.heat, options.heat_radius, options.heat_before)
    plan = plan_of_case(options.case, options.procedure)
    load_scene()
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
    return told(outcome, options.out)


def replay(options: argparse.Namespace) -> int:
    """Returns the exit status."""
    from .cases import plan_of_case
    from .run import run_replay

    plan = plan_of_case(options.case, options.procedure)
    load_scene()
    with finished_or_nothing(options.out) as folder:
        profiles = dict(options.profile)
        speed, wait, navigate = options.speed, options.wait, options.navigate
        outcome = run_replay(plan, options.recording, folder, speed, wait, navigate, profiles, options.tool)
    return told(outcome, options.out)


def _add_case(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preop", type=Path, help="your own head or brain volume (NIfTI, NRRD or DICOM folder)")
    parser.add_argument("--seed", type=int, default=1, help="another seed is another patient")


def _add_following(parser: argparse.ArgumentParser, left_out: str) -> None:
    from IntraopMRIReconstructionLib.wire.trust import PROFILES

    from ..session.links import PARTS
    from ..session.measures import RECIPES

    parser.add_argument(
        "--profile",
        type=profile,
        action="append",
        default=[],
        metavar="[PART=]NAME",
        help=f"what the program at the other end means; PART: {', '.join(PARTS)}, the first when left out; NAME: "
        f"{', '.join(PROFILES)}, {left_out} when left out",
    )
    parser.add_argument(
        "--tool", default="", metavar="NAME", help="which tool of the tracker is the pointer; else the first seen"
    )
    parser.add_argument("--case", type=Path, required=True, help="case folder with preop.nrrd, tumour, plan.json")
    text = "what is asked for: residual, implants or alignment, or a measure that a person draws for later"
    parser.add_argument("--procedure", choices=("brain", "spine", *RECIPES), default="brain", help=text)
    parser.add_argument("--wait", type=positive, default=60.0, metavar="S", help="longest silence of the scanner (s)")
    parser.add_argument(
        "--navigate", type=zero_or_more, default=10.0, metavar="S", help="time to follow the pointer (s)"
    )
    parser.add_argument("--out", type=Path, default=Path("session-output"), help="folder for the results")
