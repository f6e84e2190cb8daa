"""k-space to images: direct and iterative reconstruction."""
