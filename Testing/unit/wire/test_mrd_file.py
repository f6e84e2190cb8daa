"""MRD files: what others wrote is read exactly, what we write others read, and what is wrong is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, LineFlag
from IntraopMRIReconstructionLib.errors import DataError, IntraopError, OpenChoice, WireError
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.wire import mrd_file
from IntraopMRIReconstructionLib.wire.mrd_file import MrdReader, read_mrd, write_mrd
from IntraopMRIReconstructionLib.wire.mrd_scan import MrdOptions
from unit.wire.mrd_peer import Scan, fourier, peak_ijk

AXIAL = MrdOptions(assume_axial=True)


def kspace_of(encoding: Encoding, acquisitions: tuple[Acquisition, ...], repetition: int = 0) -> np.ndarray:
    """Plain assembly, (coils, z, y, x)."""
    result = np.zeros((encoding.coils, *encoding.encoded_matrix), np.complex64)
    for block in acquisitions:
        assert block.flags is not None
        if block.repetition == repetition and not block.flags[0] & LineFlag.NOISE:
            result[:, block.kz, block.ky] = np.moveaxis(block.samples, 0, 1)
    return result


def cropped(image: np.ndarray, width: int) -> np.ndarray:
    start = image.shape[-1] // 2 - width // 2
    return image[..., start : start + width]


def generated(path: Path, *options: str) -> Path:
    program = shutil.which("ismrmrd_generate_cartesian_shepp_logan")
    if program is None:
        pytest.skip("ismrmrd_generate_cartesian_shepp_logan is missing: apt-get install ismrmrd-tools")
    subprocess.run([program, "-m", "32", "-o", str(path), *options], check=True, capture_output=True, timeout=60)
    return path


@pytest.mark.peer
@pytest.mark.parametrize(
    ("options", "coils", "repetitions", "noise"),
    [
        (("-c", "4"), 4, 1, False),
        (("-c", "3", "-a", "2", "-w", "8", "-C", "-r", "2"), 3, 4, True),
        (("-c", "1", "-n", "0.2", "-k"), 1, 1, False),
    ],
)
def test_reads_what_the_debian_generator_writes(
    tmp_path: Path, options: tuple[str, ...], coils: int, repetitions: int, noise: bool
) -> None:
    path = generated(tmp_path / "made.h5", *options)
    scan = read_mrd(path, AXIAL)
    assert (scan.encoding.coils, scan.encoding.repetitions) == (coils, repetitions)
    assert scan.encoding.recon_matrix == (1, 32, 32)
    assert scan.encoding.recon_fov_mm == (6.0, 300.0, 300.0)
    assert scan.encoding.encoded_matrix == (1, 32, 64)
    assert bool(scan.acquisitions[0].flags[0] & LineFlag.NOISE) is noise  # type: ignore[index]
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=False) as dataset:
        theirs = [dataset.read_acquisition(number) for number in range(dataset.number_of_acquisitions())]
    ours = {
        (bool(flag & LineFlag.NOISE), block.repetition, int(ky)): samples
        for block in scan.acquisitions
        for ky, flag, samples in zip(block.ky, block.flags, block.samples, strict=True)  # type: ignore[arg-type]
    }
    assert len(ours) == len(theirs)
    for line in theirs:
        key = (line.isFlagSet(ismrmrd.ACQ_IS_NOISE_MEASUREMENT), line.idx.repetition, line.idx.kspace_encode_step_1)
        np.testing.assert_array_equal(ours[key], line.data)


@pytest.mark.peer
def test_the_debian_reconstruction_agrees_on_their_file_and_on_our_copy(tmp_path: Path) -> None:
    path = generated(tmp_path / "made.h5", "-c", "4", "-n", "0.01")
    scan = read_mrd(path, AXIAL)
    write_mrd(tmp_path / "copy.h5", scan.encoding, scan.acquisitions)
    copy = read_mrd(tmp_path / "copy.h5")
    coil_images = cropped(fourier(kspace_of(copy.encoding, copy.acquisitions), (2, 3)), 32)
    ours = np.sqrt((np.abs(coil_images) ** 2).sum(axis=0))[0]
    for name in ("made.h5", "copy.h5"):
        subprocess.run(
            ["ismrmrd_recon_cartesian_2d", str(tmp_path / name)], check=True, capture_output=True, timeout=60
        )
        with h5py.File(tmp_path / name) as file:
            theirs = np.asarray(file["dataset/cpp/data"]).reshape(32, 32)
        scale = float((ours * theirs).sum() / (ours * ours).sum())
        np.testing.assert_allclose(ours * scale, theirs, atol=1e-4 * float(theirs.max()))


@pytest.mark.peer
def test_readouts_without_directions_are_refused_unless_a_person_says_axial(tmp_path: Path) -> None:
    path = generated(tmp_path / "made.h5")
    with pytest.raises(WireError, match="assume_axial"):
        read_mrd(path)
    scan = read_mrd(path, AXIAL)
    assert "assumed" in scan.encoding.metadata["geometry"]
    write_mrd(tmp_path / "copy.h5", scan.encoding, scan.acquisitions)
    assert "assumed" in read_mrd(tmp_path / "copy.h5").encoding.metadata["geometry"]


def test_header_fields_arrive(tmp_path: Path) -> None:
    scan = Scan()
    encoding = read_mrd(scan.write(tmp_path / "a.h5", [scan.line(), scan.line(kspace_encode_step_1=1)])).encoding
    assert (encoding.scan_id, encoding.protocol, encoding.patient_id) == ("M1", "spoiled echo", "P7")
    assert (encoding.field_t, encoding.echo_times_s) == (1.5, (0.0045, 0.009))
    assert encoding.acceleration == (1, 2)
    assert encoding.dwell_time_s == pytest.approx(1e-5)
    assert encoding.metadata["frame_of_reference"] == "1.2.3"


def test_every_kind_of_line_keeps_its_meaning(tmp_path: Path) -> None:
    scan = Scan(limits={"contrast": (0, 1, 0), "repetition": (0, 2, 0), "average": (0, 1, 0)})
    flag = {
        LineFlag.NOISE: ismrmrd.ACQ_IS_NOISE_MEASUREMENT,
        LineFlag.CALIBRATION: ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,
        LineFlag.CALIBRATION_AND_IMAGE: ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING,
        LineFlag.REVERSED: ismrmrd.ACQ_IS_REVERSE,
        LineFlag.LAST_IN_SCAN: ismrmrd.ACQ_LAST_IN_MEASUREMENT,
    }
    lines = [
        scan.line(np.full((2, 20), 9), flags=[flag[LineFlag.NOISE]]),
        scan.line(flags=[flag[LineFlag.CALIBRATION]], kspace_encode_step_1=7),
        scan.line(flags=[flag[LineFlag.CALIBRATION_AND_IMAGE]], kspace_encode_step_1=8),
        scan.line(flags=[flag[LineFlag.REVERSED]], kspace_encode_step_1=9),
        scan.line(flags=[ismrmrd.ACQ_IS_PHASECORR_DATA], kspace_encode_step_1=99),
        scan.line(flags=[ismrmrd.ACQ_IS_DUMMYSCAN_DATA], kspace_encode_step_1=99),
        scan.line(kspace_encode_step_1=2, contrast=1),
        scan.line(kspace_encode_step_1=3, repetition=2),
        scan.line(kspace_encode_step_1=4, average=1, flags=[flag[LineFlag.LAST_IN_SCAN]]),
    ]
    read = read_mrd(scan.write(tmp_path / "a.h5", lines))
    got = [
        (int(ky), LineFlag(int(value)), block.contrast, block.repetition, block.average)
        for block in read.acquisitions
        for ky, value in zip(block.ky, block.flags, strict=True)  # type: ignore[arg-type]
    ]
    assert got == [
        (0, LineFlag.NOISE, 0, 0, 0),
        (7, LineFlag.CALIBRATION, 0, 0, 0),
        (8, LineFlag.CALIBRATION_AND_IMAGE, 0, 0, 0),
        (9, LineFlag.REVERSED, 0, 0, 0),
        (2, LineFlag.NONE, 1, 0, 0),
        (3, LineFlag.NONE, 0, 2, 0),
        (4, LineFlag.LAST_IN_SCAN, 0, 0, 1),
    ]
    assert [block.last for block in read.acquisitions] == [False] * 4 + [True]
    encoding = read.encoding
    assert (encoding.contrasts, encoding.repetitions, encoding.averages) == (2, 3, 2)
    assert encoding.calibration_lines == (0, 2)
    assert [dict(block.left_out) for block in read.acquisitions] == [
        {"dummy scan readouts": 1, "phase correction readouts": 1},
        *({},) * 4,
    ]
    assert read.acquisitions[0].samples.shape == (1, 2, 20)


@pytest.mark.parametrize(
    ("limits", "steps", "expected", "centre"),
    [
        ((0, 15, 8), (0, 8, 15), (0, 8, 15), 8),
        ((0, 11, 4), (0, 4, 11), (4, 8, 15), 4),  # the first lines were left out and the counter began at 0
        ((4, 15, 8), (4, 8, 15), (4, 8, 15), 4),  # they were left out and the counter did not
        ((0, 11, 8), (0, 8, 11), (0, 8, 11), 12),  # the last lines were left out
        ((0, 15, 6), (0, 6, 15), (2, 8, 17), 6),  # nothing left out, centre elsewhere
        ((0, 0, 0), (0, 8, 15), (0, 8, 15), 8),  # limits that nobody filled in
    ],
)
def test_partial_fourier_lines_lie_around_the_centre(
    tmp_path: Path, limits: tuple[int, int, int], steps: tuple[int, ...], expected: tuple[int, ...], centre: int
) -> None:
    scan = Scan(limits={"kspace_encoding_step_1": limits})
    read = read_mrd(scan.write(tmp_path / "a.h5", [scan.line(kspace_encode_step_1=step) for step in steps]))
    # Where the centre is off, the header's lines say what was left out: all that is planned is what came.
    assert tuple(read.acquisitions[0].ky - centre + 8) == expected
    assert read.encoding.centre_index == (0, centre, 16)
    assert min(read.acquisitions[0].ky) >= 0
    assert max(read.acquisitions[0].ky) < 16


@pytest.mark.parametrize("limits", [(0, 11, 6), (2, 13, 8), (0, 10, 5)])
def test_lines_that_are_never_measured_on_both_sides_are_not_missing(
    tmp_path: Path, limits: tuple[int, int, int]
) -> None:
    """A phase resolution below 1: the matrix is filled with zeros around what the limits announce."""
    scan = Scan(limits={"kspace_encoding_step_1": limits})
    point = scan.position + scan.axes @ (-30.0, 20.0, 0.0)
    lines = []
    for step in range(limits[0], limits[1] + 1):
        # The k-space index of a line is its distance from the centre.
        line = scan.point_line(point, step - limits[2] + 8)
        line.idx.kspace_encode_step_1 = step
        lines.append(line)
    read = read_mrd(scan.write(tmp_path / "a.h5", lines))
    count = limits[1] - limits[0] + 1
    assert read.encoding.encoded_matrix == (1, count, 32)
    assert read.encoding.recon_matrix == (1, 16, 16)
    made = collector(read.encoding)
    for block in read.acquisitions:
        made.add(block)
    assert made.is_whole(0, 0)
    result = reconstruct(made.kspace())
    assert result.warnings == ("the header announces an acceleration of (1, 2), the lines show (1, 1)",)
    assert result.method == "fft"
    where = read.encoding.ras_from_ijk @ (*peak_ijk(result.image.array), 1)
    np.testing.assert_allclose(where[:3], (RAS_FROM_LPS @ (*point, 1))[:3], atol=1e-3)


def test_limits_that_lines_contradict_take_nothing_away(tmp_path: Path) -> None:
    scan = Scan(limits={"kspace_encoding_step_1": (2, 13, 8)})
    read = read_mrd(scan.write(tmp_path / "b.h5", [scan.line(kspace_encode_step_1=step) for step in (2, 8, 15)]))
    assert read.encoding.encoded_matrix == (1, 16, 32)


def test_calibration_lines_are_no_averages(tmp_path: Path) -> None:
    scan = Scan()
    alone = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]
    lines = [scan.line(kspace_encode_step_1=step) for step in range(0, 16, 2)]
    lines += [scan.line(kspace_encode_step_1=step, average=1, flags=alone) for step in range(4, 12)]
    read = read_mrd(scan.write(tmp_path / "a.h5", lines))
    assert read.encoding.averages == 1
    assert {block.average for block in read.acquisitions} == {0}
    lines.append(scan.line(kspace_encode_step_1=2, average=1))
    read = read_mrd(scan.write(tmp_path / "b.h5", lines))
    assert read.encoding.averages == 2
    assert sum(len(block.ky) for block in read.acquisitions if block.average == 1) == 1


def test_short_echoes_keep_their_centre_and_discarded_samples_are_zero(tmp_path: Path) -> None:
    scan = Scan()

    def line(step: int, centre: int = 8) -> ismrmrd.Acquisition:
        result = scan.line(np.arange(1.0, 25.0)[None].repeat(2, 0), centre=centre, kspace_encode_step_1=step)
        result.discard_pre, result.discard_post = 2, 1
        return result

    read = read_mrd(scan.write(tmp_path / "a.h5", [line(0), line(1)]))
    expected = np.arange(1.0, 25.0)
    expected[[0, 1, 23]] = 0
    np.testing.assert_array_equal(read.acquisitions[0].samples[1, 1], expected)
    assert read.encoding.centre_index == (0, 8, 8)
    write_mrd(tmp_path / "copy.h5", read.encoding, read.acquisitions)
    copy = read_mrd(tmp_path / "copy.h5")
    np.testing.assert_array_equal(copy.acquisitions[0].samples, read.acquisitions[0].samples)
    assert copy.encoding.centre_index == (0, 8, 8)
    with pytest.raises(WireError, match="from sample 8 to 9"):
        read_mrd(scan.write(tmp_path / "b.h5", [line(0), line(1, centre=9)]))


@pytest.mark.parametrize("width", [8, 7])
def test_a_point_lies_where_it_was_3d(tmp_path: Path, directions: np.ndarray, width: int) -> None:
    scan = Scan((16, 12, 8), (width, 12, 8), (320.0, 240.0, 80.0), (20.0 * width, 240.0, 80.0))
    scan.axes = np.asarray(RAS_FROM_LPS[:3, :3] @ directions)
    voxel = np.array([3, 4, 2])
    point = scan.position + scan.axes @ ((voxel - (width // 2, 6, 4)) * (20.0, 20.0, 10.0))
    lines = [scan.point_line(point, ky, kz) for kz in range(8) for ky in range(12)]
    read = read_mrd(scan.write(tmp_path / "a.h5", lines))
    image = cropped(fourier(kspace_of(read.encoding, read.acquisitions)[0], (0, 1, 2)), width)
    np.testing.assert_array_equal(peak_ijk(image), voxel)
    where = read.encoding.ras_from_ijk @ (*voxel, 1)
    np.testing.assert_allclose(where[:3], (RAS_FROM_LPS @ (*point, 1))[:3], atol=1e-4)
    np.testing.assert_allclose(read.encoding.ras_from_ijk[:3, :3], directions * (20.0, 20.0, 10.0), atol=1e-4)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (0, 2, 4, 1, 3)])
def test_a_point_lies_where_it_was_in_a_stack(tmp_path: Path, directions: np.ndarray, order: tuple[int, ...]) -> None:
    scan = Scan()
    scan.axes = np.asarray(RAS_FROM_LPS[:3, :3] @ directions)
    heights = {number: 6.5 * place for number, place in enumerate(order)}
    target = 1
    point = scan.position + scan.axes @ (-30.0, 20.0, 0.0)
    lines = []
    for number, height in heights.items():
        at = scan.position + scan.axes[:, 2] * height
        for ky in range(16):
            line = scan.point_line(point, ky, slice=number, position=at)
            line.data[:] *= number == target
            lines.append(line)
    read = read_mrd(scan.write(tmp_path / "a.h5", lines))
    assert read.encoding.encoded_matrix == (5, 16, 32)
    assert read.encoding.recon_fov_mm == pytest.approx((5 * 6.5, 160.0, 160.0))
    image = cropped(fourier(kspace_of(read.encoding, read.acquisitions)[0], (1, 2)), 16)
    where = read.encoding.ras_from_ijk @ (*peak_ijk(image), 1)
    truth = point + scan.axes[:, 2] * heights[target]
    np.testing.assert_allclose(where[:3], (RAS_FROM_LPS @ (*truth, 1))[:3], atol=1e-3)


def test_the_other_phase_sign_turns_the_grid_around_its_centre(tmp_path: Path) -> None:
    scan = Scan()
    path = scan.write(tmp_path / "a.h5", [scan.line()])
    plain = read_mrd(path).encoding.ras_from_ijk
    turned = read_mrd(path, MrdOptions(kspace_sign=1)).encoding.ras_from_ijk
    np.testing.assert_allclose(turned @ (8, 8, 0, 1), plain @ (8, 8, 0, 1))
    np.testing.assert_allclose(turned @ (7, 8, 0, 1), plain @ (9, 8, 0, 1))


def test_trajectories_become_cycles_per_field_of_view(tmp_path: Path) -> None:
    scan = Scan((32, 32, 1), (16, 16, 1), trajectory="radial")
    points = np.stack((np.linspace(-0.5, 0.5, 32), np.zeros(32), np.ones(32)), axis=1)
    path = scan.write(tmp_path / "a.h5", [scan.line(trajectory=points, kspace_encode_step_1=800)])
    read = read_mrd(path)
    assert read.acquisitions[0].ky[0] == 800
    trajectory = read.acquisitions[0].trajectory
    assert trajectory is not None
    np.testing.assert_allclose(trajectory[0], points[:, :2] * 32, rtol=1e-6)
    cycles = scan.write(tmp_path / "b.h5", [scan.line(trajectory=points * 32)])
    with pytest.raises(WireError, match="trajectory_unit"):
        read_mrd(cycles)
    again = read_mrd(cycles, MrdOptions(trajectory_unit="cycles_per_fov")).acquisitions[0].trajectory
    assert again is not None
    np.testing.assert_allclose(again, trajectory, rtol=1e-6)


def test_a_written_file_reads_back_and_others_read_it(tmp_path: Path, directions: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    affine = np.eye(4)
    affine[:3, :3] = directions * (1.5, 2.0, 3.0)
    affine[:3, 3] = (11.0, -7.0, 40.0)
    encoding = Encoding(
        scan_id="trial",
        trajectory="cartesian",
        encoded_matrix=(4, 6, 16),
        recon_matrix=(4, 6, 8),
        encoded_fov_mm=(12.0, 12.0, 24.0),
        recon_fov_mm=(12.0, 12.0, 12.0),
        coils=3,
        ras_from_ijk=affine,
        is_3d=False,
        acceleration=(1, 2),
        calibration_lines=(0, 2),
        centre=(2, 2, 7),
        contrasts=2,
        repetitions=3,
        patient_id="Müller & Söhne <7>",
        echo_times_s=(0.004,),
        dwell_time_s=4e-6,
    )
    flags = np.array([0, 4, 8, 8], np.uint32)
    blocks = [
        Acquisition(
            "trial",
            (rng.normal(size=(4, 3, 16)) + 1j * rng.normal(size=(4, 3, 16))).astype(np.complex64),
            np.array([0, 2, 4, 5], np.int32),
            np.arange(4, dtype=np.int32),
            flags,
            contrast=contrast,
            repetition=2,
            last=contrast == 1,
        )
        for contrast in (0, 1)
    ]
    path = tmp_path / "a.h5"
    write_mrd(path, encoding, blocks)
    read = read_mrd(path)
    for name in ("scan_id", "encoded_matrix", "recon_matrix", "coils", "is_3d", "acceleration", "centre", "patient_id"):
        assert getattr(read.encoding, name) == getattr(encoding, name), name
    assert read.encoding.calibration_lines == encoding.calibration_lines
    assert (read.encoding.contrasts, read.encoding.repetitions) == (2, 3)
    assert read.encoding.recon_fov_mm == pytest.approx(encoding.recon_fov_mm)
    np.testing.assert_allclose(read.encoding.ras_from_ijk, affine, atol=1e-4)
    for ours, back in zip(blocks, read.acquisitions, strict=True):
        np.testing.assert_array_equal(back.samples, ours.samples)
        np.testing.assert_array_equal(back.ky, ours.ky)
        np.testing.assert_array_equal(back.kz, ours.kz)
        np.testing.assert_array_equal(np.asarray(back.flags)[:-1], flags[:-1])
        assert (back.contrast, back.repetition, back.last) == (ours.contrast, ours.repetition, ours.last)
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=False) as dataset:
        header = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header())
        assert header.encoding[0].encodedSpace.matrixSize.x == 16
        assert header.subjectInformation.patientID == "Müller & Söhne <7>"
        np.testing.assert_array_equal(dataset.read_acquisition(5).data, blocks[1].samples[1])
    with pytest.raises(WireError, match="not overwritten"):
        write_mrd(path, encoding, blocks)
    with pytest.raises(DataError, match="another"):
        write_mrd(tmp_path / "b.h5", encoding, [Acquisition("another", *_line_of(blocks[0]))])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.h5"]


def _line_of(block: Acquisition) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return block.samples, block.ky, block.kz


def test_large_files_are_read_in_pieces_with_the_same_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = Scan(encoded=(32, 64, 1))
    lines = [scan.line(np.full((2, 32), number), kspace_encode_step_1=number) for number in range(50)]
    path = scan.write(tmp_path / "a.h5", lines)
    monkeypatch.setattr(mrd_file, "READ_WHOLE_BELOW_BYTES", 0)
    with MrdReader(path) as reader:
        blocks = list(reader.blocks(lines_at_once=20))
        assert len(reader) == 50
    assert [len(block.ky) for block in blocks] == [20, 20, 10]
    assert [block.last for block in blocks] == [False, False, True]
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks])[:, 0, 0], np.arange(50))


@pytest.mark.parametrize("part", [0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_cut_file_is_refused(tmp_path: Path, part: float) -> None:
    scan = Scan()
    whole = scan.write(tmp_path / "a.h5", [scan.line(kspace_encode_step_1=step) for step in range(16)]).read_bytes()
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(WireError, match=r"cut\.h5"):
        read_mrd(cut)


def test_flipped_bytes_never_escape_the_family(tmp_path: Path) -> None:
    scan = Scan()
    whole = scan.write(tmp_path / "a.h5", [scan.line(kspace_encode_step_1=step) for step in range(16)]).read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for number in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 20)] ^= rng.integers(1, 256, 20).astype(np.uint8)
        path = tmp_path / f"{number}.h5"
        path.write_bytes(damaged.tobytes())
        try:
            read_mrd(path)
        except IntraopError:
            refused += 1
    assert refused > 10


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="HDF5"):
        read_mrd(tmp_path / "missing.h5")
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["images/data"] = np.zeros(3)
    with pytest.raises(WireError, match="groups: images"):
        read_mrd(other)
    with h5py.File(other, "w") as file:
        file["dataset/data"] = np.zeros(3)
        file["dataset/xml"] = np.array([b"<a/>"])
    with pytest.raises(WireError, match=r"other\.h5"):
        read_mrd(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("<trajectory>cartesian", "<trajectory>rosette"), "rosette"),
        (("<x>32</x>", "<x>many</x>"), "many"),
        (("<x>32</x>", ""), "matrixSize/x"),
        (("<x>160.0</x>", "<x>-160.0</x>"), "positive"),
        (("<x>160.0</x>", "<x>nan</x>"), "finite"),
        (("<x>32</x>", "<x>0</x>"), "1 to 65535"),
        (("ismrmrdHeader", "otherHeader"), "otherHeader"),
        (("<ismrmrdHeader", "<!DOCTYPE a [<!ENTITY b 'c'>]><ismrmrdHeader"), "entities"),
        (("</ismrmrdHeader>", ""), "not XML"),
        (("<x>32</x>", "<x>8</x>"), "8 wide"),
    ],
)
def test_headers_that_are_wrong_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    class Changed(Scan):
        def header(self) -> str:
            return super().header().replace(*change)

    scan = Changed()
    with pytest.raises(WireError, match=message):
        read_mrd(scan.write(tmp_path / "a.h5", [scan.line()]))


def test_lines_that_are_wrong_are_refused(tmp_path: Path) -> None:
    scan = Scan()

    def refusal(*lines: ismrmrd.Acquisition, options: MrdOptions | None = None) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        with pytest.raises(WireError) as caught:
            read_mrd(scan.write(path, lines), options)
        return str(caught.value)

    def skewed() -> ismrmrd.Acquisition:
        line = scan.line()
        line.phase_dir[:] = (0.1, 0.995, 0.0)
        return line

    def nowhere() -> ismrmrd.Acquisition:
        line = scan.line()
        line.read_dir[:] = (np.nan, 0.0, 0.0)
        return line

    assert "line 40 lies outside" in refusal(scan.line(kspace_encode_step_1=40))
    assert "none of the 1 readouts" in refusal(scan.line(flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT]))
    assert "2 values of 'set'" in refusal(scan.line(), scan.line(set=1))
    assert "2 values of 'phase'" in refusal(scan.line(), scan.line(phase=3))
    assert "number of coils changes" in refusal(scan.line(), scan.line(np.ones((3, 32))))
    assert "right angles" in refusal(skewed())
    assert "right angles" in refusal(nowhere())
    assert "place of the scan changes" in refusal(scan.line(), scan.line(position=(10.0, -20.0, 30.5)))
    assert "no even stack" in refusal(
        *(scan.line(slice=number, position=(0, 0, at)) for number, at in enumerate((0.0, 5.0, 12.0)))
    )
    assert "no even stack" in refusal(scan.line(), scan.line(slice=1))
    assert "compressed" in refusal(scan.line(flags=[ismrmrd.ACQ_COMPRESSION2]))
    assert "encoding_space" in refusal(scan.line(), options=MrdOptions(encoding_space=1))
    broken = scan.write(tmp_path / "broken.h5", [scan.line(), scan.line(kspace_encode_step_1=1)])
    with h5py.File(broken, "r+") as file:
        row = file["dataset/data"][1]
        row["data"] = row["data"][:-2]
        file["dataset/data"][1] = row
    with pytest.raises(WireError, match="readout 1 has 126 numbers"):
        read_mrd(broken)


def test_what_is_open_can_be_asked_for(tmp_path: Path) -> None:
    """The refusal names the option and its values, and giving one of them reads the file and is written down."""
    scan, sagittal = Scan(), Scan(axes=np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    blind = scan.line()
    for name in ("read_dir", "phase_dir", "slice_dir"):
        getattr(blind, name)[:] = (0.0, 0.0, 0.0)
    cases = {
        "set_index": ([scan.line(set=number) for number in (0, 2)], (0, 2), "set 2"),
        "phase": ([scan.line(phase=number) for number in (1, 3)], (1, 3), "phase 3"),
        "slice_index": ([scan.line(slice=0), sagittal.line(slice=1)], (0, 1), "slice 1"),
        "assume_axial": ([blind], (1,), ""),
    }
    for option, (lines, values, said) in cases.items():
        path = scan.write(tmp_path / f"{option}.h5", lines)
        with pytest.raises(OpenChoice) as caught:
            read_mrd(path)
        assert (caught.value.option, caught.value.values) == (option, values)
        read = read_mrd(path, MrdOptions(**{option: values[-1]}))  # type: ignore[arg-type]
        assert read.encoding.metadata.get("read_only", "") == said
        if option != "assume_axial":
            assert read.acquisitions[0].left_out == {"readouts of other slices, phases or sets": 1}


def test_the_encoding_with_the_images_is_read(tmp_path: Path) -> None:
    """Of several: the one that does more than calibrate; where two do, nobody knows which is meant."""

    class Two(Scan):
        def header(self) -> str:
            text = super().header()
            encoding = text[text.index(" <encoding>") : text.index(" <sequenceParameters>")]
            return text.replace(encoding, encoding.replace("<x>32</x>", "<x>24</x>", 1) + encoding)

    scan = Two()

    def line(space: int, *flags: int, step: int = 0) -> ismrmrd.Acquisition:
        made = scan.line(flags=flags, kspace_encode_step_1=step)
        made.encoding_space_ref = space
        return made

    reference = line(0, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
    read = read_mrd(scan.write(tmp_path / "a.h5", [reference, line(1), line(1, step=1)]))
    assert read.encoding.encoded_matrix == (1, 16, 32)
    assert read.encoding.metadata["read_only"] == "encoding 1 of 2"
    assert read.acquisitions[0].left_out == {"calibration readouts of other encodings": 1}
    both = scan.write(tmp_path / "b.h5", [line(0), line(1)])
    with pytest.raises(OpenChoice) as caught:
        read_mrd(both)
    assert (caught.value.option, caught.value.values) == ("encoding_space", (0, 1))
    assert read_mrd(both, MrdOptions(encoding_space=1)).encoding.encoded_matrix == (1, 16, 32)


def test_the_group_may_have_any_name_and_is_asked_for_where_there_are_two(tmp_path: Path) -> None:
    scan, path = Scan(), tmp_path / "a.h5"
    for count, group in enumerate(("measurement 7", "measurement 8"), start=1):
        dataset = ismrmrd.Dataset(str(path), group, create_if_needed=True)
        dataset.write_xml_header(scan.header().encode())
        for step in range(count):
            dataset.append_acquisition(scan.line(kspace_encode_step_1=step))
        dataset.append_image("image_0", ismrmrd.Image.from_array(np.zeros((1, 8, 8), np.float32)))
        dataset.append_waveform(ismrmrd.Waveform.from_array(np.zeros((2, 16), np.uint32)))
        dataset.close()
        if count == 1:
            assert len(read_mrd(path).acquisitions[0].ky) == 1
    with pytest.raises(OpenChoice) as caught:
        read_mrd(path)
    assert (caught.value.option, caught.value.values) == ("group", ("measurement 7", "measurement 8"))
    assert len(read_mrd(path, group="measurement 8").acquisitions[0].ky) == 2
    with pytest.raises(WireError, match="no MRD raw data under 'dataset'"):
        read_mrd(path, group="dataset")


def test_one_set_phase_or_slice_can_be_chosen(tmp_path: Path) -> None:
    scan = Scan()
    lines = [scan.line(np.full((2, 32), 10 * number), set=number) for number in range(3)]
    read = read_mrd(scan.write(tmp_path / "a.h5", lines), MrdOptions(set_index=2))
    assert [block.samples[0, 0, 0] for block in read.acquisitions] == [20]
    sagittal = Scan(axes=np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    mixed = [scan.line(slice=0), sagittal.line(slice=1)]
    with pytest.raises(WireError, match="slice_index"):
        read_mrd(scan.write(tmp_path / "b.h5", mixed))
    read = read_mrd(tmp_path / "b.h5", MrdOptions(slice_index=1))
    np.testing.assert_allclose(read.encoding.ras_from_ijk[:3, 0], (0, -10, 0), atol=1e-6)
