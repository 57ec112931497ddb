"""Trained agents that come with the package, each made by the command in its `provenance.json`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "agents"


def pretrained_names() -> list[str]:
    """The agents that there are."""
    return sorted(path.name for path in FOLDER.iterdir())


def pretrained(name: str) -> Path:
    """The folder of an agent that comes along, for `load_agent`.

    Raises:
        ValueError: There is none of this name.
    """
    if name not in pretrained_names():
        raise ValueError(f"no agent {name!r} comes along; there are {', '.join(pretrained_names())}")
    return FOLDER / name
