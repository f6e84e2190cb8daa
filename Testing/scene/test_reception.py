"""Raw data over loopback into a volume: what is shown on the way, and what is said when data are wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Image
from IntraopMRIReconstructionLib.reconstruct import live
from IntraopMRIReconstructionLib.reconstruct.products import Wanted
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction
from IntraopMRIReconstructionLib.scene.news import Dropped, Failed, Previewed, Progressed, Streamed
from IntraopMRIReconstructionLib.scene.reception import Reception
from IntraopMRIReconstructionLib.simulate.kspace import R2, Scan, simulate_scan
from IntraopMRIReconstructionLib.wire.messages_text import StringMessage
from IntraopMRIReconstructionLib.wire.raw_data import message_from_acquisition, messages_from_encoding
from IntraopMRIReconstructionLib.wire.transport import Server

News = list[Any]


def box() -> np.ndarray:
    """Off the centre along every axis, so that a flip would be seen."""
    truth = np.zeros((16, 40, 32), np.float32)
    truth[4:10, 8:24, 6:20] = 1000.0
    return truth


@cache
def scan() -> Scan:
    image = Image(box(), np.diag([2.0, 2.0, 2.0, 1.0]), name="T1", patient_id="P-1")
    return simulate_scan(image, "scan-1", coils=8, noise=0.001, sampling=R2)


def blocks() -> list[Acquisition]:
    """The lines of the scan; each test may change its own."""
    return [replace(block, samples=block.samples.copy()) for block in scan().blocks()]


@pytest.fixture
def scanner() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def reception(scanner: Server) -> Iterator[Reception]:
    receiving = Reception(Wanted(), livePreview=True)
    receiving.listen("127.0.0.1", scanner.port)
    assert scanner.wait_for_peer(10.0)
    yield receiving
    receiving.close()


def begin(scanner: Server, **changes: Any) -> None:
    for message in messages_from_encoding(replace(scan().encoding, **changes)):
        scanner.send(message)


def send(scanner: Server, lines: list[Acquisition]) -> None:
    for block in lines:
        scanner.send(message_from_acquisition(block, form="image"))


def until(reception: Reception, kind: Any, where: Callable[[Any], bool] = lambda _: True) -> tuple[News, Any]:
    """All news up to the first of a kind, and that one."""
    seen: News = []
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        for item in reception.drain():
            seen.append(item)
            if isinstance(item, kind) and where(item):
                return seen, item
        time.sleep(0.005)
    pytest.fail(f"no {kind} but {seen}")


def looks_right(result: Reconstruction) -> bool:
    truth, found = box() > 0, result.image.array
    return bool(found[truth].mean() > 8 * found[~truth].mean())


def test_a_scan_becomes_a_volume_with_previews_on_the_way(
    scanner: Server, reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PREVIEW_S", 0.0)
    begin(scanner)
    send(scanner, blocks())
    news, result = until(reception, Reconstruction)
    assert result.method == "grappa"
    assert result.warnings == ()
    assert looks_right(result)
    percents = [item.fraction for item in news if isinstance(item, Progressed) and item.what == "T1"]
    assert percents == sorted(percents)
    assert percents[-1] == 1.0
    shown = [item for item in news if isinstance(item, Previewed)]
    assert len(shown) > 10
    assert all(0 < item.fraction < 1 for item in shown)
    assert all(any("not for measurements" in text for text in item.result.warnings) for item in shown)


def test_frames_of_a_stream_come_one_by_one(scanner: Server, reception: Reception) -> None:
    slices = replace(scan().encoding, encoded_matrix=(1, 40, 32), recon_matrix=(1, 40, 32), is_3d=False, repetitions=3)
    for message in messages_from_encoding(slices):
        scanner.send(message)
    (middle,) = (block for block in blocks() if block.kz[0] == 8)
    for repetition in range(3):
        send(scanner, [replace(middle, kz=middle.kz * 0, repetition=repetition, flags=None if repetition else
                               middle.flags, last=repetition == 2)])  # fmt: skip
        kind = Streamed if repetition < 2 else Reconstruction
        _, found = until(reception, kind)
        result = found.result if isinstance(found, Streamed) else found
        assert result.image.array.shape == (1, 40, 32)


def test_a_scan_that_is_cut_off_by_the_next_is_said_and_the_next_is_made(scanner: Server, reception: Reception) -> None:
    begin(scanner)
    send(scanner, blocks()[:5])
    begin(scanner)
    send(scanner, blocks())
    news, result = until(reception, Reconstruction)
    (said,) = (item.text for item in news if isinstance(item, Failed))
    assert "'T1' stopped at 31%" in said
    assert "new scan" in said
    assert any(isinstance(item, Dropped) for item in news)
    assert looks_right(result)


def test_a_scan_that_stalls_is_said_and_its_preview_goes(
    scanner: Server, reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SCAN_SILENT_S", 0.3)
    begin(scanner)
    send(scanner, blocks()[:5])
    news, said = until(reception, Failed)
    assert "stopped at 31%" in said.text
    assert "scan again" in said.text
    assert any(isinstance(item, Dropped) for item in news)
    # What still trickles in of it is no scan.
    send(scanner, blocks()[5:])
    begin(scanner)
    send(scanner, blocks())
    news, result = until(reception, Reconstruction)
    assert not any(isinstance(item, Failed) for item in news)
    assert looks_right(result)


def test_cancel_while_lines_arrive(scanner: Server, reception: Reception) -> None:
    begin(scanner)
    send(scanner, blocks()[:5])
    until(reception, Progressed, lambda item: item.fraction > 0.3)
    reception.cancel()
    until(reception, Dropped)
    send(scanner, blocks()[5:])
    begin(scanner)
    send(scanner, blocks())
    news, result = until(reception, Reconstruction)
    assert not any(isinstance(item, Failed) for item in news)
    assert looks_right(result)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_coil_that_dies_in_mid_scan_is_dropped_and_named(scanner: Server, reception: Reception, value: float) -> None:
    lines = blocks()
    for block in lines[9:]:
        block.samples[:, 5] = value
    begin(scanner)
    send(scanner, lines)
    _, result = until(reception, Reconstruction)
    assert "coils dropped because they failed during the scan: 5" in result.warnings
    assert result.parameters["coils"] == 7
    assert looks_right(result)


def test_most_coils_dead_is_no_image(scanner: Server, reception: Reception) -> None:
    lines = blocks()
    lines[9].samples[:, :5] = 0
    begin(scanner)
    send(scanner, lines)
    _, said = until(reception, Failed)
    assert "5 of 8 coils failed" in said.text


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_broken_lines_are_left_out_and_counted(scanner: Server, reception: Reception, value: float) -> None:
    lines = blocks()
    lines[12].samples[3:5] = value
    begin(scanner)
    send(scanner, lines)
    _, result = until(reception, Reconstruction)
    assert any(text.startswith("2 lines left out because they carry") for text in result.warnings)
    assert np.isfinite(result.image.array).all()
    assert looks_right(result)


def test_lines_that_come_twice_are_said(scanner: Server, reception: Reception) -> None:
    lines = blocks()
    twice = replace(lines[2], samples=7 * lines[2].samples)
    begin(scanner)
    send(scanner, [*lines[:4], twice, *lines[4:]])
    _, result = until(reception, Reconstruction)
    assert any("came twice: the first was kept" in text for text in result.warnings)
    assert looks_right(result)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ky": np.array([40], np.int32)}, "ky"),
        ({"kz": np.array([16], np.int32)}, "kz"),
        ({"samples": np.ones((1, 7, 32), np.complex64)}, "7 coils"),
        ({"samples": np.ones((1, 8, 30), np.complex64)}, "30 samples"),
        ({"repetition": 4}, "repetition"),
    ],
)
def test_lines_that_do_not_fit_are_refused_and_missing(
    scanner: Server, reception: Reception, changes: dict[str, Any], words: str
) -> None:
    lines = blocks()
    whole = lines[12]
    assert whole.flags is not None
    one = replace(whole, samples=whole.samples[3:4], ky=whole.ky[3:4], kz=whole.kz[3:4], flags=whole.flags[3:4])
    rest = np.delete(np.arange(len(whole.ky)), 3)
    lines[12] = replace(
        whole, samples=whole.samples[rest], ky=whole.ky[rest], kz=whole.kz[rest], flags=whole.flags[rest]
    )
    begin(scanner)
    send(scanner, [*lines[:12], replace(one, **changes), *lines[12:]])
    news, result = until(reception, Reconstruction)
    (said,) = (item.text for item in news if isinstance(item, Failed))
    assert words in said
    assert any("1 planned lines are missing" in text for text in result.warnings)
    assert looks_right(result)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("ras_from_ijk", None, "ras_from_ijk"),
        ("ras_from_ijk", [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "singular"),
        ("coils", 0, "coils"),
        ("encoded_matrix", [4096, 4096, 4096], "check matrix and field of view"),
        ("recon_fov_mm", [32.0, 80.0, -1.0], "recon_fov_mm"),
    ],
)
def test_a_header_that_cannot_be_used_is_said_once(
    scanner: Server, reception: Reception, field: str, value: Any, words: str
) -> None:
    (message,) = messages_from_encoding(scan().encoding)
    assert isinstance(message, StringMessage)
    fields = json.loads(message.text)
    fields[field] = value
    if value is None:
        del fields[field]
    scanner.send(replace(message, text=json.dumps(fields)))
    send(scanner, blocks())
    begin(scanner)
    send(scanner, blocks())
    news, result = until(reception, Reconstruction)
    said = [item.text for item in news if isinstance(item, Failed)]
    assert words in said[0]
    assert len(said) == 1, "the lines of a scan that was refused say nothing new"
    assert looks_right(result)


@pytest.mark.parametrize(
    ("kept", "coils", "words"),
    [("lattice", 8, "no calibration lines"), ("few", 8, "calibration samples"), ("sixth", 4, "cannot be undone")],
)
def test_acceleration_that_cannot_be_undone_is_no_image(
    scanner: Server, reception: Reception, kept: str, coils: int, words: str
) -> None:
    rows = {"lattice": np.arange(0, 40, 2), "few": np.union1d(np.arange(0, 40, 2), np.arange(18, 23)),
            "sixth": np.arange(2, 40, 6)}[kept]  # fmt: skip
    begin(scanner, coils=coils, calibration_lines=(0, 0))
    full = scan().kspace
    for partition in range(16):
        samples = np.ascontiguousarray(full[partition, rows][:, :coils])
        lines = Acquisition("scan-1", samples, rows.astype(np.int32), np.full(len(rows), partition, np.int32),
                            last=partition == 15)  # fmt: skip
        send(scanner, [lines])
    _, said = until(reception, Failed)
    assert words in said.text


def test_a_defect_is_said_and_the_next_scan_works(
    scanner: Server, reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as breaking:
        breaking.setattr("IntraopMRIReconstructionLib.scene.reception.make_image", broken)
        begin(scanner)
        send(scanner, blocks())
        _, said = until(reception, Failed)
    assert "a defect in this software" in said.text
    begin(scanner)
    send(scanner, blocks())
    _, result = until(reception, Reconstruction)
    assert looks_right(result)
