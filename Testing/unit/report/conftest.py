"""A written case, and a real archive for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from IntraopMRILib.report.dicom.write import files_of, write
from peers import dicom_archive
from peers.dicom_case import case


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("written") / "dicom"
    write(case(np.eye(3)), folder)
    return files_of(folder)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dicom_archive.Orthanc]:
    if dicom_archive.missing():
        pytest.skip(dicom_archive.missing())
    with dicom_archive.orthanc(tmp_path_factory.mktemp("orthanc") / "here") as found:
        yield found
