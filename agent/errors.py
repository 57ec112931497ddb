"""What can go wrong in a run that is nobody's typing mistake; importing this module imports no torch."""

from __future__ import annotations


class CollapseError(RuntimeError):
    """The representation has collapsed: the latents no longer tell what perception sees."""
