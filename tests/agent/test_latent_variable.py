"""The latent variable z: what state and action leave open (tests E2, E3, A5 of the architecture).

A fork: action 0 goes one step up or down by chance, and up is worth 1; action 1 is certain and worth `SURE`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from forethought.agent.agent import Agent
from forethought.agent.budgets import thought_of, with_budget
from forethought.agent.checkpoint import load_agent, save_agent
from forethought.agent.config import RunConfig, WorldModelLoss
from forethought.agent.criterion import world_model_loss
from forethought.agent.evaluation import evaluate
from forethought.agent.inference import explain
from forethought.agent.modes import Energy, imagine, judge, think
from forethought.agent.online import one_step_error
from forethought.agent.presets import preset
from forethought.agent.run import build_env, check_settings, prepare
from forethought.agent.spaces import Spaces
from forethought.agent.statistics import auroc
from forethought.agent.training import Trainer
from forethought.agent.violation import transition_energy
from forethought.modules.configurator import Thinking
from forethought.modules.memory import Window
from forethought.modules.types import Mode, State
from forethought.modules.world_model import PredictorName, WorldModel
from gymnasium import spaces
from torch import Tensor

from .small import PREDICTORS, make_agent, make_window, settings, wake

WIDTH, STEPS, RARE, SURE = 8, 3, 0.2, 0.3
GAMBLE = Spaces((WIDTH,), False, False, spaces.Discrete(2))
MODES: tuple[Mode, ...] = ("mode-1", "mode-2")
THINKING = Thinking(horizon=1, candidates=16, iterations=1, futures=64)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fork(count: int, seed: int, chance: float) -> tuple[Window, Tensor]:
    """Windows whose latents are the world's own ``[N, T+1, D]``, and where it went up ``[N, T]``."""
    generator = draws(seed)
    state = torch.randn(count, WIDTH, generator=generator)
    action = torch.randint(2, (count, STEPS), generator=generator)
    up = torch.rand(count, STEPS, generator=generator) < chance
    path, risky = [state], action == 0
    for t in range(STEPS):
        move = torch.zeros(count, WIDTH)
        move[:, 0] = torch.where(risky[:, t], torch.where(up[:, t], 1.0, -1.0), torch.zeros(()))
        move[:, 1] = torch.where(risky[:, t], 0.0, 0.5)
        state = 0.8 * state + move
        path.append(state)
    reward = torch.where(risky, up.float(), torch.tensor(SURE))
    blank = make_window(batch=count, steps=STEPS)
    return replace(blank, action=action, reward=reward, latent=torch.stack(path, 1)), up


def told(config: RunConfig, codes: int, **loss: Any) -> RunConfig:
    """The same settings with a latent variable."""
    changed = replace(config.model_loss, regulariser="none", **loss)
    return replace(config, world_model=replace(config.world_model, codes=codes), model_loss=changed)


def mixed(window: Window) -> Window:
    """The same with the outcomes of another window."""
    assert window.latent is not None
    return replace(window, latent=torch.cat([window.latent[:, :1], window.latent[:, 1:].roll(1, 0)], 1))


def ending(window: Window) -> Window:
    """The same, where the first step is the last: what is seen next belongs to another episode."""
    only_first = torch.tensor([1.0, 0.0, 0.0]).expand(len(window.action), -1)
    return replace(mixed(window), valid=only_first, known=0 * only_first, terminated=only_first)


def gambler(
    codes: int, chance: float = 0.5, members: int = 1, shuffled: bool = False, updates: int = 250, delay: int = 0
) -> Agent:
    """An agent whose world model has learned the fork; shuffled: what came is another window's; delay: updates in which
    the latent is not predicted yet."""
    config = told(settings(thinking=THINKING), codes)
    world_model = replace(config.world_model, members=members)
    config = replace(config, world_model=world_model, task=replace(config.task, discount=1.0))
    agent = Agent(replace(config, perception=replace(config.perception, latent=WIDTH)), GAMBLE)
    learn(agent, updates, chance, shuffled, delay)
    return agent


def learn(
    agent: Agent, updates: int, chance: float, shuffled: bool = False, delay: int = 0, ends: bool = False
) -> None:
    """Let the world model learn the fork; ends: every step ends the episode."""
    m, generator = agent.modules, draws()
    optimiser = torch.optim.Adam(m.world_model.parameters(), 4e-3)
    for update in range(updates):
        optimiser.param_groups[0]["lr"] = 4e-3 * (1 - update / updates)
        window, _ = fork(64, update, chance)
        if shuffled:
            window = replace(mixed(window), reward=window.reward.roll(1, 0))
        window = ending(window) if ends else window
        weight = float(update >= delay)
        loss, _ = world_model_loss(m.perception, m.world_model, window, agent.config.model_loss, weight, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.fixture(scope="module")
def even() -> Agent:
    return gambler(2)


@pytest.fixture(scope="module")
def rare() -> Agent:
    return gambler(4, RARE, members=2, updates=350)


def first_steps(chance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, actions, outcomes and where they went up, of unseen transitions."""
    window, up = fork(1000, 10**6, chance)
    assert window.latent is not None
    return window.latent[:, 0], window.action[:, 0], window.latent[:, 1], up[:, 0]


@torch.no_grad()
def errors(world_model: WorldModel, state: Tensor, action: Tensor, outcome: Tensor) -> Tensor:
    """Of every code ``[N, K]``."""
    (latent, *_), _ = world_model.outcomes(world_model.begin(state), world_model.actions(action))
    return (latent.mean(2) - outcome.unsqueeze(1)).square().mean(-1)


# ---- learning


def test_codes_stand_for_the_outcomes_of_a_fork(even: Agent) -> None:
    """E2: without z the prediction is between the outcomes; with two codes each outcome is one of them."""
    state, action, outcome, up = first_steps(0.5)
    risky = action == 0
    between = errors(gambler(1).modules.world_model, state, action, outcome)[risky].mean()
    own = errors(even.modules.world_model, state, action, outcome)
    assert own[risky].amin(-1).mean() < 0.1 * between and between > 0.1
    assert own[~risky].amin(-1).mean() < 0.1 * between
    code = own.argmin(-1)
    assert 0.4 < code[risky].float().mean() < 0.6
    assert (code == code[risky & up].mode().values)[risky & up].float().mean() > 0.99
    assert (code != code[risky & up].mode().values)[risky & ~up].float().mean() > 0.99


def test_a_code_cannot_explain_just_anything(even: Agent) -> None:
    """E3: two codes are two wells: what came to another is explained by neither, and shuffled outcomes teach none."""
    state, action, outcome, _ = first_steps(0.5)
    real, other = (transition_energy(even.modules.world_model, state, action, y) for y in (outcome, outcome.roll(1, 0)))
    assert auroc(other.numpy(), real.numpy()) > 0.999
    blind = errors(gambler(2, shuffled=True, updates=100).modules.world_model, state, action, outcome).amin(-1).mean()
    assert blind > 20 * errors(even.modules.world_model, state, action, outcome).amin(-1).mean()


def test_outcomes_are_drawn_as_often_as_they_come(rare: Agent) -> None:
    """In unseen states, of an ensemble with more codes than outcomes; rewards come with their outcomes."""
    m = rare.modules
    state, action, _, _ = first_steps(RARE)
    with torch.no_grad():
        chance = m.world_model.chance(len(state), 16, 1, draws())
        imagined = m.world_model.rollout(State(state), action[:, None, None], chance=chance)
    moved = imagined.each.latent[:, 0, :, 1, 0] - 0.8 * state[:, :1]  # [N, M]
    felt = imagined.each.interoception[:, 0, :, 0, 0]
    risky, went = action == 0, moved > 0
    assert RARE - 0.05 < went[risky].float().mean() < RARE + 0.05
    assert ((moved.abs() - 1).abs()[risky] < 0.25).float().mean() > 0.95  # up or down, and not between
    assert (moved[~risky].abs() < 0.25).float().mean() > 0.95  # nothing is open
    assert felt[risky][went[risky]].mean() > 0.8 and felt[risky][~went[risky]].mean() < 0.1
    assert (felt[~risky] - SURE).abs().mean() < 0.06


def test_what_comes_after_an_end_is_not_seen_but_its_reward_tells_the_code() -> None:
    """Outcomes that were as likely as each other come rarely where they end the episode."""
    agent = gambler(2)
    learn(agent, 150, RARE, ends=True)
    m = agent.modules
    state, action, _, _ = first_steps(RARE)
    with torch.no_grad():
        chance = m.world_model.chance(len(state), 16, 1, draws())
        felt = m.world_model.rollout(State(state), action[:, None, None], chance=chance).each.interoception[:, 0, :, 0]
    reward, risky = felt[..., 0], action == 0
    assert RARE - 0.06 < (reward[risky] > 0.5).float().mean() < RARE + 0.06
    assert (reward[~risky] - SURE).abs().mean() < 0.06 and (felt[..., 1] > 0.9).all()


def test_a_roll_out_along_codes_is_told_by_each_outcome(even: Agent) -> None:
    """With another's outcomes the codes are others, and the heads read the outcome that came."""
    m, (window, up) = even.modules, fork(200, 5, 0.5)
    assert window.latent is not None
    with torch.no_grad():
        came = explain(
            m.world_model, window.latent[:, 0], window.latent[:, 1:], window, even.config.model_loss, draws()
        )
    assert came.z is not None and came.latent.shape == (200, 1, STEPS + 1, WIDTH) and came.z.shape == (200, STEPS, 2)
    assert (came.latent[:, 0, 1:] - window.latent[:, 1:]).square().mean() < 0.02
    told_reward = m.world_model.two_hot.mean(m.world_model.reward(came.features))[:, 0]
    assert (told_reward - window.reward).abs().mean() < 0.1
    risky = window.action == 0
    code = came.z.argmax(-1)
    assert len(code[risky & up].unique()) == 1 and len(code[risky & ~up].unique()) == 1


def test_codes_are_alike_until_there_is_something_to_predict() -> None:
    """A delay gives none of them up: afterwards they stand for the outcomes as ever."""
    state, action, outcome, _ = first_steps(0.5)
    m = gambler(2, updates=60, delay=60).modules
    with torch.no_grad():
        prior = m.world_model.log_prior(m.world_model.begin(state), m.world_model.actions(action)).exp()
    assert (prior - 0.5).abs().max() < 0.05
    own = errors(gambler(2, updates=300, delay=60).modules.world_model, state, action, outcome)[action == 0]
    assert own.amin(-1).mean() < 0.02 and 0.4 < own.argmin(-1).float().mean() < 0.6


def test_a_prediction_that_is_no_number_is_told_as_such(even: Agent) -> None:
    """Codes can still be drawn, so that the loss, which is no number either, is what is complained about."""
    m, (window, _) = even.modules, fork(8, 0, 0.5)
    assert window.latent is not None
    broken = replace(window, latent=window.latent * torch.nan)
    loss, _ = world_model_loss(m.perception, m.world_model, broken, even.config.model_loss, 1.0, draws())
    assert loss.isnan()


def test_learning_while_acting_holds_the_nearest_outcome_against_it(even: Agent) -> None:
    state, action, outcome, _ = first_steps(0.5)
    nearest = errors(even.modules.world_model, state, action, outcome).amin(-1)
    assert torch.allclose(one_step_error(even.modules.world_model, state, action, outcome), nearest, atol=1e-6)


# ---- planning


@torch.no_grad()
def sure(agent: Agent, **changes: Any) -> float:
    """How often the certain action has the lesser energy in unseen states; the critic says nothing."""
    m, state = agent.modules, first_steps(0.5)[0][:64]
    actions = torch.tensor([[[0], [1]]]).expand(64, -1, -1)
    energy = judge(m, State(state), replace(m.configurator("mode-2"), **changes), draws())(actions)
    return float((energy[:, 1] < energy[:, 0]).float().mean())


def test_minimise_over_actions_average_over_z_and_fear_an_adversary(even: Agent) -> None:
    """Half a chance of 1 is better than 0.3 on average, and worse in the worst case, or with a price on uncertainty."""
    for agent in (even, gambler(2, members=3)):
        assert sure(agent) < 0.05
        assert sure(agent, adversary=True) > 0.95
        assert sure(agent, risk=1.0) > 0.95


def test_the_worst_case_bounds_the_mean_and_every_future(rare: Agent) -> None:
    """A5."""
    m = rare.modules
    s, c = State(first_steps(RARE)[0][:20]), replace(m.configurator("mode-2"), horizon=4, futures=8)
    actions = torch.randint(2, (20, 6, 4), generator=draws())
    chance = m.world_model.chance(20, 8, 4, draws())
    with torch.no_grad():
        mean, worst = (Energy(m, s, replace(c, adversary=on), chance)(actions) for on in (False, True))
        assert chance is not None
        alone = torch.stack([Energy(m, s, c, chance[:, k : k + 1])(actions) for k in range(8)], -1)
    assert torch.allclose(alone.mean(-1), mean, atol=1e-5) and torch.allclose(alone.amax(-1), worst, atol=1e-5)
    assert (worst >= mean - 1e-6).all() and (worst - mean).max() > 0.3


def test_courses_meet_the_same_futures(even: Agent) -> None:
    """Twice the same course has the same energy, a few environments at a time or all together."""
    m, s = even.modules, State(first_steps(0.5)[0][:6])
    actions = torch.zeros(6, 2, 3, dtype=torch.int64)
    configuration = replace(m.configurator("mode-2"), horizon=3, futures=3)
    with torch.no_grad():
        energy = judge(m, s, configuration, draws())
        found = energy(actions)
        parts = [replace(energy, s=State(s.latent[i : i + 1]), chance=energy.chance[i : i + 1])(actions[i : i + 1])  # type: ignore[index]
                 for i in range(6)]  # fmt: skip
    assert torch.equal(found[:, 0], found[:, 1]) and found[:, 0].std() > 0.1
    assert torch.allclose(torch.cat(parts), found, atol=1e-5)


@pytest.mark.parametrize(("predictor", "members"), PREDICTORS)
def test_step_by_step_the_same_futures_come(predictor: PredictorName, members: int) -> None:
    agent = many(predictor, members)
    m = agent.modules
    s, c = m.perception.encode(make_window().observation[:, 0]), replace(m.configurator("mode-2"), futures=3)
    c = replace(c, habit=0.3 if members == 1 else 0.0)  # step by step, that of an ensemble is of its mean state
    actions = torch.randint(3, (6, 5, 4), generator=draws())
    with torch.no_grad():
        energy = judge(m, s, c, draws())
        nodes = tuple(part.expand(-1, 5, *part.shape[2:]) for part in energy.root())
        total, alive, before = torch.zeros(6, 5), torch.ones(6, 5), m.world_model.calls
        for t in range(4):
            nodes, cost, go = energy.step(nodes, actions[:, :, t])
            total, alive = total + energy.discount ** (t + 1) * alive * cost, alive * go
        assert m.world_model.calls - before == 6 * 5 * 4 * 3 * members
        whole = energy(actions)
        assert torch.allclose(total + energy.discount**4 * alive * energy.leaf(nodes), whole, atol=1e-4)
        assert torch.allclose(energy.prior(nodes).sum(-1), torch.ones(6, 5))
        assert not torch.allclose(judge(m, s, c, draws(1))(actions), whole, atol=1e-3)  # other futures


def many(predictor: PredictorName = "mlp", members: int = 1, **thinking: Any) -> Agent:
    """An agent for `Seek` with three codes, in which no head is silent."""
    plain = make_agent(predictor=predictor, members=members, thinking=Thinking(horizon=4, candidates=8, **thinking))
    return wake(Agent(told(plain.config, 3), plain.spaces))


def test_each_future_is_paid_for_and_budgets_count_them() -> None:
    agent = many(futures=3, iterations=2)
    m, s = agent.modules, agent.modules.perception.encode(make_window().observation[:, 0])
    with torch.no_grad():
        think(m, s, m.configurator("mode-2"), agent.planner, agent.spaces.action, None, draws())
    assert m.world_model.calls == 6 * 3 * 8 * 4 * 2
    thinking = with_budget(agent, 240).config.task.thinking
    assert 3 * thinking.candidates * thinking.iterations * thinking.horizon <= 240 and thinking.candidates >= 2


def test_every_step_draws_from_each_part_of_the_distribution() -> None:
    chance = many().modules.world_model.chance(7, 5, 4, draws())
    assert chance is not None and chance.shape == (7, 5, 4)
    assert torch.equal((chance * 5).floor().sort(1).values, torch.arange(5.0).view(1, 5, 1).expand(7, 5, 4))
    assert not torch.equal((chance[0] * 5).floor(), (chance[1] * 5).floor())


def test_dreams_meet_what_may_come(even: Agent) -> None:
    m = even.modules
    s = State(first_steps(0.5)[0][:1].expand(200, -1).unsqueeze(1))
    configuration = replace(m.configurator("mode-1"), horizon=1)
    with torch.no_grad():
        dream = imagine(m, s, configuration, draws())
    moved = dream.trajectory.latent[:, 0, 1, 0] - 0.8 * s.latent[:, 0, 0]
    risky = dream.action[:, 0, 0] == 0
    assert 0.35 < (moved[risky] > 0.5).float().mean() < 0.65 and (moved[risky].abs() > 0.75).all()


def test_the_gradient_of_a_draw_is_that_of_its_probabilities() -> None:
    world_model = many().modules.world_model
    latent = torch.randn(5, world_model.prior[0].in_features - 3, generator=draws(), requires_grad=True)  # type: ignore[index,union-attr]
    carry, encoded = world_model.begin(latent), world_model.actions(torch.zeros(5, dtype=torch.int64))
    z = world_model.draw(carry, encoded, torch.rand(5, generator=draws()))
    assert (
        z is not None and torch.equal(z.detach().sort(-1).values[:, 2], torch.ones(5)) and not z.detach()[z < 0.5].any()
    )
    (z[:, 1].sum()).backward()
    (expected,) = torch.autograd.grad(
        world_model.log_prior(world_model.begin(latent), encoded).exp()[:, 1].sum(), latent
    )
    assert torch.allclose(latent.grad, expected) and expected.abs().max() > 1e-4  # type: ignore[arg-type]


# ---- settings and files


def test_without_a_latent_variable_nothing_is_drawn() -> None:
    world_model, generator = make_agent().modules.world_model, draws()
    assert world_model.chance(3, 4, 5, generator) is None and world_model.prior is None
    assert torch.equal(generator.get_state(), draws().get_state())


def test_it_comes_back_from_a_file(tmp_path: Any) -> None:
    agent = many()
    save_agent(agent, tmp_path)
    back = load_agent(tmp_path)
    assert back.config.world_model.codes == 3
    s, actions = State(torch.zeros(2, 8)), torch.zeros(2, 1, 3, dtype=torch.int64)
    chance = agent.modules.world_model.chance(2, 6, 3, draws())
    one, other = (a.modules.world_model.rollout(s, actions, chance=chance).latent for a in (agent, back))
    assert torch.equal(one, other)


@pytest.mark.parametrize(("codes", "loss", "thinking", "said"), [
    (0, {}, {}, r"world_model.codes is 0, expected at least 1"),
    (1, {}, {"adversary": True}, r"task.thinking.adversary is set and world_model.codes is 1"),
    (2, {"targets": 2}, {}, r"model_loss.targets is 2 and world_model.codes 2; .* set model_loss.targets to 0"),
    (2, {"sharpness": -1.0}, {}, r"model_loss.sharpness is -1.0"),
    (2, {}, {"futures": 0}, r"task.thinking.futures is 0"),
])  # fmt: skip
def test_what_cannot_work_is_refused_before_the_work(codes: int, loss: Any, thinking: Any, said: str) -> None:
    config = settings(thinking=Thinking(**thinking))
    check_settings(told(settings(thinking=Thinking(risk=0.5, adversary=True)), 2))
    with pytest.raises(ValueError, match=said):
        check_settings(told(config, codes, **loss))


def test_an_adversary_needs_something_to_choose_and_whole_sequences() -> None:
    m = make_agent().modules
    s, actions = m.perception.encode(make_window().observation[:, 0]), torch.zeros(6, 1, 2, dtype=torch.int64)
    against = replace(m.configurator("mode-2"), adversary=True)
    with pytest.raises(ValueError, match="an adversary is said to choose z and the world model has none"):
        judge(m, s, against, draws())(actions)
    with pytest.raises(ValueError, match="adversary is True, and a spread or a maximum of energies cannot be followed"):
        judge(many().modules, s, against, draws()).root()


def test_a_code_needs_every_outcome() -> None:
    agent = many()
    loss = WorldModelLoss(targets=2, regulariser="none")
    with pytest.raises(ValueError, match=r"model_loss.targets is 2 of 4 steps and world_model.codes 3"):
        world_model_loss(agent.modules.perception, agent.modules.world_model, make_window(), loss, 1.0, draws())


def test_who_foresees_that_a_look_may_tell_looks_first() -> None:
    """In `Look` the mean of what a look may show is what is seen without one: with one outcome there is no use in it.

    Opening a door at once is worth 0, looking first 0.8; both modes, one training each.
    """
    found = {}
    for codes in (1, 4):
        config = replace(preset("forethought/Look-v0"), device="cpu")
        agent, env = prepare(replace(config, world_model=replace(config.world_model, codes=codes)))
        Trainer(agent, env, lambda *_: None).run()
        env.close()
        for mode in MODES:
            held_out = build_env(agent.config.env, 100, seed=500, held_out=True)
            found[codes, mode] = evaluate(mode, held_out, agent.begin(100, mode), seed=500).returns.mean()
            held_out.close()
    assert min(found[4, mode] for mode in MODES) > 0.7, found
    assert max(found[1, mode] for mode in MODES) < 0.4, found


def test_tables_say_in_how_many_futures_it_thinks() -> None:
    assert thought_of(many(futures=3)) == "8×3 plans of 4 steps in 3 futures"
    assert thought_of(many(adversary=True)) == "8×3 plans of 4 steps in 4 futures, of which the worst counts"
    assert thought_of(make_agent(thinking=Thinking(horizon=4, candidates=8))) == "8×3 plans of 4 steps"
