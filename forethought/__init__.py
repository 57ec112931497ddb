"""forethought: agents that can react (Mode-1) and think ahead (Mode-2).

Importing the package registers its environments with Gymnasium (`forethought/procgen-coinrun-v0`,
`forethought/TwoRoom-v0` …) and imports neither torch nor a simulator; both come with the first name that needs them:

    >>> import forethought
    >>> forethought.make_env("CartPole-v1", num_envs=2).num_envs
    2
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

_checkout = Path(__file__).resolve().parent.parent
if not (Path(__file__).parent / "agent").is_dir() and (_checkout / "pyproject.toml").is_file():
    # Python was started in a checkout's root: the subpackages are this folder's siblings there.
    __path__.append(str(_checkout))

from .envs.make import register as _register  # noqa: E402  (needs the path above)

if TYPE_CHECKING:
    from .agent.agent import Agent
    from .agent.checkpoint import load_agent, save_agent
    from .agent.comparison import CompareConfig, compare
    from .agent.config import RunConfig
    from .agent.evaluation import Episode, Result, evaluate
    from .agent.presets import preset
    from .agent.pretrained import pretrained
    from .agent.protocols import evaluate_protocol
    from .agent.report import write_report
    from .agent.run import train
    from .envs.levels import Levels, LevelSplit
    from .envs.make import list_envs, make_env

try:
    __version__ = version("forethought")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0.1.0"

__all__ = [
    "Agent",
    "CompareConfig",
    "Episode",
    "LevelSplit",
    "Levels",
    "Result",
    "RunConfig",
    "__version__",
    "compare",
    "evaluate",
    "evaluate_protocol",
    "list_envs",
    "load_agent",
    "make_env",
    "preset",
    "pretrained",
    "save_agent",
    "train",
    "write_report",
]

_HOMES = {
    "Agent": "agent.agent",
    "CompareConfig": "agent.comparison",
    "Episode": "agent.evaluation",
    "LevelSplit": "envs.levels",
    "Levels": "envs.levels",
    "Result": "agent.evaluation",
    "RunConfig": "agent.config",
    "compare": "agent.comparison",
    "evaluate": "agent.evaluation",
    "evaluate_protocol": "agent.protocols",
    "list_envs": "envs.make",
    "load_agent": "agent.checkpoint",
    "make_env": "envs.make",
    "preset": "agent.presets",
    "pretrained": "agent.pretrained",
    "save_agent": "agent.checkpoint",
    "train": "agent.run",
    "write_report": "agent.report",
}
"""The module of each public name, imported when the name is first used (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_register()
