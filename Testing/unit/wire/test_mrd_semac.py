"""SEMAC as scanners write it, slices with steps of kspace_encode_step_2: read as the same scan with contrasts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding
from IntraopMRIReconstructionLib.errors import IntraopError, OpenChoice, WireError
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.products import Wanted, make
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction
from IntraopMRIReconstructionLib.simulate.metal_scans import SLICE_MM, metal_scan
from IntraopMRIReconstructionLib.simulate.raw_scans import RawScan
from IntraopMRIReconstructionLib.wire.mrd_file import read_mrd, write_mrd
from IntraopMRIReconstructionLib.wire.mrd_layout import ACQUISITION_HEAD, MrdFlag
from IntraopMRIReconstructionLib.wire.mrd_live import LiveScan
from IntraopMRIReconstructionLib.wire.mrd_messages import AcquisitionMessage
from IntraopMRIReconstructionLib.wire.mrd_scan import MrdOptions

STEPS = 8
Change = Callable[[str], str]


@cache
def scanned() -> RawScan:
    return metal_scan(matrix=32, coils=2, steps=STEPS)


def written(path: Path, encoding: Encoding, xml: Change = lambda text: text, first: int = 0) -> Path:
    """The scan with its steps in kspace_encode_step_2 from ``first`` on, as scanners write it."""
    write_mrd(path, encoding, scanned().blocks)
    with h5py.File(path, "r+") as file:
        table = file["dataset"]["data"][:]
        idx = table["head"]["idx"]
        idx["kspace_encode_step_2"] = idx["contrast"] + first
        idx["contrast"] = 0
        file["dataset"]["data"][:] = table
        text = file["dataset"]["xml"][0].decode()
        for space in ("encodedSpace", "reconSpace"):
            block = re.search(rf"<{space}>.*?</{space}>", text)
            assert block is not None
            new = block[0]
            if space == "encodedSpace":
                new = new.replace("<z>1</z>", f"<z>{STEPS}</z>")
                new = re.sub(r"<z>4\.0</z>", f"<z>{STEPS * SLICE_MM}</z>", new)
            text = text.replace(block[0], new)
        text = limits(text, "contrast", 0, 0, 0)
        text = limits(text, "kspace_encoding_step_2", first, first + STEPS - 1, first + STEPS // 2)
        text = re.sub(r"<userParameterString><name>IntraopMRISemacFov_mm.*?</userParameterString>", "", text)
        file["dataset"]["xml"][0] = xml(text)
    return path


def limits(text: str, counter: str, low: int, high: int, centre: int) -> str:
    inside = f"<minimum>{low}</minimum><maximum>{high}</maximum><center>{centre}</center>"
    return re.sub(rf"<{counter}>.*?</{counter}>", f"<{counter}>{inside}</{counter}>", text, count=1)


def turned(directions: np.ndarray) -> Encoding:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * np.array([7.5, 7.5, SLICE_MM])
    matrix[:3, 3] = (10.0, -20.0, 30.0)
    return replace(scanned().encoding, ras_from_ijk=matrix)


def made(encoding: Encoding, blocks: Any) -> Reconstruction:
    collected = collector(encoding)
    for block in blocks:
        collected.add(block)
    return make(collected, Wanted())


def in_ras(result: Reconstruction) -> dict[tuple[float, ...], float]:
    """Brightness by place, of some voxels."""
    array, matrix = result.image.array, result.image.ras_from_ijk
    k, j, i = np.indices(array.shape)[:, ::1, ::5, ::7].reshape(3, -1)
    places = (matrix @ np.stack([i, j, k, np.ones_like(i)]))[:3].T
    return {tuple(np.round(place, 1) + 0.0): float(value) for place, value in zip(places, array[k, j, i], strict=True)}


@pytest.mark.parametrize("first", [0, 3])
def test_a_file_is_the_same_picture_in_the_same_place(tmp_path: Path, directions: np.ndarray, first: int) -> None:
    encoding = turned(directions)
    scan = read_mrd(written(tmp_path / "semac.h5", encoding, first=first))
    assert scan.encoding.contrasts == STEPS
    assert not scan.encoding.is_3d
    assert scan.encoding.encoded_matrix == (8, 32, 32)
    assert float(scan.encoding.metadata["semac_fov_mm"]) == STEPS * SLICE_MM
    assert float(scan.encoding.metadata["slice_thickness_mm"]) == SLICE_MM
    np.testing.assert_allclose(scan.encoding.ras_from_ijk, encoding.ras_from_ijk, atol=1e-4)
    result, expected = made(scan.encoding, scan.acquisitions), made(encoding, scanned().blocks)
    assert result.method == "SEMAC (fft)"
    assert in_ras(result) == pytest.approx(in_ras(expected), rel=1e-4, abs=1e-4)


def volume(text: str) -> str:
    """The header of a scanner that names as many partitions in the image as it encodes."""
    block = re.search(r"<reconSpace>.*?</reconSpace>", text)
    assert block is not None
    return text.replace(block[0], block[0].replace("<z>1</z>", f"<z>{STEPS}</z>").replace("<z>4.0</z>", "<z>32</z>"))


def copied(path: Path, scan: Any) -> Path:
    write_mrd(path, scan.encoding, scan.acquisitions)
    return path


def test_slices_that_would_be_slabs_in_one_another_are_semac_without_another_word(tmp_path: Path) -> None:
    """A foreign header has no field for it: partitions as far apart as slices are steps, others need the parameter."""

    def named(text: str) -> str:
        mine = "<userParameterString><name>IntraopMRISemacFov_mm</name><value>32</value></userParameterString>"
        return volume(text).replace("</userParameters>", f"{mine}</userParameters>")

    for name, change in (("volume", volume), ("named", named)):
        scan = read_mrd(written(tmp_path / f"{name}.h5", scanned().encoding, change))
        assert scan.encoding.metadata["semac_fov_mm"] == "32"
        result = made(scan.encoding, scan.acquisitions)
        assert result.method == "SEMAC (fft)"
        # Where nothing but the distance says so, the result says that, also a copy's.
        copy = read_mrd(copied(tmp_path / f"{name} copy.h5", scan))
        for each in (result, made(copy.encoding, copy.acquisitions)):
            said = [text for text in each.warnings if "assumed to be SEMAC" in text]
            assert len(said) == (name == "volume")
            assert each.provenance["read_as"].startswith("assumed") is (name == "volume")
    with pytest.raises(WireError, match=r"slabs has no single grid.*IntraopMRISemacFov_mm"):
        read_mrd(
            written(
                tmp_path / "slabs.h5", scanned().encoding, lambda text: volume(text).replace("<z>32.0</z>", "<z>40</z>")
            )
        )


@pytest.mark.parametrize("change", [lambda text: text, volume])
def test_a_stream_waits_for_its_slices_and_gives_the_same(tmp_path: Path, change: Change) -> None:
    path = written(tmp_path / "semac.h5", scanned().encoding, change)
    whole = read_mrd(path, MrdOptions(scan_id="file"))
    encoding, *blocks = streamed(path)
    assert isinstance(encoding, Encoding)
    assert all(isinstance(block, Acquisition) for block in blocks)
    assert encoding.metadata["read_as"] == whole.encoding.metadata["read_as"]
    np.testing.assert_allclose(
        made(encoding, blocks).image.array, made(whole.encoding, whole.acquisitions).image.array, rtol=1e-5
    )


@pytest.mark.parametrize("apart_mm", [30.0, 32.0])
def test_slabs_beside_one_another_are_volumes_of_their_own(tmp_path: Path, apart_mm: float) -> None:
    """The same header as that of SEMAC: only where the slabs lie tells. A file says which it holds, and one is read."""
    path = written(tmp_path / "slabs.h5", scanned().encoding, volume)
    with h5py.File(path, "r+") as file:
        table = file["dataset"]["data"][:]
        head = table["head"]
        # One slab after the other, as they are scanned.
        table = table[np.argsort(head["idx"]["slice"], kind="stable")]
        head = table["head"]
        head["position"] += head["slice_dir"] * (head["idx"]["slice"] * (apart_mm - SLICE_MM))[:, None]
        file["dataset"]["data"][:] = table
    slabs = [item for item in streamed(path) if isinstance(item, Encoding)]
    assert [slab.is_3d for slab in slabs] == [True] * scanned().encoding.encoded_matrix[0]
    assert "one of 8 slabs" in slabs[3].metadata["read_as"]
    with pytest.raises(OpenChoice) as caught:
        read_mrd(path)
    assert (caught.value.option, caught.value.values) == ("slice_index", tuple(range(8)))
    third = read_mrd(path, MrdOptions(slice_index=3)).encoding
    np.testing.assert_allclose(third.ras_from_ijk, slabs[3].ras_from_ijk)
    assert third.metadata["read_only"] == "slice 3"


def test_one_slice_of_semac_is_no_volume(tmp_path: Path) -> None:
    """What the slices together tell holds for each."""
    scan = read_mrd(written(tmp_path / "semac.h5", scanned().encoding, volume), MrdOptions(slice_index=2))
    assert not scan.encoding.is_3d
    assert scan.encoding.contrasts == STEPS


def streamed(path: Path) -> list[Any]:
    """What a stream of the readouts of a file gives."""
    with h5py.File(path) as file:
        xml, rows = file["dataset"]["xml"][0].decode(), file["dataset"]["data"][:]
    live, items = LiveScan(MrdOptions(scan_id="file")), []
    live.begin(xml)
    for number in range(len(rows)):
        head = np.frombuffer(rows["head"][number : number + 1].astype(ACQUISITION_HEAD).tobytes(), ACQUISITION_HEAD)
        live.add(AcquisitionMessage(head, rows["data"][number], rows["traj"][number]))
        if number % 64 == 63:
            items += list(live.flush())
    return items + list(live.flush(end=True))


def test_data_whose_phase_turns_the_other_way_is_mirrored_as_a_whole(tmp_path: Path) -> None:
    """Conjugate data are those of the object turned about the centre: in plane, and about each slice."""
    path = written(tmp_path / "semac.h5", scanned().encoding)
    plain = read_mrd(path)
    with h5py.File(path, "r+") as file:
        table = file["dataset"]["data"][:]
        for row in range(len(table)):
            table["data"][row] = table["data"][row].view(np.complex64).conj().view(np.float32)
        file["dataset"]["data"][:] = table
    other = read_mrd(path, MrdOptions(kspace_sign=1))
    one, two = made(plain.encoding, plain.acquisitions), made(other.encoding, other.acquisitions)
    # The same point of space in both; the first sample of each transform has no partner on the other side.
    k, j, i = np.array(np.indices(one.image.array.shape))[:, :, 1:, 1:].reshape(3, -1)
    places = one.image.ras_from_ijk @ np.stack([i, j, k, np.ones_like(i)])
    x, y, z = np.rint(np.linalg.inv(two.image.ras_from_ijk) @ places)[:3].astype(int)
    np.testing.assert_allclose(two.image.array[z, y, x], one.image.array[k, j, i], atol=1e-3 * one.image.array.max())


@pytest.mark.parametrize(
    ("change", "first", "words"),
    [
        (lambda text: limits(text, "contrast", 0, 1, 0), 0, "one contrast and every step, got 2 contrasts"),
        (lambda text: limits(text, "kspace_encoding_step_2", 0, 7, 7), 0, "do not fit into 8 steps"),
        (lambda text: limits(text, "kspace_encoding_step_2", 0, 7, 4), 2, "kspace_encode_step_2 8 lies outside the 8"),
        (lambda text: text.replace("<z>8</z>", "<z>1</z>"), 0, r"up to 7\), but the encoded matrix has one partition"),
        (
            lambda text: text.replace(
                "<kspace_encoding_step_2>1</kspace_encoding_step_2>",
                "<kspace_encoding_step_2>2</kspace_encoding_step_2>",
            ),
            0,
            "an acceleration of 2 along the slices",
        ),
    ],
)
def test_what_cannot_be_put_in_place_is_refused(tmp_path: Path, change: Change, first: int, words: str) -> None:
    with pytest.raises(WireError, match=words):
        read_mrd(written(tmp_path / "semac.h5", scanned().encoding, change, first))


def test_planes_of_another_distance_are_refused(tmp_path: Path) -> None:
    scan = read_mrd(
        written(tmp_path / "semac.h5", scanned().encoding, lambda text: text.replace("<z>32.0</z>", "<z>40.0</z>"))
    )
    with pytest.raises(Exception, match="planes as far apart as the slices"):
        made(scan.encoding, scan.acquisitions)


def test_steps_as_contrasts_have_one_sign(tmp_path: Path) -> None:
    write_mrd(tmp_path / "contrasts.h5", scanned().encoding, scanned().blocks)
    with pytest.raises(WireError, match="kspace_sign -1"):
        read_mrd(tmp_path / "contrasts.h5", MrdOptions(kspace_sign=1))


def test_noise_lines_have_no_step(tmp_path: Path) -> None:
    path = written(tmp_path / "semac.h5", scanned().encoding, first=3)
    with h5py.File(path, "r+") as file:
        table = file["dataset"]["data"][:]
        table["head"]["flags"][:2] |= np.uint64(MrdFlag.NOISE)
        table["head"]["idx"]["kspace_encode_step_2"][:2] = 0
        file["dataset"]["data"][:] = table
    scan = read_mrd(path)
    assert sum(len(block.ky) for block in scan.acquisitions) == len(table)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_heads_give_a_picture_that_says_so_or_an_error(tmp_path: Path, seed: int) -> None:
    """Counters, lengths and flags at random in a few readouts: never another exception, never NaN in a picture."""
    rng = np.random.default_rng(seed)
    path = written(tmp_path / "semac.h5", scanned().encoding)
    with h5py.File(path, "r+") as file:
        table = file["dataset"]["data"][:]
        for row in rng.integers(0, len(table), 3):
            head = table["head"][row : row + 1]
            counters = ("kspace_encode_step_1", "kspace_encode_step_2", "slice", "contrast", "repetition", "average")
            fields = ("number_of_samples", "active_channels", "center_sample", "discard_pre", "encoding_space_ref")
            if rng.random() < 0.6:
                head["idx"][rng.choice(counters)] = rng.choice([0, 1, 7, 9, 65535])
            elif rng.random() < 0.7:
                head[str(rng.choice(fields))] = rng.choice([0, 1, 31, 33, 65535])
            else:
                table["data"][row] = table["data"][row][: rng.integers(0, 60)]
        file["dataset"]["data"][:] = table
    try:
        scan = read_mrd(path)
        result = made(scan.encoding, scan.acquisitions)
    except IntraopError:
        return
    assert np.isfinite(result.image.array).all()
