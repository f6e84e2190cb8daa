"""MRD made by others: the ismrmrd Python package as an independent writer, with k-space known in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import ismrmrd
import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <subjectInformation><patientID>P7</patientID><patientBirthdate>unknown</patientBirthdate></subjectInformation>
 <measurementInformation><measurementID>M1</measurementID><patientPosition>HFS</patientPosition>
  <protocolName>spoiled echo</protocolName><frameOfReferenceUID>1.2.3</frameOfReferenceUID></measurementInformation>
 <acquisitionSystemInformation><systemFieldStrength_T>1.5</systemFieldStrength_T></acquisitionSystemInformation>
 <experimentalConditions><H1resonanceFrequency_Hz>63866217</H1resonanceFrequency_Hz></experimentalConditions>
 <encoding>
  <encodedSpace>{encoded}</encodedSpace><reconSpace>{recon}</reconSpace>
  <encodingLimits>{limits}</encodingLimits>
  <trajectory>{trajectory}</trajectory>
  <parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>
   <kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor></parallelImaging>
 </encoding>
 <sequenceParameters><TE>4.5</TE><TE>9</TE></sequenceParameters>
</ismrmrdHeader>"""


@dataclass
class Scan:
    """A made scan. Tuples are (x, y, z) as MRD writes them; ``axes``: columns read, phase, slice in LPS."""

    encoded: tuple[int, int, int] = (32, 16, 1)
    recon: tuple[int, int, int] = (16, 16, 1)
    encoded_fov_mm: tuple[float, float, float] = (320.0, 160.0, 5.0)
    recon_fov_mm: tuple[float, float, float] = (160.0, 160.0, 5.0)
    position: tuple[float, float, float] = (10.0, -20.0, 30.0)
    axes: npt.NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    coils: int = 2
    trajectory: str = "cartesian"
    limits: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def header(self) -> str:
        def space(matrix: tuple[int, ...], fov: tuple[float, ...]) -> str:
            def axes(values: tuple[float, ...]) -> str:
                return "".join(f"<{axis}>{value}</{axis}>" for axis, value in zip("xyz", values, strict=True))

            return f"<matrixSize>{axes(matrix)}</matrixSize><fieldOfView_mm>{axes(fov)}</fieldOfView_mm>"

        limits = "".join(
            f"<{name}><minimum>{low}</minimum><maximum>{high}</maximum><center>{centre}</center></{name}>"
            for name, (low, high, centre) in self.limits.items()
        )
        return HEADER.format(
            encoded=space(self.encoded, self.encoded_fov_mm),
            recon=space(self.recon, self.recon_fov_mm),
            limits=limits,
            trajectory=self.trajectory,
        )

    def line(
        self,
        samples: npt.ArrayLike | None = None,
        *,
        flags: Iterable[int] = (),
        centre: int | None = None,
        position: npt.ArrayLike | None = None,
        trajectory: npt.ArrayLike | None = None,
        **counters: int,
    ) -> ismrmrd.Acquisition:
        """One readout, (coils, samples); random when ``samples`` is None."""
        data = np.ones((self.coils, self.encoded[0])) if samples is None else np.asarray(samples)
        points = None if trajectory is None else np.asarray(trajectory, np.float32)
        line = ismrmrd.Acquisition()
        line.resize(data.shape[1], data.shape[0], 0 if points is None else points.shape[1])
        line.data[:] = data
        if points is not None:
            line.traj[:] = points
        line.version = 1
        line.available_channels = data.shape[0]
        line.center_sample = data.shape[1] // 2 if centre is None else centre
        line.sample_time_us = 10.0
        line.position[:] = self.position if position is None else tuple(np.asarray(position, float))
        line.read_dir[:], line.phase_dir[:], line.slice_dir[:] = (tuple(column) for column in self.axes.T)
        for name, value in counters.items():
            setattr(line.idx, name, value)
        for flag in flags:
            line.setFlag(flag)
        return line

    def point_line(self, point_lps: npt.ArrayLike, ky: int, kz: int = 0, **more: object) -> ismrmrd.Acquisition:
        """The readout of a point source: exp(-2 pi i k r) with r from the position in the header, k in cycles/mm."""
        offset = self.axes.T @ (np.asarray(point_lps, float) - self.position)
        kx = (np.arange(self.encoded[0]) - self.encoded[0] // 2) / self.encoded_fov_mm[0]
        phase = kx * offset[0] + (ky - self.encoded[1] // 2) / self.encoded_fov_mm[1] * offset[1]
        if self.encoded[2] > 1:
            phase = phase + (kz - self.encoded[2] // 2) / self.encoded_fov_mm[2] * offset[2]
        samples = np.tile(np.exp(-2j * np.pi * phase), (self.coils, 1))
        return self.line(samples, kspace_encode_step_1=ky, kspace_encode_step_2=kz, **more)  # type: ignore[arg-type]

    def write(self, path: Path, lines: Iterable[ismrmrd.Acquisition]) -> Path:
        """Write a file as the package's own users do."""
        dataset = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
        dataset.write_xml_header(self.header().encode())
        for number, line in enumerate(lines):
            line.scan_counter = number
            dataset.append_acquisition(line)
        dataset.close()
        return path


def lps_axes(directions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Columns in LPS of direction columns in RAS."""
    return np.asarray(RAS_FROM_LPS[:3, :3] @ directions)


def peak_ijk(image: npt.NDArray[np.complexfloating]) -> npt.NDArray[np.intp]:
    """Index (i, j, k) of the brightest voxel."""
    return np.array(np.unravel_index(int(np.abs(image).argmax()), image.shape))[::-1]


def fourier(kspace: npt.NDArray[np.complexfloating], axes: tuple[int, ...]) -> npt.NDArray[np.complexfloating]:
    """Centred inverse Fourier transform, unitary."""
    shifted = np.fft.ifftn(np.fft.ifftshift(kspace, axes), axes=axes, norm="ortho")
    return np.asarray(np.fft.fftshift(shifted, axes))
