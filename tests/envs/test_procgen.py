"""ProcgenVectorEnv against the raw simulator, and the promises it adds."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from forethought.envs.levels import Levels, LevelSplit
from forethought.envs.procgen import MODES, ProcgenVectorEnv, import_procgen, step_limit
from forethought.envs.procgen_state import ProcgenState
from gymnasium.vector import AutoresetMode

NOOP = 4
Array = npt.NDArray[Any]


def actions_for(steps: int, num_envs: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(15, size=(steps, num_envs))


def run(env: ProcgenVectorEnv, actions: Array) -> tuple[Array, ...]:
    steps: list[Any] = [env.step(row) for row in actions]
    frames, rewards, terminated, truncated = (np.stack([step[k] for step in steps]) for k in range(4))
    return frames, rewards, terminated, truncated, np.stack([step[4]["level_seed"] for step in steps])


def same(first: tuple[Array, ...], second: tuple[Array, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("game", ["coinrun", "starpilot", "bossfight", "leaper"])
def test_bitwise_equal_to_the_raw_simulator(game: str) -> None:
    raw = import_procgen().ProcgenGym3Env(
        num=3, env_name=game, distribution_mode="easy", start_level=0, num_levels=200, num_threads=0, rand_seed=7
    )
    env = ProcgenVectorEnv(game, 3, seed=7)
    observation, _ = env.reset()
    ends = 0
    for row in actions_for(500, 3):
        assert np.array_equal(observation, raw.observe()[1]["rgb"])
        observation, reward, terminated, truncated, infos = env.step(row)
        raw.act(row)
        raw_reward, raw_observation, first = raw.observe()
        assert np.array_equal(observation, raw_observation["rgb"])
        assert np.array_equal(reward, raw_reward)
        assert np.array_equal(terminated | truncated, first)
        info = raw.get_info()
        for index in range(3):
            assert infos["level_seed"][index] == info[index]["level_seed"]
            assert infos["success"][index] == bool(first[index] and info[index]["prev_level_complete"])
        ends += int(first.sum())
    assert ends > 0


def test_returned_arrays_are_not_overwritten_by_the_next_step() -> None:
    env = ProcgenVectorEnv("starpilot", 2)
    kept = [env.reset()[0], *env.step([7, 7])[:4]]
    copies = [array.copy() for array in kept]
    for _ in range(20):
        env.step([7, 7])
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_seed_decides_the_run() -> None:
    actions = actions_for(120, 2)
    envs = [ProcgenVectorEnv("starpilot", 2, seed=seed) for seed in (1, 1, 2)]
    runs = []
    for env in envs:
        env.reset()
        runs.append(run(env, actions))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])
    envs[2].reset(seed=1)
    assert same(run(envs[2], actions), runs[0])
    envs[0].reset(seed=2**31 + 1)  # modulo 2**31
    assert same(run(envs[0], actions), runs[0])
    threaded = ProcgenVectorEnv("starpilot", 2, seed=1, num_threads=2)
    assert same(run(threaded, actions), runs[0])


def test_time_out_is_truncation() -> None:
    env = ProcgenVectorEnv("maze", 3, seed=3)
    env.reset()
    for _ in range(499):
        _, _, terminated, truncated, _ = env.step([NOOP] * 3)
        assert not (terminated | truncated).any()
    _, _, terminated, truncated, infos = env.step([NOOP] * 3)
    assert truncated.all() and not terminated.any() and not infos["success"].any()


def test_time_out_is_counted_from_each_environments_own_start() -> None:
    env = ProcgenVectorEnv("maze", 2, seed=3)
    env.reset()
    for _ in range(200):
        env.step([NOOP] * 2)
    env.reset(options={"reset_mask": np.array([True, False])})
    ends = []
    for _ in range(500):
        _, _, terminated, truncated, _ = env.step([NOOP] * 2)
        assert not terminated.any()
        ends.append(truncated)
    assert [np.flatnonzero(column).tolist() for column in np.stack(ends, 1)] == [[499], [299]]


def test_death_and_success_are_terminations_and_the_last_reward_is_kept() -> None:
    env = ProcgenVectorEnv("coinrun", 16, seed=0)
    env.reset()
    deaths = wins = 0
    generator = np.random.default_rng(0)
    for _ in range(400):  # run right and jump: some reach the coin (reward 10), some die
        _, reward, terminated, truncated, infos = env.step(generator.choice([7, 8], size=16))
        assert np.array_equal(infos["success"], reward == 10)
        assert not (infos["success"] & ~terminated).any() and not truncated.any()
        deaths += int((terminated & ~infos["success"]).sum())
        wins += int(infos["success"].sum())
    assert deaths > 0 and wins > 0


@pytest.mark.parametrize(("mode", "game"), [(mode, game) for mode, games in MODES.items() for game in games])
def test_step_limits_are_those_of_the_simulator(mode: str, game: str) -> None:
    env = ProcgenVectorEnv(game, 1, distribution_mode=mode)
    content = env.get_state().simulator[0]
    place = 8 + struct.unpack_from("<i", content, 4)[0] + 17 * 4
    for _ in range(2):  # two random generators: a flag, then text with its length
        place += 8 + struct.unpack_from("<i", content, place + 4)[0]
    assert struct.unpack_from("<i", content, place + 16)[0] == step_limit(game, mode) == env.step_limit
    env.close()


def test_saved_state_replays_mid_episode_and_across_ends_in_a_new_environment() -> None:
    env = ProcgenVectorEnv("starpilot", 3, seed=5)
    env.reset()
    run(env, actions_for(40, 3))
    arrays = {key: value.copy() for key, value in env.state().items()}
    observation = env.observe()
    later = actions_for(200, 3, seed=1)
    expected = run(env, later)
    assert (expected[2] | expected[3]).sum() >= 3
    for target in (env, ProcgenVectorEnv("starpilot", 3, seed=99)):
        target.set_state(arrays)
        assert np.array_equal(target.observe(), observation)
        assert same(run(target, later), expected)


def test_saved_state_carries_the_time_left() -> None:
    env = ProcgenVectorEnv("maze", 1, seed=3)
    env.reset()
    for _ in range(450):
        env.step([NOOP])
    other = ProcgenVectorEnv("maze", 1, seed=4)
    other.set_state(env.get_state())
    ends = [bool(other.step([NOOP])[3][0]) for _ in range(50)]
    assert ends == [False] * 49 + [True]


def test_a_wrong_state_is_refused() -> None:
    env = ProcgenVectorEnv("maze", 1)
    good = env.get_state()
    cases = {
        "1 environments": ProcgenVectorEnv("maze", 2),
        "on levels": ProcgenVectorEnv("maze", 1, split="test"),
        "'maze'": ProcgenVectorEnv("heist", 1),
        "with options": ProcgenVectorEnv("maze", 1, use_backgrounds=False),
    }
    for message, other in cases.items():
        with pytest.raises(ValueError, match=message):
            other.set_state(good)
    with pytest.raises(ValueError, match="cut off or damaged"):
        env.set_state(ProcgenState([good.simulator[0][:-5]], good.steps))
    with pytest.raises(ValueError, match="lacks the arrays"):
        env.set_state({"steps": good.steps})
    with pytest.raises(ValueError, match="does not fit"):
        ProcgenState.from_arrays(good.to_arrays() | {"lengths": np.array([3])})


@pytest.mark.parametrize("split", ["train", "test"])
def test_levels_stay_within_the_declared_set(split: str) -> None:
    levels = LevelSplit(Levels(40, 7), Levels(500, 9))
    env = ProcgenVectorEnv("starpilot", 8, split=split, levels=levels)
    declared = getattr(levels, split)
    seen = set(env.reset()[1]["level_seed"].tolist())
    for _ in range(10):
        seen |= set(env.reset()[1]["level_seed"].tolist())
    seen |= set(run(env, actions_for(150, 8))[4].ravel().tolist())
    assert len(seen) == declared.count and all(seed in declared for seed in seen)


def test_level_ranges() -> None:
    assert not LevelSplit().train.overlaps(LevelSplit().test)
    assert 199 in Levels(0, 200) and 200 not in Levels(0, 200) and 10**9 in Levels.all()
    with pytest.raises(ValueError, match="overlap"):
        LevelSplit(Levels(0, 200), Levels(199, 5))
    with pytest.raises(ValueError, match="allow_overlap=True"):
        LevelSplit(Levels(0, 200), Levels.all())
    with pytest.raises(ValueError, match="overlap"):
        LevelSplit(Levels.all(), Levels.all())
    LevelSplit(Levels(0, 200), Levels.all(), allow_overlap=True)
    with pytest.raises(ValueError, match=r"Levels\.all\(\)"):
        Levels(5, 0)
    with pytest.raises(ValueError, match="start >= 0"):
        Levels(-1, 5)


def test_reset_starts_new_levels_except_the_first_time() -> None:
    env = ProcgenVectorEnv("maze", 4, seed=0)
    built = env.observe()
    first, infos = env.reset()
    assert np.array_equal(built, first)
    again, new_infos = env.reset()
    assert np.array_equal(new_infos["prev_level_seed"], infos["level_seed"])
    assert not np.array_equal(again, first)
    assert not new_infos["success"].any()


def test_masked_reset_leaves_the_others_as_they_are() -> None:
    env, control = (ProcgenVectorEnv("starpilot", 3, seed=2) for _ in range(2))
    for each in (env, control):
        each.reset()
        run(each, actions_for(15, 3))
    before = env.observe()
    after, infos = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert np.array_equal(after[[0, 2]], before[[0, 2]]) and not np.array_equal(after[1], before[1])
    assert not infos["success"].any()
    later = actions_for(100, 3, seed=1)
    for mine, theirs in zip(run(env, later), run(control, later), strict=True):
        assert np.array_equal(mine[:, [0, 2]], theirs[:, [0, 2]])


def test_wrong_calls_are_refused() -> None:
    env = ProcgenVectorEnv("coinrun", 2)
    env.reset()
    actions: Any
    for actions, message in [
        ([0, 15], r"actions\[1\] = 15: expected 0 to 14"),
        ([-1, 0], r"actions\[0\] = -1"),
        ([0.0, 1.0], "type float64"),
        ([True, False], "type bool"),
        ([0], r"expected integers of shape \(2,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            env.step(actions)
    with pytest.raises(ValueError, match="unknown options \\['mask'\\]"):
        env.reset(options={"mask": None})
    with pytest.raises(ValueError, match="reset_mask"):
        env.reset(options={"reset_mask": np.array([1, 0])})
    with pytest.raises(ValueError, match="seed and reset_mask"):
        env.reset(seed=1, options={"reset_mask": np.array([True, False])})
    env.close()
    with pytest.raises(Exception, match="closed"):
        env.step([0, 0])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="Did you mean coinrun"):
        ProcgenVectorEnv("coinrum")
    with pytest.raises(ValueError, match="does not exist for coinrun; expected one of"):
        ProcgenVectorEnv("coinrun", distribution_mode="memory")
    with pytest.raises(ValueError, match="one fixed level"):
        ProcgenVectorEnv("coinrun", distribution_mode="exploration", split="test")
    with pytest.raises(ValueError, match="split='valid'"):
        ProcgenVectorEnv("coinrun", split="valid")
    with pytest.raises(ValueError, match="num_envs=0"):
        ProcgenVectorEnv("coinrun", 0)
    with pytest.raises(ValueError, match="render_mode='human'"):
        ProcgenVectorEnv("coinrun", render_mode="human")
    with pytest.raises(ValueError, match="seed=-1"):
        ProcgenVectorEnv("coinrun", seed=-1)


def test_contract_and_render() -> None:
    env = ProcgenVectorEnv("coinrun", 2, render_mode="rgb_array")
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    frames = env.render()
    assert frames is not None and [frame.shape for frame in frames] == [(512, 512, 3)] * 2
    assert env.action_meanings[env.noop] == "NOOP" and len(env.action_meanings) == env.single_action_space.n  # type: ignore[attr-defined]


IMPORT_CHECK = """
import os, sys
before = dict(os.environ)
import forethought.envs
assert not {"procgen", "gym", "torch", "minigrid"} & sys.modules.keys(), "a heavy import"
forethought.envs.register()
assert not {"procgen", "gym", "torch", "minigrid"} & sys.modules.keys(), "registering imports something heavy"
env = forethought.envs.make_env("procgen:coinrun")
env.reset(); env.step([0])
assert dict(os.environ) == before, "the process environment was changed"
"""


def test_importing_and_building_says_nothing() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "always", "-c", IMPORT_CHECK], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_missing_procgen_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "procgen", None)
    package = "procgen" if sys.version_info < (3, 11) else "procgen-mirror"
    with pytest.raises(ImportError, match=f"pip install {package}==0.10.7"):
        import_procgen()
