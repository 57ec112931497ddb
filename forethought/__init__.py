"""forethought: agents that can react (Mode-1) and think ahead (Mode-2)."""

from pathlib import Path

_checkout = Path(__file__).resolve().parent.parent
if not (Path(__file__).parent / "agent").is_dir() and (_checkout / "pyproject.toml").is_file():
    # Python was started in a checkout's root: the subpackages are this folder's siblings there.
    __path__.append(str(_checkout))
