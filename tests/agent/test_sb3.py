"""Bridges to Stable-Baselines3, and PPO as a baseline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.comparison import CompareConfig, play
from forethought.agent.config import EnvConfig
from forethought.agent.entrants import Entrant, players_of, turns
from forethought.agent.evaluation import evaluate
from forethought.agent.interaction import RandomBehaviour
from forethought.agent.ppo import PPOConfig, Reactive, check_ppo, holds_ppo, load_ppo, reactive_player, train_ppo
from forethought.agent.sb3 import (
    POLICIES,
    ImpalaFeatures,
    PerceptionFeatures,
    PolicyBehaviour,
    Sb3VecEnv,
    draw,
    with_policy,
)
from forethought.envs import make_env
from forethought.modules.perception import Perception, PerceptionConfig
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)

from .small import fingerprint, make_agent
from .worlds import Line

__all__ = ["Line"]  # importing it registers the world

PIXELS = spaces.Box(0, 255, (3, 64, 64), np.uint8)
SMALL = PPOConfig(
    env=EnvConfig("ForethoughtLine-v0", num_envs=16),
    steps=6_000,
    rollout=40,
    minibatches=4,
    learning_rate=3e-3,
    discount=0.95,
    device="cpu",
    threads=1,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reactive]:
    folder = tmp_path_factory.mktemp("ppo")
    return folder, train_ppo(SMALL, folder)


# ---- environments


def test_sb3_sees_what_our_environments_do() -> None:
    bridge, ours = Sb3VecEnv(make_env("ForethoughtLine-v0", 3), seed=5), make_env("ForethoughtLine-v0", 3)
    seen, (expected, _) = bridge.reset(), ours.reset(seed=5)
    assert np.array_equal(seen, expected)
    generator, ends = np.random.default_rng(0), 0
    for _ in range(45):
        actions = generator.integers(3, size=3)
        observation, reward, done, infos = bridge.step(actions)
        expected, due, terminated, truncated, told = ours.step(actions)
        assert np.array_equal(observation, expected) and np.array_equal(reward, due)
        assert np.array_equal(done, terminated | truncated)
        for index, info in enumerate(infos):
            assert info.get("TimeLimit.truncated", False) == truncated[index]
            assert ("terminal_observation" in info) == done[index]
            if done[index]:
                ends += 1
                assert np.array_equal(info["terminal_observation"], told["final_obs"][index])
    assert ends >= 6
    bridge.seed(5)
    assert np.array_equal(bridge.reset(), seen)
    assert bridge.env_is_wrapped(Any) == [False] * 3 and bridge.get_attr("render_mode") == [None] * 3
    with pytest.raises(NotImplementedError, match="together"):
        bridge.env_method("reset")


def test_procgen_goes_through_the_bridge() -> None:
    bridge = Sb3VecEnv(make_env("procgen:bigfish", 2, distribution_mode="easy"), seed=1)
    assert bridge.observation_space.shape == (64, 64, 3) and bridge.action_space == spaces.Discrete(15)
    first = bridge.reset()
    observation, *_ = bridge.step(np.array([7, 7]))
    assert observation.dtype == np.uint8 and not np.array_equal(first, observation)
    bridge.close()


# ---- policies


def test_draws_follow_the_distribution_and_their_own_generator() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).repeat(4000, 1)
    before = torch.random.get_rng_state()
    actions = draw(CategoricalDistribution(3).proba_distribution(logits), torch.Generator().manual_seed(0))
    assert torch.bincount(actions) / 4000 == pytest.approx(logits[0].softmax(0).numpy(), abs=0.03)
    several = MultiCategoricalDistribution([2, 3]).proba_distribution(torch.tensor([[0.0, 30, 30, 0, 0]]).repeat(50, 1))
    assert draw(several, torch.Generator().manual_seed(0)).float().mean(0).tolist() == [1, 0]
    normal = DiagGaussianDistribution(1).proba_distribution(torch.full((4000, 1), 2.0), torch.tensor([-1.0]))
    drawn = draw(normal, torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(2, abs=0.03) and float(drawn.std()) == pytest.approx(0.368, abs=0.02)
    assert torch.equal(before, torch.random.get_rng_state())


def test_impala_is_the_network_of_the_baselines() -> None:
    options: dict[str, Any] = {"features_extractor_class": ImpalaFeatures, "net_arch": []}
    policy = POLICIES["CnnPolicy"](PIXELS, spaces.Discrete(15), lambda _: 5e-4, **options)
    assert sum(p.numel() for p in policy.features_extractor.parameters()) == 622_144  # as published
    assert sum(p.numel() for p in policy.parameters()) == 622_144 + 257 * 16  # and a layer each for policy and value
    pictures = np.random.default_rng(0).integers(256, size=(2, 64, 64, 3), dtype=np.uint8)
    assert policy.predict(pictures)[0].shape == (2,)


def test_ppo_learns_and_is_measured_by_our_harness(run: tuple[Path, Reactive]) -> None:
    _, trained = run
    config = CompareConfig((), episodes=20, film=0)
    result = play(reactive_player(trained, run="r", steps=6_000), config)
    env = make_env("ForethoughtLine-v0", 20)
    chance = evaluate("random", env, RandomBehaviour(env.single_action_space, 20, 0, 1), seed=config.seed)
    greedy = evaluate(
        "greedy", env, PolicyBehaviour(trained.policy, env.single_action_space, 0, sample=False), seed=config.seed
    )
    assert result.name == "ppo" and result.calls == 0 and result.steps == 6_000 and result.run == "r"
    assert result.returns.mean() > chance.returns.mean() + 5
    assert greedy.returns.mean() >= result.returns.mean() - 0.5


def test_what_is_saved_is_what_is_loaded(run: tuple[Path, Reactive], tmp_path: Path) -> None:
    folder, trained = run
    assert holds_ppo(folder) and not holds_ppo(tmp_path)
    names = {path.name for path in folder.iterdir()}
    assert names == {"policy.safetensors", "ppo.json", "progress.json", "tensorboard"}
    progress = json.loads((folder / "progress.json").read_text())
    assert progress == {"finished": True, "decisions": 6_400}  # whole rollouts
    read = load_ppo(folder)
    assert read.config == trained.config and read.spaces == trained.spaces
    assert fingerprint(read.policy) == fingerprint(trained.policy)
    config = CompareConfig((), episodes=4, film=0)
    first, second = (play(reactive_player(policy), config) for policy in (trained, read))
    assert first.episodes == second.episodes
    [entrant] = [Entrant(folder, read)]
    assert list(turns(players_of([entrant], CompareConfig(("random",))), CompareConfig())) == ["ppo", "random"]
    assert entrant.steps == 6_400


def test_damage_is_told(run: tuple[Path, Reactive], tmp_path: Path) -> None:
    folder, _ = run
    for name in ("ppo.json", "policy.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    text = (tmp_path / "ppo.json").read_text()
    (tmp_path / "ppo.json").write_text(text.replace('"n": 3', '"n": 4'))
    with pytest.raises(ValueError, match="does not fit"):
        load_ppo(tmp_path)
    for bad in (text[:-9], text.replace('"format": 1', '"format": 9'), text.replace('"clip"', '"clipp"'), "[]"):
        (tmp_path / "ppo.json").write_text(bad)
        with pytest.raises(ValueError, match=r"ppo\.json is damaged"):
            load_ppo(tmp_path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"minibatches": 7}, "does not divide"),
        ({"discount": 1.1}, "discount is 1.1"),
        ({"network": "impala"}, "choose mlp"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    config = replace(SMALL, **changes)
    with pytest.raises(ValueError, match=match):
        check_ppo(config)
        train_ppo(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_goal_worlds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="TwoRoom shows goals"):
        train_ppo(replace(SMALL, env=EnvConfig("TwoRoom", num_envs=16)), tmp_path)


# ---- perception


def test_a_policy_can_see_through_our_perception() -> None:
    torch.manual_seed(0)
    perception = Perception(PerceptionConfig("cnn", latent=8, width=8), (64, 64, 3)).eval()
    features = PerceptionFeatures(PIXELS, perception)
    pixels = torch.randint(256, (4, 64, 64, 3), dtype=torch.uint8)
    given = pixels.permute(0, 3, 1, 2).float() / 255  # what SB3 hands to a features extractor
    before = fingerprint(perception)
    features.train()
    assert torch.allclose(features(given), perception.encode(pixels.unsqueeze(1)).latent, atol=1e-5)
    assert fingerprint(perception) == before and not any(p.requires_grad for p in features.parameters())
    fresh = PerceptionFeatures(PIXELS, config=PerceptionConfig("cnn", latent=8, width=8)).train()
    assert fresh.perception.training and all(p.requires_grad for p in fresh.parameters())
    with pytest.raises(ValueError, match="history 1"):
        PerceptionFeatures(PIXELS, Perception(PerceptionConfig("cnn", latent=8, history=2), (64, 64, 3)))


def test_an_sb3_policy_can_be_the_actor_under_our_planner() -> None:
    agent = make_agent()
    before = fingerprint(agent.modules.perception)
    seen = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    torch.manual_seed(3)
    policy: Any = POLICIES["MlpPolicy"](
        seen,
        agent.spaces.action,
        lambda _: 1e-3,
        features_extractor_class=PerceptionFeatures,
        features_extractor_kwargs={"perception": agent.modules.perception},
    )
    assert fingerprint(agent.modules.perception) == before  # SB3 draws weights for features, and not for these
    torch.nn.init.normal_(policy.action_net.weight)
    other = with_policy(agent, policy)
    x = np.random.default_rng(0).uniform(-1, 1, (60, 2)).astype(np.float32)
    ones = np.ones(60, np.bool_)
    reacts = other.begin(60, "mode-1").act(x, ones, ones).action
    assert np.array_equal(reacts, policy.predict(x, deterministic=True)[0]) and len(set(reacts.tolist())) > 1
    assert not np.array_equal(reacts, agent.begin(60, "mode-1").act(x, ones, ones).action)
    thinks = other.begin(60, "mode-2").act(x, ones, ones)
    assert thinks.calls > 0 and thinks.course is not None
    with pytest.raises(ValueError, match="not trained on this agent's perception"):
        with_policy(make_agent(), policy)
