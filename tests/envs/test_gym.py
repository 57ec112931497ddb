"""GymVectorEnv: spaces in standard form, ends, success, and errors."""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium
import numpy as np
import pytest
from forethought.envs.gym import GymVectorEnv
from gymnasium import spaces

IMAGE = spaces.Box(0, 255, (32, 40, 3), np.uint8)
GRID = spaces.Box(0, 255, (7, 7, 3), np.uint8)
UNIT = spaces.Box(-1, 1, (2,), np.float64)


class Probe(gymnasium.Env[Any, Any]):
    """Counts steps; the action and every return value can be chosen from outside."""

    def __init__(
        self,
        observation_space: spaces.Space[Any] = UNIT,
        action_space: spaces.Space[Any] = spaces.Discrete(3),  # noqa: B008
        length: int = 3,
        bad: str = "",
        success_key: str = "",
        render_mode: str | None = None,
    ) -> None:
        self.observation_space, self.action_space, self.render_mode = observation_space, action_space, render_mode
        self.length, self.bad, self.success_key = length, bad, success_key
        self.actions: list[Any] = []
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self.steps += 1
        observation = self.observation_space.sample()
        if self.bad == "observation":
            observation[1] = np.nan
        end = self.steps == self.length
        if self.bad == "final observation" and end:
            observation[0] = np.inf
        info = {self.success_key: end} if self.success_key else {}
        return observation, np.nan if self.bad == "reward" else 1.0, end, False, info


def make_probe(**options: Any) -> Probe:
    return Probe(**options)


gymnasium.register("ForethoughtProbe-v0", entry_point=make_probe, disable_env_checker=True, order_enforce=False)


def probe(num_envs: int = 2, **options: Any) -> GymVectorEnv:
    gymnasium.registry["ForethoughtProbe-v0"].kwargs = options
    return GymVectorEnv("ForethoughtProbe-v0", num_envs)


@pytest.mark.parametrize(
    ("id", "key", "shape"),
    [
        ("CartPole-v1", None, (4,)),
        ("Pendulum-v1", None, (3,)),
        ("Acrobot-v1", None, (6,)),
        ("FrozenLake-v1", None, (16,)),
        ("Blackjack-v1", None, (45,)),
        ("MiniGrid-Empty-5x5-v0", "image", (7 * 7 * 21,)),
        ("MiniGrid-Empty-5x5-v0", "direction", (4,)),
    ],
)
def test_known_environments(id: str, key: str | None, shape: tuple[int, ...]) -> None:
    env, twin = (GymVectorEnv(id, 3, seed=5, observation_key=key) for _ in range(2))
    assert env.single_observation_space.shape == shape and env.single_observation_space.dtype == np.float32
    assert np.array_equal(env.reset()[0], twin.reset(seed=5)[0])
    env.action_space.seed(0)
    ends = 0
    for _ in range(210):
        actions = env.action_space.sample()
        one, other = env.step(actions), twin.step(actions)
        assert all(np.array_equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
        assert env.observation_space.contains(one[0]) and one[1].dtype == np.float32
        for index in np.flatnonzero(one[2] | one[3]):
            assert env.single_observation_space.contains(one[4]["final_obs"][index])
            ends += 1
    assert ends or id == "Acrobot-v1" or id.startswith("MiniGrid")


def test_pendulum_ends_by_truncation_only() -> None:
    env = GymVectorEnv("Pendulum-v1", 1, max_steps=5)
    env.reset()
    ends = [env.step(np.zeros((1, 1), np.float32))[2:4] for _ in range(5)]
    assert [bool(truncated[0]) for _, truncated in ends] == [False] * 4 + [True]
    assert not any(terminated[0] for terminated, _ in ends)


@pytest.mark.parametrize(
    ("space", "shape", "dtype"),
    [
        (IMAGE, (32, 40, 3), np.uint8),
        (spaces.Box(0, 255, (64, 64), np.uint8), (64, 64, 1), np.uint8),
        (GRID, (147,), np.float32),
        (spaces.Box(-1, 1, (2, 3), np.float64), (6,), np.float32),
        (spaces.Discrete(4, start=2), (4,), np.float32),
        (spaces.MultiDiscrete([2, 3]), (5,), np.float32),
        (spaces.Dict({"a": UNIT, "b": spaces.Discrete(3)}), (5,), np.float32),
        (spaces.Tuple((UNIT, spaces.MultiBinary(2))), (4,), np.float32),
    ],
)
def test_observations_take_standard_form(space: spaces.Space[Any], shape: tuple[int, ...], dtype: Any) -> None:
    env = probe(observation_space=space)
    assert env.single_observation_space.shape == shape and env.single_observation_space.dtype == dtype
    assert env.observation_space.contains(env.reset()[0])
    for _ in range(4):
        assert env.observation_space.contains(env.step([0, 1])[0])


def test_values_are_converted_not_only_shapes() -> None:
    env = probe(num_envs=1, observation_space=spaces.Discrete(4, start=2))
    env.reset(seed=0)
    raw = env.env.envs[0].unwrapped.observation_space  # type: ignore[attr-defined]
    raw.seed(3)
    expected = np.eye(4, dtype=np.float32)[raw.sample() - 2]
    raw.seed(3)
    assert np.array_equal(env.step([0])[0][0], expected)
    scaled = probe(num_envs=1, observation_space=GRID).reset()[0]
    assert 0.9 < scaled.max() <= 1.0


def test_one_part_of_a_dict_or_tuple_can_be_chosen() -> None:
    gymnasium.registry["ForethoughtProbe-v0"].kwargs = {"observation_space": spaces.Dict({"a": UNIT, "pic": IMAGE})}
    assert GymVectorEnv("ForethoughtProbe-v0", observation_key="pic").reset()[0].shape == (1, 32, 40, 3)
    with pytest.raises(ValueError, match=r"observation_key='x': expected one of \['a', 'pic'\]"):
        GymVectorEnv("ForethoughtProbe-v0", observation_key="x")
    with pytest.raises(ValueError, match=r"pass observation_key with one of \['a', 'pic'\]"):
        GymVectorEnv("ForethoughtProbe-v0")
    gymnasium.registry["ForethoughtProbe-v0"].kwargs = {"observation_space": spaces.Tuple((IMAGE, UNIT))}
    assert GymVectorEnv("ForethoughtProbe-v0", observation_key="1").reset()[0].shape == (1, 2)
    with pytest.raises(ValueError, match="has no parts"):
        GymVectorEnv("CartPole-v1", observation_key="x")


def test_what_cannot_be_observed_or_done_is_explained() -> None:
    with pytest.raises(ValueError, match=r"Text.*ObservationWrapper"):
        probe(observation_space=spaces.Text(5))
    with pytest.raises(ValueError, match="infinite bounds"):
        probe(action_space=spaces.Box(-np.inf, np.inf, (1,), np.float32))
    with pytest.raises(ValueError, match="expected Discrete, MultiDiscrete"):
        probe(action_space=spaces.Tuple((spaces.Discrete(2),)))
    with pytest.raises(ValueError, match="observation_key with one of"):
        GymVectorEnv("MiniGrid-Empty-5x5-v0")


def test_actions_count_from_zero_and_are_checked() -> None:
    env = probe(action_space=spaces.Discrete(3, start=5))
    env.reset()
    env.step([0, 2])
    assert [inner.unwrapped.actions for inner in env.env.envs] == [[5], [7]]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"actions\[1\] = 3: expected 0 to 2"):
        env.step([0, 3])
    with pytest.raises(ValueError, match="type float64"):
        env.step([0.0, 1.0])
    box = probe(action_space=spaces.Box(-2, 2, (1,), np.float32))
    box.reset()
    box.step(np.array([[2.000001], [-2.0]]))
    assert box.env.envs[0].unwrapped.actions[0] == 2  # type: ignore[attr-defined]
    for value in (2.1, np.nan):
        with pytest.raises(ValueError, match=r"actions\[1, 0\] = .*Clip or rescale"):
            box.step(np.array([[0.0], [value]]))
    many = probe(action_space=spaces.MultiDiscrete([2, 3]))
    many.reset()
    many.step([[1, 2], [0, 0]])
    with pytest.raises(ValueError, match=r"actions\[0, 0\] = 2"):
        many.step([[2, 2], [0, 0]])


@pytest.mark.parametrize("bad", ["observation", "reward", "final observation"])
def test_numbers_that_are_not_finite_are_named(bad: str) -> None:
    env = probe(bad=bad, length=1 if bad == "final observation" else 3)
    env.reset()
    with pytest.raises(FloatingPointError, match=f"environment 0 returned the {bad} (nan|inf)"):
        env.step([0, 0])


@pytest.mark.parametrize(("key", "expected"), [("success", True), ("is_success", True), ("", False)])
def test_success_comes_from_the_environment_at_the_end_only(key: str, expected: bool) -> None:
    env = probe(success_key=key)
    env.reset()
    seen = [env.step([0, 0]) for _ in range(3)]
    assert [bool(step[4]["success"][0]) for step in seen] == [False, False, expected]
    assert "final_obs" in seen[2][4] and seen[2][2].all()


def test_minigrid_success_is_a_rewarded_end() -> None:
    env = GymVectorEnv("MiniGrid-Empty-5x5-v0", 1, observation_key="image")
    env.reset()
    for action in (2, 2, 1, 2, 2):  # forward twice, turn right, forward twice: the goal
        _, reward, terminated, _, infos = env.step([action])
        assert bool(infos["success"][0]) == (bool(terminated[0]) and reward[0] > 0)
    assert terminated[0] and infos["success"][0]


def test_minigrid_cells_are_one_hot() -> None:
    env = GymVectorEnv("MiniGrid-MemoryS7-v0", 1, seed=3, observation_key="image")
    seen = env.reset()[0].reshape(7, 7, 21)
    raw, _ = gymnasium.make("MiniGrid-MemoryS7-v0").reset(seed=3)
    for first, count, part in ((0, 11, 0), (11, 6, 1), (17, 4, 2)):
        assert (seen[..., first : first + count].sum(-1) == 1).all()
        assert np.array_equal(seen[..., first : first + count].argmax(-1), raw["image"][..., part])
    assert len(np.unique(raw["image"][..., 0])) > 3, "nothing to be told apart"


def test_first_reset_uses_the_constructors_seed_and_is_required() -> None:
    env = GymVectorEnv("CartPole-v1", 2, seed=3)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0, 0])
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.reset(options={"reset_mask": np.array([True, False])})
    first = env.reset()[0]
    assert not np.array_equal(env.reset()[0], first)
    assert np.array_equal(env.reset(seed=3)[0], first)
    masked = env.reset(options={"reset_mask": np.array([True, False])})[0]
    assert np.array_equal(masked[1], first[1]) and not np.array_equal(masked[0], first[0])


def test_missing_minigrid_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'forethought\[minigrid\]'"):
        GymVectorEnv("MiniGrid-Empty-5x5-v0")
