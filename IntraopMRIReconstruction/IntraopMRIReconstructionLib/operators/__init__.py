"""Linear operators of MR encoding: Fourier, sampling, coil sensitivity, non-uniform Fourier."""
