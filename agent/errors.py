"""What can go wrong in a run that is nobody's typing mistake; importing this module imports no torch."""

from __future__ import annotations


class CollapseError(RuntimeError):
    """The representation has collapsed: the latents no longer tell what perception sees."""


class OutOfMemoryError(MemoryError):
    """There is too little memory for the settings; the message names the one to lower."""


class Stopped(KeyboardInterrupt):
    """A signal asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
