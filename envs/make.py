"""Environments by name."""

from __future__ import annotations

import difflib
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from .action_repeat import ActionRepeat
from .gym import GymVectorEnv, import_minigrid
from .levels import LevelSplit
from .procgen import GAMES, MODES, ProcgenVectorEnv
from .single import SingleEnv

_NAMESPACE = "forethought"
_GENIE = "genie:"
_SPRITE = "Sprite"
_RECALL, _LOOK = f"{_NAMESPACE}/Recall-v0", f"{_NAMESPACE}/Look-v0"
_ROOMS = {
    "TwoRoom": "Two rooms joined by a door; walk to the goal.",
    "DotWall": "A dot and a wall with an opening; reach the goal picture.",
}
_FORAGING = "Foraging"
_OWN = _ROOMS | {
    _FORAGING: "Food, hazards and tokens; sensors energy and hazard_distance.",
    _SPRITE: "A sprite in a 16×16 box; walk to the corner. What the small Genie world shows.",
}
"""This package's worlds besides Procgen, each with a line that describes it."""


def make_env(
    id: str,
    num_envs: int = 1,
    *,
    seed: int = 0,
    split: str = "train",
    levels: LevelSplit | None = None,
    distribution_mode: str | None = None,
    num_threads: int | None = None,
    paint_vel_info: bool | None = None,
    use_backgrounds: bool | None = None,
    center_agent: bool | None = None,
    restrict_themes: bool | None = None,
    use_monochrome_assets: bool | None = None,
    use_generated_assets: bool | None = None,
    actions: tuple[int, ...] | None = None,
    observation_key: str | None = None,
    pairs: str | None = None,
    pixels: bool | None = None,
    terminate_on_success: bool | None = None,
    max_steps: int | None = None,
    wirings: int | None = None,
    wirings_told: bool | None = None,
    prompts: str | None = None,
    action_repeat: int = 1,
    render_mode: str | None = None,
) -> VectorEnv[Any, Any, Any]:
    """Build the vector environment named `id`.

    Args:
        id: "procgen:coinrun" or "forethought/procgen-coinrun-v0"; "TwoRoom", "DotWall", "Foraging" or "Sprite" (also
            "forethought/TwoRoom-v0"); "forethought/Recall-v0", a test of memory, and "forethought/Look-v0", of
            foresight; "genie:FOLDER", a world learned from video ("forethought/Genie-v0": the one that comes along); or
            any registered Gymnasium id. `list_envs` lists them.
        num_envs: Number of environments B.
        seed: Seed of the first episodes, until `reset` is given another.
        split: "train", or "test" for Procgen's held-out levels.
        levels: Procgen: the level ranges of both splits; `LevelSplit()` when None.
        distribution_mode: Procgen: "easy" (when None), "hard", "extreme", "memory" or "exploration".
        num_threads: Procgen: threads of the simulator, 0 when None.
        paint_vel_info: Procgen: paint the velocity into the picture.
        use_backgrounds: Procgen: draw backgrounds.
        center_agent: Procgen: keep the agent in the middle.
        restrict_themes: Procgen: one theme.
        use_monochrome_assets: Procgen: rectangles instead of drawings.
        use_generated_assets: Procgen: random drawings.
        actions: Procgen: the buttons to choose from, numbered anew in this order; all 15 when None.
        observation_key: Gymnasium: the part of a Dict or Tuple observation to use.
        pairs: Rooms: the law of start and goal.
        pixels: Foraging: whether observations are pictures; a vector when None.
        terminate_on_success: Rooms: whether reaching the goal ends the episode.
        max_steps: Rooms, Foraging, Sprite, Genie and Gymnasium: steps until truncation.
        wirings: Gymnasium: ways in which the controls may be wired, another in each episode; as they are when None.
        wirings_told: Gymnasium: whether a context tells how they are wired; yes when None.
        prompts: Genie: the folder of a data set whose training clips dreams begin with; those of the world when None.
        action_repeat: Frames for which an action is held.
        render_mode: None or "rgb_array".

    Returns:
        A vector environment in `AutoresetMode.SAME_STEP`.

    Raises:
        ValueError: An unknown id, an option that this environment does not have, or a value it does not accept.
        ImportError: The environment's package is missing.
    """
    if action_repeat < 1:
        raise ValueError(f"action_repeat={action_repeat}: expected at least 1.")
    kind, name = _resolve(id)
    given = {
        "split": None if split == "train" else split,
        "levels": levels,
        "distribution_mode": distribution_mode,
        "num_threads": num_threads,
        "paint_vel_info": paint_vel_info,
        "use_backgrounds": use_backgrounds,
        "center_agent": center_agent,
        "restrict_themes": restrict_themes,
        "use_monochrome_assets": use_monochrome_assets,
        "use_generated_assets": use_generated_assets,
        "actions": actions,
        "observation_key": observation_key,
        "pairs": pairs,
        "pixels": pixels,
        "terminate_on_success": terminate_on_success,
        "max_steps": max_steps,
        "wirings": wirings,
        "wirings_told": wirings_told,
        "prompts": prompts,
    }
    options = {key: value for key, value in given.items() if value is not None}
    accepted = _OPTIONS[kind]
    if foreign := sorted(options.keys() - accepted):
        raise ValueError(
            f"{id} does not have the options {', '.join(f'{key}={options[key]!r}' for key in foreign)}; it has "
            f"{', '.join(sorted(accepted))} (and num_envs, seed, action_repeat, render_mode). Leave the others away."
        )
    env = _build(kind, name, num_envs, seed, options | {"render_mode": render_mode})
    return ActionRepeat(env, action_repeat) if action_repeat > 1 else env


_OPTIONS: dict[str, frozenset[str]] = {
    "procgen": frozenset(
        {
            "split", "levels", "distribution_mode", "num_threads", "paint_vel_info", "use_backgrounds", "center_agent",
            "restrict_themes", "use_monochrome_assets", "use_generated_assets", "actions",
        }
    ),
    "TwoRoom": frozenset({"max_steps", "pairs", "terminate_on_success"}),
    "DotWall": frozenset({"max_steps", "pairs", "terminate_on_success"}),
    _SPRITE: frozenset({"max_steps"}),
    _FORAGING: frozenset({"max_steps", "pixels"}),
    "genie": frozenset({"max_steps", "prompts"}),
    "gymnasium": frozenset({"max_steps", "observation_key", "wirings", "wirings_told"}),
}  # fmt: skip


def has_levels(id: str) -> bool:
    """Whether `id` distinguishes training from test levels (`split`, `levels`)."""
    return _resolve(id)[0] == "procgen"


def list_envs() -> dict[str, str]:
    """Ids of this package's own environments, each with a line that describes it; any Gymnasium id works besides."""
    modes = {game: ", ".join(mode for mode, games in MODES.items() if game in games) for game in GAMES}
    procgen = {f"procgen:{game}": f"Procgen's {game}; modes {modes[game]}." for game in GAMES}
    return (
        procgen
        | dict(_OWN)
        | {
            _RECALL: "Which symbol was on which side? Only a memory can tell.",
            _LOOK: "Two doors and a prize: who foresees that a look may tell, looks first.",
        }
    )


def register() -> None:
    """Register this package's environments with Gymnasium; safe to call again, and imports no simulator."""
    names = {f"procgen-{game}": f"procgen:{game}" for game in GAMES} | {own: own for own in _OWN}
    for name, env in names.items():
        if f"{_NAMESPACE}/{name}-v0" not in gymnasium.registry:
            gymnasium.register(
                f"{_NAMESPACE}/{name}-v0",
                entry_point=f"{__name__}:make_single",
                vector_entry_point=f"{__name__}:make_vector",
                kwargs={"env": env},
            )
    for id, entry in ((_RECALL, "recall:RecallEnv"), (_LOOK, "look:LookEnv")):
        if id not in gymnasium.registry:
            gymnasium.register(id, entry_point=__name__.removesuffix("make") + entry)
    if f"{_NAMESPACE}/Genie-v0" not in gymnasium.registry:
        home = __name__.removesuffix("make") + "genie"
        gymnasium.register(
            f"{_NAMESPACE}/Genie-v0", entry_point=f"{home}:make_single", vector_entry_point=f"{home}:GenieVectorEnv"
        )


def make_single(env: str, **options: Any) -> SingleEnv:
    """Entry point of `gymnasium.make`: `make_env(env, 1, **options)` as a single environment."""
    return SingleEnv(make_env(env, 1, **options))  # make_env rejects unknown options


def make_vector(env: str, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """Entry point of `gymnasium.make_vec`: `make_env(env, num_envs, **options)`."""
    return make_env(env, num_envs, **options)


def _build(kind: str, name: str, num_envs: int, seed: int, options: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    if kind == "procgen":
        return ProcgenVectorEnv(name, num_envs, seed=seed, **options)
    if kind == "gymnasium":
        return GymVectorEnv(name, num_envs, seed=seed, **options)
    if kind == "genie":
        from .genie import GenieVectorEnv  # noqa: PLC0415  (imports torch)

        return GenieVectorEnv(name or None, num_envs, seed=seed, **options)
    if kind == _SPRITE:
        from .sprite import SpriteVectorEnv  # noqa: PLC0415  (only where asked for)

        return SpriteVectorEnv(num_envs, seed=seed, **options)
    from . import foraging, rooms  # noqa: PLC0415  (only where asked for)

    if kind == _FORAGING:
        world = foraging.ForagingVectorEnv(num_envs, **options)
        world.reset(seed=seed)
        return world
    room = {"TwoRoom": rooms.TwoRoomVectorEnv, "DotWall": rooms.DotWallVectorEnv}[kind](num_envs, **options)
    room.reset(seed=seed)  # rooms take no seed when built; later resets go on from this one
    return room


def _resolve(id: str) -> tuple[str, str]:
    """Kind and name of an environment id.

    Raises:
        ValueError: No such environment.
    """
    name = id.removeprefix(f"{_NAMESPACE}/").removesuffix("-v0") if id.startswith(f"{_NAMESPACE}/") else id
    if name in _OWN:
        return name, name
    if id == f"{_NAMESPACE}/Genie-v0":
        return "genie", ""  # the world that comes along
    for prefix in ("procgen:", "procgen-"):
        if name.startswith(prefix) and name.removeprefix(prefix) in GAMES:
            return "procgen", name.removeprefix(prefix)
    if id.startswith(_GENIE):
        return "genie", id.removeprefix(_GENIE)
    if id in gymnasium.registry and not id.startswith(f"{_NAMESPACE}/"):
        return "gymnasium", id
    if id.startswith(("MiniGrid-", "BabyAI-")):
        import_minigrid()
    try:
        gymnasium.spec(id)
    except (gymnasium.error.Error, ImportError) as error:
        known = [*list_envs(), *(key for key in gymnasium.registry if "/" not in key)]
        close = difflib.get_close_matches(id, known, n=3, cutoff=0.5)
        hint = f" Closest: {', '.join(close)}." if close else ""
        raise ValueError(
            f"Unknown environment {id!r}: expected procgen:<game>, {', '.join(_OWN)} or a registered Gymnasium id "
            f"(see list_envs; third-party packages must be imported first).{hint}"
        ) from error
    return "gymnasium", id
