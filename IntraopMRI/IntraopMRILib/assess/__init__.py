"""Residual tumour and implant alignment as measured values with unit, definition and interval."""
