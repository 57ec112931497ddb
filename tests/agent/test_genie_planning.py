"""Planning in dreams, and what latent actions mean in real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent.genie_planning import DreamBehaviour, DreamObjective
from forethought.modules.genie.decoding import ActionDecoder, ActionDictionary
from forethought.modules.genie.world import Genie
from forethought.planners import BeamSearch, Budget, CategoricalCEM, Planner, Proposal, RandomShooting, TreeSearch
from gymnasium import spaces

from ..modules.genie.small import ACTIONS, make, tokens


def judged(rewards: list[float], ending: float = -50.0) -> Genie:
    """A world in which each latent action has a reward of its own."""
    world = make()

    def judge(features: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(rewards)[action], torch.full(action.shape, ending).sigmoid()

    world.outcomes.judge = judge  # type: ignore[method-assign]
    return world


def test_the_energy_is_the_discounted_reward_of_the_dream() -> None:
    world = judged([0.0, 1.0, 2.0, 4.0])
    objective = DreamObjective(world, world.begin(*tokens())[1], discount=0.5)
    courses = torch.tensor([[[1, 2, 3], [3, 0, 0]]]).expand(2, -1, -1)
    torch.testing.assert_close(objective(courses), torch.tensor([[-1.5, -2.0]]).expand(2, -1))  # γ + 2 γ² + 4 γ³
    assert objective.calls == 2 * 2 * 3
    world = judged([0.0, 1.0, 2.0, 4.0], ending=0.0)  # half the dreams end at each step
    objective = DreamObjective(world, world.begin(*tokens())[1], discount=1.0)
    torch.testing.assert_close(objective(courses), -torch.tensor([[1 + 1 + 1, 4.0]]).expand(2, -1))


def test_rewards_are_read_from_what_was_dreamed() -> None:
    world = make()
    objective = DreamObjective(world, world.begin(*tokens())[1])
    courses = torch.randint(ACTIONS, (2, 5, 4), generator=torch.Generator().manual_seed(0))
    energy = objective(courses)
    assert torch.equal(energy, objective(courses))  # the same noise in every iteration
    other = courses.clone()
    other[:, :, 1] = (other[:, :, 1] + 1) % ACTIONS
    assert (objective(other) != energy).all()


def test_dreams_to_plan_in_may_be_drawn_faster() -> None:
    world, passes = make(), []
    logits = world.dynamics.logits

    def counted(*given: Any) -> torch.Tensor:
        passes.append(given)
        return logits(*given)

    world.dynamics.logits = counted  # type: ignore[method-assign]
    own, fast = world.sampling, world.sampling_with(1, 0.0)
    assert world.sampling_with(0, -1.0) == own and own.steps > 1 and (fast.steps, fast.temperature) == (1, 0.0)
    courses = torch.randint(ACTIONS, (2, 5, 4), generator=torch.Generator().manual_seed(0))
    found, taken = [], []
    for seed, sampling in ((0, None), (0, fast), (1, fast)):
        passes.clear()
        found.append(DreamObjective(world, world.begin(*tokens())[1], seed=seed, sampling=sampling)(courses))
        taken.append(len(passes))
    assert taken == [own.steps * 3, 3, 3]  # the last step need not be dreamed
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])  # the likeliest tokens need no noise


def test_plans_are_made_of_the_codes_that_are_known() -> None:
    world, budget = judged([0.0, 9.0, 2.0, 4.0]), Budget(2, 32, 1)
    frames, all_of_them = np.zeros((3, 16, 16, 3), np.uint8), np.ones(3, np.bool_)
    for codes, best in ((None, 1), ([0, 2, 3], 3), ([2, 0], 2)):
        behaviour = DreamBehaviour(world, 3, RandomShooting(), budget, 0.9, 0, torch.device("cpu"), codes=codes)
        assert (behaviour.act(frames, all_of_them, all_of_them).action == best).all()
    with pytest.raises(ValueError, match="no latent actions"):
        DreamBehaviour(world, 3, RandomShooting(), budget, 0.9, 0, torch.device("cpu"), codes=[])


def test_a_plan_is_carried_out_for_some_steps_where_its_environment_is_active() -> None:
    world = make()
    world.outcomes.judge = by_step()  # type: ignore[method-assign]
    behaviour = DreamBehaviour(world, 2, RandomShooting(), Budget(3, 300, 1), 1.0, 0, torch.device("cpu"), commit=2)
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    no, both = np.zeros(2, np.bool_), np.ones(2, np.bool_)
    told = []
    for first, active in ((both, both), (no, np.array([True, False])), (no, both), (no, both)):
        decision = behaviour.act(frames, first, active)
        told.append((decision.planned.tolist(), decision.calls, decision.action[active].tolist()))
    assert told == [
        ([True, True], 2 * 300 * 3, [2, 2]), ([False, False], 0, [3]),
        ([True, False], 300 * 3, [2, 3]), ([False, True], 300 * 3, [3, 2]),
    ]  # fmt: skip


def by_step() -> Any:
    """Rewards that ask for latent action 2 in the first step of a dream and for 3 in all others."""
    begun: list[torch.Tensor] = []

    def judge(features: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        step = len(begun) % 3
        begun.append(action)
        return (action == (2 if step == 0 else 3)).float(), torch.full(action.shape, -50.0).sigmoid()

    return judge


PLANNERS: list[Planner] = [CategoricalCEM(), RandomShooting(), BeamSearch(), TreeSearch()]


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: type(planner).__name__)
def test_planners_find_the_best_course_in_a_dream(planner: Planner) -> None:
    world = judged([0.0, -1.0, 3.0, 1.0])
    objective = DreamObjective(world, world.begin(*tokens())[1])
    plan = planner.plan(
        objective, spaces.Discrete(ACTIONS), Proposal(), Budget(3, 200, 2), 2, torch.Generator().manual_seed(0)
    )
    assert plan.actions.tolist() == [[2, 2, 2]] * 2


def test_what_a_tree_finds_in_a_dream_is_worth_what_it_says() -> None:
    """Followed step by step, in whatever order, a course has the energy that it has as a whole."""
    world, draws = make(), torch.Generator().manual_seed(0)
    for part in (world.outcomes.reward, world.outcomes.ending):  # heads that have learned nothing answer 0
        torch.nn.init.normal_(part.weight, generator=draws)
    objective = DreamObjective(world, world.begin(*tokens())[1], discount=0.9)
    whole = torch.cartesian_prod(*[torch.arange(ACTIONS)] * 3).expand(2, -1, -1)
    energies = objective(whole)
    assert energies.std(1).min() > 0.01
    wide = Budget(3, ACTIONS**3, 2)  # every course fits into the beam
    plan = BeamSearch().plan(objective, spaces.Discrete(ACTIONS), Proposal(), wide, 2, draws)
    torch.testing.assert_close(plan.energy, energies.amin(1))
    assert torch.equal(plan.actions, whole[0][energies.argmin(1)])
    tree = TreeSearch().plan(objective, spaces.Discrete(ACTIONS), Proposal(), Budget(3, 60, 2), 2, draws)
    torch.testing.assert_close(tree.energy, objective(tree.actions.unsqueeze(1))[:, 0])
    assert (tree.energy < tree.baseline).all()


def test_frames_are_dreamed_where_somebody_goes_on() -> None:
    world, dreamed = make(), []
    step = world.step

    def counted(dream: Any, *given: Any, **options: Any) -> Any:
        dreamed.append(len(dream.tokens))
        return step(dream, *given, **options)

    world.step = counted  # type: ignore[method-assign]
    objective = DreamObjective(world, world.begin(*tokens())[1])
    nodes, width = objective.root(), 3
    for _ in range(3):
        nodes = tuple(part[:, :1].repeat_interleave(width, 1) for part in nodes)  # two of three courses are given up
        nodes, _, _ = objective.step(nodes, torch.arange(width).expand(2, -1))
    assert dreamed == [2 * width, 2 * width]  # nobody looks at what comes after the third action
    objective.step(
        tuple(torch.cat(pair, 1) for pair in zip(nodes, objective.root(), strict=True)), torch.zeros(2, 4).long()
    )
    assert dreamed[2:] == [2 * width]  # the root, whose frame is there, is not dreamed again


def test_the_dictionary_counts() -> None:
    dictionary = ActionDictionary(3, 4)
    dictionary.learn(torch.tensor([0, 0, 0, 1]), torch.tensor([2, 2, 3, 1]))
    assert dictionary.likeliest(torch.tensor([0, 1])).tolist() == [2, 1]
    torch.testing.assert_close(
        dictionary.probabilities(torch.tensor([0, 2])),
        torch.tensor([[0, 0, 2 / 3, 1 / 3], [0, 0.25, 0.5, 0.25]], dtype=torch.float64),
        atol=1e-6, rtol=0,
    )  # fmt: skip
    drawn = dictionary.draw(torch.zeros(900, dtype=torch.long), torch.Generator().manual_seed(0))
    assert abs(np.bincount(drawn, minlength=4)[2] / 900 - 2 / 3) < 0.06


def test_the_decoder_learns_what_the_dictionary_cannot() -> None:
    """The meaning of a code depends on the frame: left of the middle it is another button than right of it."""
    draws = torch.Generator().manual_seed(0)
    features, codes = torch.randn(400, 6, generator=draws), torch.randint(3, (400,), generator=draws)
    actions = (codes + (features[:, 0] > 0)) % 3
    torch.manual_seed(0)
    decoder = ActionDecoder(6, 3, 3)
    decoder.learn(features[:200], codes[:200], actions[:200], draws)
    found = decoder(features[200:], codes[200:]).argmax(-1)
    dictionary = ActionDictionary(3, 3)
    dictionary.learn(codes[:200], actions[:200])
    assert (found == actions[200:]).float().mean() > 0.75
    assert (dictionary.likeliest(codes[200:]) == actions[200:]).float().mean() < 0.65
