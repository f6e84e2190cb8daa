"""Raw data in a file become volumes on the command line: where they lie, by which method, or why not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from IntraopMRILib.cli import main
from IntraopMRILib.cli.commands import INCOMPLETE
from IntraopMRIReconstructionLib.data import GEOMETRY, Image
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.reconstruct.quantities import SCAN_FOR
from IntraopMRIReconstructionLib.simulate.kspace import Sampling, simulate_scan
from IntraopMRIReconstructionLib.simulate.volumes import read_volume
from IntraopMRIReconstructionLib.wire.mrd_file import write_mrd
from peers.dicom_case import grid

SHAPE = (10, 36, 44)


def picture(directions: np.ndarray) -> Image:
    """Boxes of several brightness, none of them in the middle."""
    values = np.zeros(SHAPE, np.float32)
    values[1:6, 3:24, 4:30] = 400.0
    values[2:4, 6:12, 7:17] = 900.0
    values[3:5, 16:21, 22:27] = 100.0
    return Image(values, grid(directions, (2.0, 2.0, 3.0)), "boxes")


def raw(path: Path, image: Image, **metadata: str) -> Path:
    scan = simulate_scan(image, "scan-1", coils=4, noise=0.005, sampling=Sampling((1, 2), 16))
    write_mrd(path, replace(scan.encoding, metadata=metadata), scan.blocks())
    return path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz"])
def test_a_volume_lies_where_the_scan_was(
    directions: np.ndarray, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, out = picture(directions), tmp_path / f"made{ending}"
    assert main(["reconstruct", str(raw(tmp_path / "raw.h5", truth)), "--out", str(out)]) == 0
    image = read_volume(out)
    np.testing.assert_allclose(image.ras_from_ijk, truth.ras_from_ijk, atol=2e-3)
    # A matrix as small as this is unfolded from few lines; turned round it would be far less like it.
    turned = [truth.array, *(np.flip(truth.array, axis) for axis in range(3))]
    likeness = [np.corrcoef(image.array.ravel(), array.ravel())[0, 1] for array in turned]
    assert likeness[0] > 0.93
    assert max(likeness[1:]) < likeness[0] - 0.2
    assert "grappa, " in said(capsys)
    told = json.loads((tmp_path / "made.json").read_text())
    assert told["provenance"]["method"] == "grappa"
    assert {file.name for file in tmp_path.iterdir()} == {
        "raw.h5", "made.json", f"made{ending}", f"made-g-factor{ending}",
    }  # fmt: skip


def test_methods_are_compared_and_those_that_cannot_be_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(raw(tmp_path / "raw.h5", picture(np.eye(3))))
    methods = [part for name in ("fft", "sense", "gridding") for part in ("--method", name)]
    assert main(["reconstruct", file, "--out", str(tmp_path / "made.nrrd"), *methods]) == INCOMPLETE
    assert "gridding: not possible, method 'gridding' does not reconstruct a cartesian scan" in said(capsys)
    aliased, unfolded = (read_volume(tmp_path / f"made-{name}.nrrd").array for name in ("fft", "sense"))
    truth = picture(np.eye(3)).array
    likeness = [np.corrcoef(made.ravel(), truth.ravel())[0, 1] for made in (aliased, unfolded)]
    assert likeness[0] < likeness[1] - 0.05
    # None of the two alone can be made: nothing is written.
    before = sorted(tmp_path.iterdir())
    assert main(["reconstruct", file, "--out", str(tmp_path / "other.nrrd"), "--method", "gridding"]) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_overwritten_and_what_is_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(raw(tmp_path / "raw.h5", picture(np.eye(3))))
    heat = str(raw(tmp_path / "heat.h5", picture(np.eye(3)), **{SCAN_FOR: "temperature"}))
    for name in ("session.json", "volume.nii", "scan-g-factor.nrrd"):
        (tmp_path / name).write_text("of something else")
    (tmp_path / "text.h5").write_text("no MRD")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments, words in (
        ([file, "--out", "session.nrrd"], "session.json' exists already: choose another name with --out"),
        ([file, "--out", "volume.nii"], "volume.nii' exists already"),
        ([file, "--out", "scan.nrrd"], "scan-g-factor.nrrd' exists already"),
        ([file, "--out", "picture.png"], "no name of a volume: let it end in .nrrd"),
        ([file, "--out", "gone/made.nrrd"], "there is no folder"),
        ([str(tmp_path / "text.h5"), "--out", "made.nrrd"], "as MRD (HDF5)"),
        ([file, "--out", "made.nrrd", "--choose", "group=other"], "no MRD raw data under 'other'"),
        ([file, "--out", "made.nrrd", "--choose", "colour=1"], "--choose names what the file does not leave open"),
        ([file, "--out", "made.nrrd", "--frame", "7"], "repetition 7 of scan"),
        ([heat, "--out", "made.nrrd"], "is a scan for a temperature: name an echo with --echo"),
    ):
        path, option, out, *rest = arguments
        assert main(["reconstruct", path, option, str(tmp_path / out), *rest]) == 1
        assert words in said(capsys)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(SystemExit):
        main(["reconstruct", file, "--out", "made.nrrd", "--choose", "group"])
    assert "no NAME=VALUE" in said(capsys)
    assert main(["reconstruct", heat, "--out", str(tmp_path / "made.nrrd"), "--echo", "0"]) == 0


def test_an_assumed_orientation_is_in_no_file_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be looked at; what registers volumes refuses it."""
    file = str(raw(tmp_path / "raw.h5", picture(np.eye(3)), **{GEOMETRY: "assumed axial"}))
    assert main(["reconstruct", file, "--out", str(tmp_path / "made.nii.gz")]) == 1
    assert "only NRRD can say so" in said(capsys)
    assert main(["reconstruct", file, "--out", str(tmp_path / "made.nrrd")]) == 0
    for name in ("made", "made-g-factor"):
        with pytest.raises(DataError, match="does not say how it lies in the patient"):
            read_volume(tmp_path / f"{name}.nrrd")
