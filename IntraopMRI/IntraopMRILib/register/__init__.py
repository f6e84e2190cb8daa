"""Image pair in, transform, uncertainty and verdict out."""
