"""make_env, registration, single environments and action repeat."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from forethought.envs import ActionRepeat, LevelSplit, SingleEnv, has_levels, list_envs, make_env, register
from forethought.envs.procgen import GAMES, ProcgenVectorEnv
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.env_checker import check_env as check_env_sb3

register()
OWN_IDS = [f"forethought/procgen-{game}-v0" for game in GAMES] + [
    f"forethought/{name}-v0" for name in ("TwoRoom", "DotWall", "Foraging")
]


class Script(VectorEnv[Any, Any, Any]):
    """Environment i ends at the frames in ends[i], counted from 1 over the whole run.

    The t-th frame after a reset pays 10**(t - 1), so a sum of rewards tells which frames went into it.
    """

    def __init__(self, ends: list[list[int]], noop: Any = 0, final: bool = True, with_noop: bool = True) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs = len(ends)
        self.single_observation_space, self.single_action_space = spaces.Box(0, 99, (1,)), spaces.Discrete(9)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.ends, self.final = ends, final
        self.actions: list[Any] = []
        self.frame = 0
        if with_noop:
            self.noop = noop

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.frame = 0
        return self._observation(), {"level_seed": np.zeros(self.num_envs, np.int32)}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.actions.append(np.asarray(actions).tolist())
        reward = np.full(self.num_envs, 10.0**self.frame, np.float64)
        self.frame += 1
        ended = np.array([self.frame in ends for ends in self.ends])
        infos: dict[str, Any] = {"level_seed": np.full(self.num_envs, self.frame, np.int32), "success": ended.copy()}
        if ended.any() and self.final:
            infos["final_obs"] = np.array([np.full(1, 50.0 + self.frame) if end else None for end in ended], object)
            infos["_final_obs"] = ended.copy()
            infos["final_info"] = {"length": np.where(ended, self.frame, 0), "_length": ended.copy()}
            infos["_final_info"] = ended.copy()
        return self._observation(), reward, ended, np.zeros_like(ended), infos

    def _observation(self) -> Any:
        return np.full((self.num_envs, 1), self.frame, np.float32)

    def state(self) -> dict[str, Any]:
        return {"frame": np.array(self.frame)}

    def set_state(self, state: Any) -> None:
        self.frame = int(state["frame"])


def test_action_repeat_sums_until_the_first_end_and_carries_the_rest() -> None:
    inner = Script([[], [2], [4]])
    env = ActionRepeat(inner, 4)
    env.reset()
    observation, reward, terminated, truncated, infos = env.step([7, 7, 7])
    assert reward.tolist() == [1111, 11, 1111] and env.carried.tolist() == [0, 1100, 0]
    assert terminated.tolist() == [False, True, True] and not truncated.any()
    assert infos["success"].tolist() == [False, True, True] and infos["level_seed"].tolist() == [4, 2, 4]
    assert infos["final_info"]["length"].tolist() == [0, 2, 4]
    assert [None if obs is None else obs.tolist() for obs in infos["final_obs"]] == [None, [52.0], [54.0]]
    assert infos["_final_obs"].tolist() == [False, True, True]
    assert inner.actions == [[7, 7, 7], [7, 7, 7], [7, 0, 7], [7, 0, 7]]  # the ended one does nothing
    assert observation[:, 0].tolist() == [4, 4, 4]
    _, reward, terminated, *_ = env.step([5, 5, 5])
    assert reward.tolist() == [11110000, 11111100, 11110000] and not terminated.any() and not env.carried.any()
    assert env.folded == 0


def test_action_repeat_folds_a_second_end_and_counts_it() -> None:
    env = ActionRepeat(Script([[1, 3]]), 4)
    env.reset()
    _, reward, terminated, _, infos = env.step([7])
    assert (reward[0], terminated[0], env.carried[0], env.folded) == (1, True, 1110, 1)
    assert infos["final_obs"][0].tolist() == [51.0] and infos["final_info"]["length"].tolist() == [1]
    assert env.step([7])[1][0] == 11110000 + 1110
    env = ActionRepeat(Script([[1, 4]]), 4)  # the second end in the very last frame
    env.reset()
    infos = env.step([7])[4]
    assert infos["final_obs"][0].tolist() == [51.0] and env.folded == 1


def test_action_repeat_without_noop_holds_and_accepts_one_noop_per_environment() -> None:
    inner = Script([[1]], with_noop=False)
    ActionRepeat(inner, 2).step([7])
    assert inner.actions == [[7], [7]]
    inner = Script([[1], []], noop=np.array([[3.0, 3.0], [4.0, 4.0]]))
    ActionRepeat(inner, 2).step(np.full((2, 2), 7.0))
    assert inner.actions[1] == [[3, 3], [7, 7]]


def test_action_repeat_forgets_and_saves_what_it_carries() -> None:
    env = ActionRepeat(Script([[1], [1]]), 2)
    env.reset()
    env.step([7, 7])
    saved = env.state()
    assert env.carried.tolist() == [10, 10]
    env.reset(options={"reset_mask": np.array([True, False])})
    assert env.carried.tolist() == [0, 10]
    env.set_state(saved)
    assert env.carried.tolist() == [10, 10] and env.env.frame == 2  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="Was it saved without"):
        env.set_state({"frame": np.array(0)})
    env.reset()
    assert not env.carried.any()
    with pytest.raises(ValueError, match="repeat=1"):
        ActionRepeat(Script([[]]), 1)


def test_action_repeat_tells_what_came_in_each_frame() -> None:
    env = ActionRepeat(Script([[2], []]), 3)
    assert env.held_frames is None
    env.step([1, 1])
    frames = env.held_frames
    assert frames is not None and frames.observation[..., 0].tolist() == [[1, 1], [2, 2]]
    assert frames.reward.tolist() == [[1, 1], [10, 10], [100, 100]]
    assert frames.terminated.tolist() == [[False, False], [True, False], [False, False]]
    assert not frames.truncated.any()


def test_action_repeat_holds_where_observations_are_no_arrays() -> None:
    class Several(Script):
        def _observation(self) -> Any:
            return np.full((self.num_envs, 1), self.frame), np.full((self.num_envs, 2), self.frame)

    env = ActionRepeat(Several([[]]), 3)
    observation, reward, *_ = env.step([1])
    assert observation[1].tolist() == [[3, 3]] and reward.tolist() == [111] and env.held_frames is None


def test_action_repeat_in_procgen_equals_holding_by_hand() -> None:
    held, plain = make_env("procgen:starpilot", 2, seed=1, action_repeat=3), make_env("procgen:starpilot", 2, seed=1)
    held.reset()
    plain.reset()
    for row in np.random.default_rng(0).integers(15, size=(8, 2)):
        observation, reward, *_ = held.step(row)
        steps = [plain.step(row) for _ in range(3)]
        if any((step[2] | step[3]).any() for step in steps):
            break
        assert np.array_equal(observation, steps[-1][0]) and np.array_equal(reward, sum(step[1] for step in steps))
    assert reward.dtype == np.float32


@pytest.mark.parametrize("id", OWN_IDS)
def test_own_environments_pass_the_checkers(id: str) -> None:
    options = {} if "procgen" in id else {"max_steps": 20}
    env = gymnasium.make(id, disable_env_checker=True, **options).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", message=".*symmetric and normalized space.*"
        )  # DotWall moves up to 2.45 pixels
        check_env(env, skip_render_check=True)
        check_env_sb3(env, warn=False)
    env.close()


@pytest.mark.parametrize("id", ["CartPole-v1", "procgen:leaper"])
def test_single_env_equals_the_vector_until_an_end_and_after_it(id: str) -> None:
    single = SingleEnv(make_env(id, 1, seed=2))
    vector = make_env(id, 1, seed=2)
    (mine, _), (theirs, _) = single.reset(), vector.reset()
    generator = np.random.default_rng(0)
    ends = 0
    while ends < 3:
        assert np.array_equal(mine, theirs[0])
        action = int(generator.integers(single.action_space.n))  # type: ignore[attr-defined]
        before = mine
        mine, reward, terminated, truncated, infos = single.step(action)
        theirs, rewards, terminations, truncations, vector_infos = vector.step(np.array([action]))
        assert (reward, terminated, truncated) == (rewards[0], terminations[0], truncations[0])
        assert type(infos["success"]) is bool and type(reward) is float
        if terminated or truncated:
            ends += 1
            last = vector_infos["final_obs"][0] if "final_obs" in vector_infos else before
            assert np.array_equal(mine, last)
            with pytest.raises(gymnasium.error.ResetNeeded):
                single.step(action)
            mine, infos = single.reset()
            assert infos["success"] is False and not any("final" in key for key in infos)


def test_single_env_scalars_and_refusals() -> None:
    env = SingleEnv(Script([[2]]))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset()
    env.step(0)
    observation, _, terminated, _, infos = env.step(0)
    assert terminated and observation.tolist() == [52.0] and env.noop == 0
    assert infos == {"level_seed": 2, "success": True, "length": 2}
    observation, infos = env.reset()
    assert observation.tolist() == [2.0] and infos == {"level_seed": 2, "success": False}
    env.step(0)
    assert env.reset(seed=1)[0].tolist() == [0.0]
    with pytest.raises(ValueError, match="num_envs=1"):
        SingleEnv(Script([[], []]))


def test_registration_is_idempotent_and_serves_gymnasium() -> None:
    before = dict(gymnasium.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register()
    assert gymnasium.registry == before and set(OWN_IDS) <= before.keys()
    env = gymnasium.make("forethought/procgen-coinrun-v0", distribution_mode="hard", render_mode="rgb_array")
    env.reset(seed=1)
    assert env.render().shape == (512, 512, 3)  # type: ignore[union-attr]
    vector = gymnasium.make_vec("forethought/procgen-coinrun-v0", num_envs=3, split="test")
    assert isinstance(vector.unwrapped, ProcgenVectorEnv) and vector.num_envs == 3
    assert (vector.reset()[1]["level_seed"] >= LevelSplit().test.start).all()
    with pytest.raises(TypeError, match="colour"):
        gymnasium.make("forethought/procgen-coinrun-v0", colour="red")


@pytest.mark.parametrize("id", [*list_envs(), "CartPole-v1", *OWN_IDS[-3:]])
def test_every_listed_environment_can_be_made_and_is_seeded(id: str) -> None:
    first, twin, other = (make_env(id, 2, seed=seed) for seed in (4, 4, 5))
    assert first.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and first.num_envs == 2
    flat = [_beginning(env) for env in (first, twin, other)]
    assert np.array_equal(flat[0], flat[1]) and not np.array_equal(flat[0], flat[2])
    assert has_levels(id) == ("procgen" in id)
    for env in (first, twin, other):
        env.close()


def _beginning(env: Any) -> Any:
    """What is seen at first and after a step, as one vector."""
    seen = [env.reset()[0], env.step(np.zeros(env.action_space.shape, env.action_space.dtype))[0]]
    return np.concatenate([np.ravel(part) for observation in seen for part in _parts(observation)])


def _parts(observation: Any) -> list[Any]:
    return list(observation.values()) if isinstance(observation, dict) else [observation]


def test_options_reach_the_environment() -> None:
    env = make_env("procgen:maze", split="test", distribution_mode="memory", use_backgrounds=False)
    assert (env.distribution_mode, env.split, env.step_limit) == ("memory", "test", 500)  # type: ignore[attr-defined]
    assert make_env("TwoRoom", pairs="cross_room", max_steps=7).max_steps == 7  # type: ignore[attr-defined]
    limited = make_env("CartPole-v1", max_steps=2)
    limited.reset()
    assert [bool(limited.step([0])[3][0]) for _ in range(2)] == [False, True]
    assert isinstance(make_env("CartPole-v1", action_repeat=2), ActionRepeat)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "procgen:coinrum"}, "Closest: procgen:coinrun"),
        ({"id": "CartPol-v1"}, "Closest: CartPole-v1"),
        ({"id": "forethought/procgen-mase-v0"}, "Unknown environment 'forethought/procgen-mase-v0'"),
        ({"id": "forethought/CartPole-v1"}, "Unknown environment"),
        ({"id": "TwoRooms"}, "Closest: TwoRoom"),
        ({"id": "ALE/Nothing-v5"}, "Unknown environment"),
        ({"id": "CartPole-v1", "distribution_mode": "easy"}, "CartPole-v1 does not have the options distribution_mode"),
        ({"id": "CartPole-v1", "split": "test"}, "split='test'"),
        ({"id": "TwoRoom", "levels": LevelSplit()}, "levels="),
        ({"id": "procgen:maze", "observation_key": "image"}, "observation_key='image'"),
        ({"id": "procgen:maze", "max_steps": 5}, "max_steps=5"),
        ({"id": "CartPole-v1", "action_repeat": 0}, "action_repeat=0"),
        ({"id": "CartPole-v1", "num_envs": 0}, "num_envs=0"),
        ({"id": "CartPole-v1", "seed": -1}, "seed=-1"),
    ],
)
def test_errors_say_what_to_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_env(**options)
