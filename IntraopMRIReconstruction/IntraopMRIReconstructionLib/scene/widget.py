"""The reconstruction panel: one source in, one volume out, with the method and its reason."""

from .panel import Panel


class ReconstructionPanel(Panel):
    """Source, what was recognised, method with its reason, preview, compare."""
