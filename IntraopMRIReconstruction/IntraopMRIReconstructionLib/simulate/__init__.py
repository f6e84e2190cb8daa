"""A theatre without a scanner: anatomy, coils, k-space, scanner and tracker servers, with known truth."""
