"""The world model's criterion: what each part looks at, and what keeps latents from collapsing."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.config import Regulariser, WorldModelLoss, published
from forethought.agent.criterion import (
    Metrics,
    _encoded_steps,
    carried,
    perceive,
    return_head,
    world_model_loss,
)
from forethought.agent.learning import Learner
from forethought.agent.recording import memory_for
from forethought.agent.run import check_settings
from forethought.agent.spaces import Spaces
from forethought.modules.actions import ActionEncoder
from forethought.modules.memory import Window
from forethought.modules.perception import Perception, PerceptionConfig
from forethought.modules.regularisers import follow, sigreg
from forethought.modules.world_model import PredictorName, WorldModel, WorldModelConfig
from gymnasium import spaces
from torch import Tensor, nn

from .small import PREDICTORS, fingerprint, make_agent, make_window, settings, wake

BATCH, STEPS = 6, 4  # of make_window
each_predictor = pytest.mark.parametrize(("predictor", "members"), PREDICTORS)


def loss_of(agent: Agent, window: Window, **changes: Any) -> Metrics:
    """Parts of the loss with perception at rest, so that batch statistics do not couple the windows."""
    config = replace(WorldModelLoss(), **{"inverse": 1.0, "regulariser_weight": 0.0, **changes})
    generator = torch.Generator().manual_seed(0)
    m = agent.modules
    loss, metrics = world_model_loss(m.perception, m.world_model, window, config, 1.0, generator)
    return metrics | {"loss": float(loss.detach())}


def test_events_count_as_often_as_they_come() -> None:
    """With full correction a window of weight 0 teaches heads nothing and one of weight 3 as much as three; the rest of
    the loss does not know of weights, and without correction nothing does."""
    agent, window = make_agent(), make_window()
    weight = torch.tensor([0.0, 1, 1, 1, 1, 3])
    rows = torch.tensor([1, 2, 3, 4, 5, 5, 5])

    def of(rows: Tensor) -> Window:
        return replace(window, **{k: v[rows] for k, v in vars(window).items() if isinstance(v, Tensor)})

    given = loss_of(agent, replace(window, weight=weight), correction=1.0)
    other, plain = loss_of(agent, of(rows)), loss_of(agent, window)
    for part in ("reward", "ending"):
        assert given[part] == pytest.approx(other[part], rel=1e-5)
        assert given[part] != pytest.approx(plain[part], rel=1e-3)
    for part in ("prediction", "inverse"):
        assert given[part] == pytest.approx(plain[part], rel=1e-6)
    assert loss_of(agent, replace(window, weight=weight), correction=0.0) == plain


# ---- what came later


def later(window: Window, seed: int = 0) -> Window:
    draws = torch.Generator().manual_seed(seed)
    returns = torch.rand(BATCH, STEPS + 1, 3, generator=draws)
    returns[..., 2] = (returns[..., 2] > 0.5).float()
    return replace(window, returns=returns)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("targets", [0, 2])
def test_what_came_later_counts_where_it_is_known(members: int, targets: int) -> None:
    """In the first episode of a window, as far as it is not open; and as much as it weighs."""
    agent = wake(make_agent(members=members))
    head = return_head(agent.modules.perception.width, 16, agent.config.world_model.bins)
    torch.nn.init.normal_(head[-1].weight)  # type: ignore[index, arg-type]

    def of(window: Window, weight: float = 1.0) -> Metrics:
        config = WorldModelLoss(regulariser_weight=0.0, returns=weight, targets=targets)
        generator = torch.Generator().manual_seed(0)
        m = agent.modules
        loss, metrics = world_model_loss(m.perception, m.world_model, window, config, 1.0, generator, returns=head)
        return metrics | {"loss": float(loss.detach())}

    known = torch.ones(BATCH, STEPS)
    known[0, 2:], known[1] = 0, 0
    window = later(replace(make_window(), known=known))
    assert window.returns is not None
    here = torch.cat([torch.ones(BATCH, 1), window.known], dim=1) > 0
    counts = here & (window.returns[..., 2] == 0)
    assert 0 < counts.sum() < counts.numel() and (~here).any()
    other = torch.rand(window.returns.shape, generator=torch.Generator().manual_seed(9))
    other[..., 2] = window.returns[..., 2]
    elsewhere = replace(window, returns=torch.where(counts.unsqueeze(-1), window.returns, other))
    given = of(window)
    assert of(elsewhere) == given
    for column in range(2):
        changed = window.returns.clone()
        changed[..., column] += 1.0
        assert of(replace(window, returns=changed))["returns"] != pytest.approx(given["returns"], rel=1e-3)
    assert of(window, 3.0)["loss"] - given["loss"] == pytest.approx(2 * given["returns"], rel=1e-4)
    assert "returns" not in of(replace(window, returns=None))


def test_perception_keeps_what_matters_later() -> None:
    """One number of 32 tells the reward of seven steps later, which no roll-out of two steps meets: it is in the two
    numbers of the latent if what came later is to be told, and hardly there if not."""
    kept = {}
    for weight in (0.0, 1.0):
        config = settings()
        config = replace(
            config,
            perception=replace(config.perception, latent=2),
            model_loss=replace(
                config.model_loss, steps=2, prediction=0.0, regulariser="none", returns=weight, returns_discount=0.9
            ),
        )
        agent = Agent(config, Spaces((32,), False, False, spaces.Discrete(3)))
        memory, draws = memory_for(agent, 8, 8 * 600), np.random.default_rng(0)
        cues = np.zeros((7, 8), np.float32)
        for t in range(560):
            seen = draws.normal(size=(8, 32)).astype(np.float32)
            reward = 3 * cues[t % 7]  # of seven steps before
            cues[t % 7] = seen[:, 3]
            memory.write(seen, draws.integers(3, size=8), reward, np.zeros(8, bool), np.zeros(8, bool))
        learner = Learner(agent, 150)
        discount = 0.9 if weight else None
        for _ in range(150):
            learner.world_model_update(memory.sample(64, 2, draws, discount=discount))
        percepts = memory.sample(512, 0, draws).observation[:, 0]
        latent = agent.modules.perception(percepts).detach().double()
        design = torch.cat([latent, torch.ones(len(latent), 1)], dim=1)
        cue = percepts[:, 0, 3:4].double()
        left = cue - design @ torch.linalg.lstsq(design, cue).solution
        kept[weight] = 1 - float(left.square().sum() / (cue - cue.mean()).square().sum())
    assert kept[1.0] > 0.4 and kept[0.0] < 0.2, kept


def test_telling_what_came_later_needs_rewards_of_the_world() -> None:
    config = settings()
    config = replace(
        config,
        model_loss=replace(config.model_loss, returns=0.5),
        world_model=replace(config.world_model, events=False),
    )
    with pytest.raises(ValueError, match=r"model_loss.returns is 0.5 and world_model.events is off"):
        check_settings(config)
    growing = replace(settings(), model_loss=replace(config.model_loss, returns_discount=1.1))
    with pytest.raises(ValueError, match=r"model_loss.returns_discount is 1.1, expected a number from 0 to 1"):
        check_settings(growing)


def test_what_comes_rarely_is_expected_as_rarely() -> None:
    """A reward of 10 and an ending in 1 of 100 steps, by chance: half of the windows drawn have one, and what the world
    model expects is 0.1 and 0.01 with correction, and several times that without."""
    expected = {}
    for correction in (0.0, 1.0):
        agent = make_agent()
        loss = replace(
            agent.config.model_loss, balance=0.5, correction=correction, batch=64, steps=4, learning_rate=1e-2
        )
        agent.config = replace(agent.config, model_loss=loss)
        memory, draws = memory_for(agent, 8, 8 * 500), np.random.default_rng(0)
        for _ in range(400):
            event = draws.random(8) < 0.01
            x = draws.normal(size=(8, 2)).astype(np.float32)
            memory.write(x, draws.integers(3, size=8), 10.0 * event, event, np.zeros(8, bool))
        came = float(memory.data["terminated"][:, :400].mean())
        learner = Learner(agent, 200)
        for _ in range(200):
            learner.world_model_update(memory.sample(64, 4, draws, 0.5))
        window = memory.sample(256, 4, draws)
        agent.modules.perception.eval()
        with torch.no_grad():
            state = agent.modules.perception.encode(window.observation[:, 0])
            ahead = agent.modules.world_model.rollout(state, window.action[:, None])
        assert ahead.interoception is not None and ahead.continuation is not None
        told = float(ahead.interoception[..., 0].mean()) / 10, float(1 - ahead.continuation.mean())
        expected[correction] = [share / came for share in told]
    assert expected[1.0] == pytest.approx([1, 1], rel=0.5)
    assert min(expected[0.0]) > 4


@pytest.mark.parametrize("targets", [0, 2, 3])
@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_nothing_after_the_end_of_an_episode_enters_the_loss(name: str, targets: int) -> None:
    agent = make_agent()
    window = make_window()
    end, masks = torch.zeros(BATCH, STEPS), {}
    end[:, 1] = 1  # the second transition ends the episode: x[2] and all that follows belong to another one
    masks["valid"], masks["known"] = torch.tensor([1.0, 1, 0, 0]), torch.tensor([1.0, 0, 0, 0])
    window = replace(window, **{name: end}, **{key: row.expand(BATCH, -1) for key, row in masks.items()})
    noise = make_window(seed=1)

    def mixed(field: str, start: int) -> Tensor:
        return torch.cat([getattr(window, field)[:, :start], getattr(noise, field)[:, start:]], 1)

    after = replace(window, observation=mixed("observation", 2), action=mixed("action", 2), reward=mixed("reward", 2))
    given, other = loss_of(agent, window, targets=targets), loss_of(agent, after, targets=targets)
    for part in ("loss", "prediction", "inverse", "reward", "ending"):
        assert given[part] == pytest.approx(other[part], rel=1e-5), part
    before = replace(window, observation=mixed("observation", 1), reward=mixed("reward", 1))
    changed = loss_of(agent, before, targets=targets)
    for part in ("prediction", "inverse", "reward"):
        assert given[part] != pytest.approx(changed[part], rel=1e-3), part


@each_predictor
def test_each_part_of_the_loss_looks_at_its_own_transitions(predictor: PredictorName, members: int) -> None:
    """Against the definitions, written out without batching; an ensemble's parts are the mean of its members'."""
    agent, window = make_agent(predictor=predictor, members=members), make_window(batch=2)
    m = agent.modules
    window = replace(window, terminated=torch.tensor([[0.0, 0, 0, 1], [0, 0, 0, 0]]))
    given = loss_of(agent, window, time_similarity=1.0)
    with torch.no_grad():
        latent = m.perception(window.observation)
        encoded = m.world_model.actions(window.action)
        imagined, prediction, ending, reward, inverse, similarity = (
            m.world_model.begin(latent[:, 0]),
            [],
            [],
            [],
            [],
            [],
        )
        for t in range(STEPS):
            _, direct = m.world_model.step(m.world_model.begin(latent[:, t]), encoded[:, t])
            imagined, feature = m.world_model.step(imagined, encoded[:, t])
            for e in range(members):
                prediction.append((imagined[0][:, e] - latent[:, t + 1]).square().mean(-1))
                for features in (feature[:, e], direct[:, e]):
                    chance = m.world_model.ending(features).squeeze(-1).sigmoid()
                    happened = window.terminated[:, t] > 0
                    ending.append(-torch.where(happened, chance, 1 - chance).log())
                    reward.append(m.world_model.two_hot.loss(m.world_model.reward(features), window.reward[:, t]))
            guess = m.world_model.inverse(torch.cat([latent[:, t], latent[:, t + 1]], -1)).log_softmax(-1)
            inverse.append(-guess.gather(-1, window.action[:, t, None])[:, 0])
            similarity.append((latent[:, t] - latent[:, t + 1]).square().mean(-1))
    expected = {"prediction": prediction, "ending": ending, "reward": reward, "inverse": inverse}
    for part, values in (expected | {"time_similarity": similarity}).items():
        assert given[part] == pytest.approx(float(torch.stack(values).mean()), rel=1e-4), part
    assert given["loss"] == pytest.approx(sum(given[part] for part in [*expected, "time_similarity"]), rel=1e-4)


@each_predictor
def test_members_learn_as_if_each_were_alone(predictor: PredictorName, members: int) -> None:
    if members == 1:
        return
    together, window = make_agent(predictor=predictor, members=members), make_window()
    gradients = gradients_of(together, window)
    stacked = together.modules.world_model.state_dict()
    for e in range(members):
        alone = make_agent(predictor=predictor)
        own = {
            name.replace("predictor.member.", "predictor."): t[e] if "member." in name else t
            for name, t in stacked.items()
        }
        alone.modules.world_model.load_state_dict(own)
        alone.modules.perception.load_state_dict(together.modules.perception.state_dict())
        for name, gradient in gradients_of(alone, window).items():
            theirs = gradients["member." + name][e]
            assert torch.allclose(members * theirs, gradient, rtol=1e-3, atol=1e-5), name


def gradients_of(agent: Agent, window: Window) -> dict[str, Tensor]:
    m = agent.modules
    config = replace(WorldModelLoss(), regulariser="none")
    loss, _ = world_model_loss(m.perception, m.world_model, window, config, 1.0, torch.Generator())
    names, parameters = zip(*m.world_model.predictor.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def test_the_target_of_the_prediction_can_be_held_still() -> None:
    for detach in (False, True):
        agent, window = make_agent(), make_window(steps=1)
        m = agent.modules
        config = replace(WorldModelLoss(), regulariser_weight=0.0, reward=0.0, ending=0.0, detach_target=detach)
        window.observation.requires_grad_(True)
        loss, _ = world_model_loss(m.perception, m.world_model, window, config, 1.0, torch.Generator())
        torch.autograd.backward(loss)
        assert window.observation.grad is not None
        reached = window.observation.grad.abs().sum((0, 2, 3)) > 0
        assert reached.tolist() == [True, not detach]


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("targets", range(8))
def test_encoded_steps(steps: int, targets: int) -> None:
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(60):
        chosen = _encoded_steps(steps, targets, generator)
        assert chosen == sorted(set(chosen)) and chosen[:2] == [0, 1] and chosen[-1] <= steps
        assert len(chosen) == (steps if targets == 0 else min(targets, steps)) + 1
        seen.update(chosen)
    assert seen == (set(range(steps + 1)) if targets != 1 else {0, 1})


def test_a_window_carries_the_latents_of_its_goals_too() -> None:
    agent = make_agent(goals=True)
    perception, window = agent.modules.perception, make_window()
    goal = torch.randn(len(window.action), 3, *window.observation.shape[2:], generator=torch.Generator().manual_seed(5))
    found = carried(perception, replace(window, goal=goal))
    with torch.no_grad():
        assert found.latent is not None and torch.equal(found.latent, perceive(perception, window))
        assert found.goal is not None and torch.equal(found.goal, perception(goal))
    assert found.latent.std() > 0.1 < found.goal.std() and not found.latent.requires_grad
    assert carried(perception, found) is found


def test_pixels_are_shifted_and_coloured_only_where_asked() -> None:
    seen = Spaces((8, 8, 3), True, False, spaces.Discrete(3))
    config = settings()
    agent = wake(Agent(replace(config, perception=replace(config.perception, encoder="cnn")), seen))
    pixels = torch.randint(0, 256, (BATCH, STEPS + 1, 1, 8, 8, 3), dtype=torch.uint8)
    window = replace(make_window(), observation=pixels)
    still, again, moved = (loss_of(agent, window, shift=shift)["prediction"] for shift in (0, 0, 2))
    assert still == again != moved
    assert loss_of(agent, window, colour=0.3)["prediction"] != still


# ---- what keeps latents from collapsing


def parts(agent: Agent, window: Window, **changes: Any) -> tuple[Metrics, Tensor]:
    """Parts of a loss of weight 1 each, and the latents it was computed from."""
    with torch.no_grad():
        latent = agent.modules.perception(window.observation)
    return loss_of(agent, window, regulariser_weight=1.0, inverse=0.0, **changes), latent


def test_vicreg_weighs_its_terms_for_each_time_step() -> None:
    given, latent = parts(make_agent(), make_window(batch=20), regulariser="vicreg", covariance=0.3)
    terms = []
    for t in range(STEPS + 1):
        covariance = torch.cov(latent[:, t].T)
        std = (covariance.diagonal() + 1e-4).sqrt()
        off_diagonal = covariance - covariance.diagonal().diag()
        terms.append((1 - std).relu().mean() + 0.3 * off_diagonal.square().sum() / latent.shape[-1])
    assert given["vicreg"] == pytest.approx(float(torch.stack(terms).mean()), rel=1e-4)


def test_sigreg_looks_at_each_time_step() -> None:
    given, latent = parts(make_agent(), make_window(batch=20), regulariser="sigreg", directions=7)
    draws = torch.Generator().manual_seed(0)
    assert given["sigreg"] == pytest.approx(float(sigreg(latent.transpose(0, 1), draws, 7)), rel=1e-5)


@pytest.mark.parametrize("regulariser", ["infonce", "hinge"])
@pytest.mark.parametrize(("members", "targets"), [(1, 0), (2, 0), (1, 2)])
def test_predictions_are_told_from_other_windows_of_the_same_time(regulariser: str, members: int, targets: int) -> None:
    """Against the definition, window by window; what was not seen is neither compared nor compared with."""
    agent, window = make_agent(members=members), make_window()
    known = window.known.clone()
    known[1, 2:], known[4, 1:], known[:, 3] = 0, 0, 0
    known[2, 3] = 1  # alone in the last step: nobody to be told from
    window = replace(window, known=known)
    given, latent = parts(agent, window, regulariser=regulariser, targets=targets)
    steps = _encoded_steps(STEPS, targets, torch.Generator().manual_seed(0))
    m, lost = agent.modules, []
    with torch.no_grad():
        imagined, _ = m.world_model.unroll(latent[:, 0], m.world_model.actions(window.action))
        for e in range(members):
            for t in steps[1:]:
                for i in range(BATCH):
                    energies = (imagined[i, e, t] - latent[:, t]).square().mean(-1)
                    others = [j for j in range(BATCH) if j != i and known[j, t - 1]]
                    if known[i, t - 1] and regulariser == "infonce":
                        lost.append(energies[i] / 0.2 + (-energies[[i, *others]] / 0.2).logsumexp(0))
                    elif known[i, t - 1]:
                        lost.extend((energies[i] - energies[j] + 1).relu() for j in others)
    assert given[regulariser] == pytest.approx(float(torch.stack(lost).mean()), rel=1e-3)


def test_none_adds_no_term() -> None:
    given, _ = parts(make_agent(), make_window(), regulariser="none", reward=0.0, ending=0.0)
    assert given["loss"] == pytest.approx(given["prediction"]) and "none" not in given


def test_ema_without_a_slow_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="regulariser ema predicts a slow encoder's latents and got none"):
        parts(make_agent(), make_window(), regulariser="ema")


def test_similarity_and_inverse_dynamics_look_at_neighbours_in_time_only() -> None:
    agent, window = make_agent(), make_window()
    steps = _encoded_steps(STEPS, 2, torch.Generator().manual_seed(0))
    assert steps == [0, 1, 4]  # of the encoded states only the first two are neighbours
    given = loss_of(agent, window, targets=2, time_similarity=1.0)
    with torch.no_grad():
        latent = agent.modules.perception(window.observation)
    assert given["time_similarity"] == pytest.approx(float((latent[:, 1] - latent[:, 0]).square().mean()), rel=1e-4)


def test_a_slow_encoder_is_predicted_and_not_taught() -> None:
    agent, window = make_agent(), make_window(steps=1)
    m, slow = agent.modules, deepcopy(agent.modules.perception)
    with torch.no_grad():
        for parameter in slow.parameters():
            parameter.mul_(0.7)
    config = replace(WorldModelLoss(), regulariser="ema", reward=0.0, ending=0.0)
    window.observation.requires_grad_(True)
    loss, metrics = world_model_loss(m.perception, m.world_model, window, config, 1.0, torch.Generator(), slow)
    torch.autograd.backward(loss)
    with torch.no_grad():
        latent, target = m.perception(window.observation), slow(window.observation)
        imagined, _ = m.world_model.unroll(latent[:, 0], m.world_model.actions(window.action))
        right = (imagined[:, 0, 1] - target[:, 1]).square().mean()
        assert not torch.allclose(right, (imagined[:, 0, 1] - latent[:, 1]).square().mean(), rtol=0.05)
        still = (latent[:, 0] - target[:, 1]).square().mean()
    assert metrics["prediction"] == pytest.approx(float(right), rel=1e-4) == float(loss.detach())
    assert metrics["prediction_over_persistence"] == pytest.approx(float(right / still), rel=1e-4)
    assert all(parameter.grad is None for parameter in slow.parameters())
    assert window.observation.grad is not None
    assert (window.observation.grad.abs().sum((0, 2, 3)) > 0).tolist() == [True, False]


def test_the_target_encoder_follows_slowly() -> None:
    agent = make_agent()
    agent.config = replace(agent.config, model_loss=replace(agent.config.model_loss, regulariser="ema", momentum=0.9))
    learner = Learner(agent, 100)
    slow, perception = learner.target_perception, agent.modules.perception
    assert slow is not None
    perception.fit_inputs(3 + 2 * torch.randn(100, 2, generator=torch.Generator().manual_seed(0)))
    path = [[p.clone() for p in perception.parameters()]]
    for seed in range(3):
        learner.world_model_update(make_window(seed))
        path.append([p.clone() for p in perception.parameters()])
    for index, parameter in enumerate(slow.parameters()):
        first, second = (path[step][index] - path[0][index] for step in (1, 2))
        moved = 0.9 * (0.1 * first) + 0.1 * second
        assert torch.allclose(parameter - path[0][index], moved, atol=1e-6) and moved.abs().max() > 0
    assert torch.equal(slow.mean, perception.mean) and torch.equal(slow.scale, perception.scale)
    assert slow.training  # each batch is normalised by itself, as the encoder's are
    assert set(learner.targets()) == {"target", "target_perception"}
    agent.config = replace(agent.config, model_loss=replace(agent.config.model_loss, momentum=1.0))
    before = fingerprint(slow.project)
    learner.world_model_update(make_window())
    assert fingerprint(slow.project) == before


def test_the_learner_predicts_its_target_encoder() -> None:
    found = []
    for turned in (False, True):
        agent = make_agent()
        loss = replace(agent.config.model_loss, regulariser="ema", momentum=1.0)
        agent.config = replace(agent.config, model_loss=loss)
        learner = Learner(agent, 100)
        assert learner.target_perception is not None
        if turned:
            learner.target_perception.project.weight.data.neg_()
        found.append(learner.world_model_update(make_window()))
    assert found[0]["prediction"] != pytest.approx(found[1]["prediction"], rel=0.05)
    assert found[0]["reward"] == found[1]["reward"]


@pytest.mark.parametrize("momentum", [-0.1, 1.1])
def test_a_momentum_that_is_no_share_is_refused(momentum: float) -> None:
    config = settings()
    with pytest.raises(ValueError, match=r"model_loss.momentum is -?\d\.1, expected a number from 0 to 1"):
        check_settings(replace(config, model_loss=replace(config.model_loss, momentum=momentum)))


@pytest.mark.parametrize("regulariser", ["sigreg", "vicreg", "infonce", "hinge", "none"])
def test_only_ema_keeps_a_slow_encoder(regulariser: Regulariser) -> None:
    agent = make_agent()
    agent.config = replace(agent.config, model_loss=replace(agent.config.model_loss, regulariser=regulariser))
    learner = Learner(agent, 100)
    assert learner.target_perception is None and set(learner.targets()) == {"target"}
    assert learner.world_model_update(make_window())


# ---- published weights


@pytest.mark.parametrize("name", ["pldm", "eb-jepa", "vicreg"])
def test_published_weights_mean_here_what_they_meant_there(name: Any) -> None:
    """Theirs: the covariance averaged over D(D−1) pairs (PLDM, EB-JEPA); two branches, D and 25 : 25 : 1 (VICReg)."""
    agent, window = make_agent(), make_window(batch=2 * BATCH)
    with torch.no_grad():
        agent.modules.perception.normalise = nn.Identity()  # type: ignore[assignment]
        latent = agent.modules.perception(window.observation)
    width = latent.shape[-1]
    config = published(name, WorldModelLoss(reward=0.0, ending=0.0), width)
    std, off = [], []
    for t in range(STEPS + 1):
        covariance = torch.cov(latent[:, t].T)
        std.append((1 - (covariance.diagonal() + 1e-4).sqrt()).relu().mean())
        off.append((covariance - covariance.diagonal().diag()).square().sum())
    variance, pairs = float(torch.stack(std).mean()), float(torch.stack(off).mean())
    change = float((latent[:, 1:] - latent[:, :-1]).square().mean())
    theirs = {
        "pldm": 3.9843 * variance + 6.9238 * pairs / (width * (width - 1)) + 0.74242 * change,
        "eb-jepa": 16 * variance + 8 * pairs / (width * (width - 1)) + 12 * change,
        "vicreg": (25 * variance + 2 * pairs / width) / 25,
    }
    m = agent.modules
    draws = torch.Generator().manual_seed(0)
    loss, metrics = world_model_loss(m.perception, m.world_model, window, config, config.prediction, draws)
    inverse = config.inverse * metrics["inverse"] if config.inverse else 0.0
    assert float(loss.detach()) - metrics["prediction"] - inverse == pytest.approx(theirs[name], rel=1e-3)
    assert config.inverse == {"pldm": 1.072, "eb-jepa": 1.0, "vicreg": 0.0}[name]
    assert (config.regulariser, config.prediction) == ("vicreg", 1.0)


def test_published_sigreg_is_as_strong_at_every_batch() -> None:
    for batch, weight in ((128, 0.09), (64, 0.18), (256, 0.045)):
        config = published("lewm", WorldModelLoss(batch=batch, regulariser="none", steps=3), 64)
        assert config.regulariser_weight == pytest.approx(weight)
        assert config == replace(
            WorldModelLoss(), batch=batch, steps=3, regulariser="sigreg", regulariser_weight=config.regulariser_weight
        )
    with pytest.raises(ValueError, match="no published weights 'byol'; choose lewm, vicreg"):
        published("byol", WorldModelLoss(), 64)  # type: ignore[arg-type]


# ---- collapse, and what prevents it: a point that moves in a plane, seen through six bent mirrors


def moves(seed: int, count: int = 64) -> Window:
    draws = torch.Generator().manual_seed(seed)
    action = torch.rand(count, 3, 2, generator=draws) * 2 - 1
    start = torch.rand(count, 1, 2, generator=draws) * 2 - 1
    path = torch.cat([start, start + 0.5 * action.cumsum(1)], 1)
    seen = torch.tanh(path @ torch.randn(2, 6, generator=torch.Generator().manual_seed(5)))
    window = make_window(seed, count, 3)
    return replace(window, observation=seen[:, :, None], action=action)


def trained_latents(regulariser: Regulariser, weight: float, normalised: bool) -> Tensor:
    """Latents ``[N, 8]`` of other windows after 150 updates."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        perception = Perception(PerceptionConfig("mlp", latent=8, width=8), (6,))
        model = WorldModel(WorldModelConfig(hidden=32, events=False), 8, ActionEncoder(spaces.Box(-1, 1, (2,))))
    if not normalised:
        perception.normalise = nn.Identity()  # type: ignore[assignment]
    loss = WorldModelLoss(regulariser=regulariser, regulariser_weight=weight, directions=16)
    slow = deepcopy(perception) if regulariser == "ema" else None
    optimiser = torch.optim.Adam([*perception.parameters(), *model.parameters()], 1e-2)
    draws = torch.Generator().manual_seed(0)
    for update in range(150):
        if slow is not None:
            follow(slow, perception, 0.02)
        optimiser.zero_grad()
        torch.autograd.backward(world_model_loss(perception, model, moves(update), loss, 1.0, draws, slow)[0])
        optimiser.step()
    with torch.no_grad():
        return perception(moves(10**6, 512).observation[:, 0])


def effective_rank(latent: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals(latent - latent.mean(0))
    return float(torch.special.entr(values / values.sum()).sum().exp())


def test_without_a_term_latents_collapse() -> None:
    assert trained_latents("none", 0.0, normalised=False).std(0).max() < 0.05  # to a point
    latent = trained_latents("none", 0.0, normalised=True)  # perception keeps its scale, so to a line
    assert latent.std(0).min() > 0.9 and effective_rank(latent) < 1.8


@pytest.mark.parametrize(
    ("regulariser", "weight", "normalised"),
    [("sigreg", 0.1, False), ("vicreg", 1.0, False), ("infonce", 0.3, False), ("hinge", 0.3, False),
     ("sigreg", 0.1, True), ("vicreg", 1.0, True), ("infonce", 0.3, True), ("hinge", 0.3, True), ("ema", 0.0, True)],
)  # fmt: skip
def test_with_one_they_do_not(regulariser: Regulariser, weight: float, normalised: bool) -> None:
    """EMA says nothing about scale: it needs perception's normalisation."""
    latent = trained_latents(regulariser, weight, normalised)
    assert latent.std(0).mean() > 0.5 and effective_rank(latent) > 2
