"""Controls that are wired anew: what an action means, what is told, and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from forethought.envs.make import make_env
from forethought.envs.wired import Wired
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env


class Echo(gymnasium.Env[Any, Any]):
    """Shows the action that reached it."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.action_space = space
        self.observation_space = spaces.Box(-9.0, 9.0, space.shape or (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape or (), np.float32), {"options": options}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.atleast_1d(np.asarray(action, np.float32)), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("space", "wirings", "actions", "meant"),
    [
        (spaces.Discrete(3), 3, [0, 1, 2], [[0, 1, 2], [1, 2, 0], [2, 0, 1]]),
        (spaces.Discrete(3, start=2), 2, [2, 3, 4], [[2, 3, 4], [3, 4, 2]]),
        (spaces.Box(-1.0, 3.0, (1,)), 2, [-1.0, 0.5, 3.0], [[-1.0, 0.5, 3.0], [3.0, 1.5, -1.0]]),
    ],
)
@pytest.mark.parametrize("told", [True, False])
def test_actions_mean_what_the_context_tells(
    space: spaces.Space[Any], wirings: int, actions: list[Any], meant: list[list[float]], told: bool
) -> None:
    env = Wired(Echo(space), wirings, told)
    for wiring in range(wirings):
        first, info = env.reset(options={"wiring": wiring, "other": 1})
        assert info == {"options": {"other": 1}, "wiring": wiring}
        found = []
        for action in actions:
            seen, _, _, _, info = env.step(np.full(space.shape, action, space.dtype) if space.shape else action)
            assert seen["context"].tolist() == first["context"].tolist() == (np.eye(wirings) * told)[wiring].tolist()
            assert info["wiring"] == wiring
            found.append(float(seen["observation"][0]))
        assert found == meant[wiring]


def test_every_wiring_comes_as_often_as_others_and_by_the_seed() -> None:
    env = Wired(gymnasium.make("CartPole-v1"), 2)
    drawn = [env.reset(seed=7 if k == 0 else None)[1]["wiring"] for k in range(400)]
    again = [env.reset(seed=7 if k == 0 else None)[1]["wiring"] for k in range(400)]
    assert drawn == again and 150 < sum(drawn) < 250
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about CartPole's bounds, and that it is wrapped
        check_env(env, skip_render_check=True)


@pytest.mark.parametrize(
    ("space", "wirings", "message"),
    [
        (spaces.Discrete(3), 4, "wirings is 4, expected 2 to 3"),
        (spaces.Discrete(3), 1, "wirings is 1"),
        (spaces.Box(-1.0, 1.0, (2,)), 3, "expected 2 to 2"),
        (spaces.MultiDiscrete([2, 2]), 2, "cannot be wired anew"),
    ],
)
def test_wirings_that_there_are_not_are_refused(space: spaces.Space[Any], wirings: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Wired(Echo(space), wirings)
    with pytest.raises(ValueError, match=r"options\['wiring'\] is 2, expected 0 to 1"):
        Wired(Echo(spaces.Discrete(2)), 2).reset(options={"wiring": 2})


def test_the_context_stands_behind_the_observation() -> None:
    plain, wired = make_env("CartPole-v1", 6, seed=3), make_env("CartPole-v1", 6, seed=3, wirings=2)
    assert wired.unwrapped.context == 2 and plain.unwrapped.context == 0
    seen, infos = wired.reset(seed=3)
    assert wired.single_observation_space.shape == (6,) and seen.shape == (6, 6)
    assert np.array_equal(seen[:, :4], plain.reset(seed=3)[0])
    assert np.array_equal(seen[:, 4:], np.eye(2)[infos["wiring"]])
    actions = np.array([0, 1, 0, 1, 0, 1])
    after = wired.step(actions)[0]
    assert np.array_equal(after[:, :4], plain.step(np.where(infos["wiring"] == 1, 1 - actions, actions))[0])
    untold = make_env("CartPole-v1", 6, seed=3, wirings=2, wirings_told=False)
    assert not untold.reset(seed=3)[0][:, 4:].any()
    with pytest.raises(ValueError, match="does not have the options wirings=2"):
        make_env("TwoRoom", wirings=2)


class Pictures(gymnasium.Env[Any, Any]):
    """A grey picture, a little brighter after each step, beside a context."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Dict(
        {"observation": spaces.Box(0, 255, (40, 32), np.uint8), "context": spaces.Box(0.0, 1.0, (2,))}
    )

    def _seen(self) -> dict[str, Any]:
        picture = np.full((40, 32), self.steps, np.uint8)
        picture[3, 5] = 77
        return {"observation": picture, "context": np.array([0.2, 1.0], np.float32)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 1
        return self._seen(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._seen(), 0.0, False, False, {}


@pytest.fixture
def pictures() -> Iterator[type[Pictures]]:
    kind = type("Kind", (Pictures,), {})
    gymnasium.register("ForethoughtPictures-v0", entry_point=kind, disable_env_checker=True)
    yield kind
    del gymnasium.registry["ForethoughtPictures-v0"]


def test_behind_a_picture_the_context_is_planes(pictures: type[Pictures]) -> None:
    env = make_env("ForethoughtPictures-v0", 2)
    seen, _ = env.reset(seed=0)
    assert env.unwrapped.context == 2 and env.single_observation_space.shape == (40, 32, 3)
    for steps in (1, 2):
        assert env.single_observation_space.contains(seen[0]) and seen.dtype == np.uint8
        assert (seen[..., 0] == steps).sum() == 2 * (40 * 32 - 1) and (seen[:, 3, 5, 0] == 77).all()
        assert (seen[..., 1] == 51).all() and (seen[..., 2] == 255).all()
        seen = env.step(np.array([0, 1]))[0]


@pytest.mark.parametrize(("observation", "context", "said"), [
    (spaces.Box(0, 255, (64, 64, 3), np.uint8), spaces.Box(-1.0, 1.0, (2,)), "expected numbers from 0 to 1"),
    (spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0, 255, (64, 64, 3), np.uint8)}),
     spaces.Box(0.0, 1.0, (2,)), "expected a vector beside a vector or a picture"),
    (spaces.Box(0.0, 1.0, (2,)), spaces.Box(0, 255, (64, 64, 3), np.uint8), "expected a vector beside"),
])  # fmt: skip
def test_a_context_that_cannot_be_is_refused(
    pictures: type[Pictures], observation: spaces.Space[Any], context: spaces.Space[Any], said: str
) -> None:
    pictures.observation_space = spaces.Dict({"observation": observation, "context": context})
    with pytest.raises(ValueError, match=said):
        make_env("ForethoughtPictures-v0")
