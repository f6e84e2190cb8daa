"""Phases of the procedure, checklists, clocks, sign-offs, audit log."""
