"""The worst case over an ensemble (test A5): with β = √(E − 1), J = mean F + β·std F bounds what any member foresees.

No one of E numbers is further than √(E − 1) standard deviations above their mean (Samuelson 1968), and it is as far as
that where all the others agree.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forethought.agent.modes import Energy, trajectory_energy
from forethought.modules.types import INTEROCEPTION, State, Trajectory

from .small import make_agent, make_window


@pytest.mark.parametrize("members", [2, 3, 5])
def test_the_energy_of_a_worst_case_planner_bounds_every_members(members: int) -> None:
    agent = make_agent(members=members)
    m = agent.modules
    s = m.perception.encode(make_window().observation[:, 0])
    worst = replace(m.configurator("mode-2"), risk=(members - 1) ** 0.5)
    actions = torch.randint(3, (6, 20, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        each = trajectory_energy(m, m.world_model.rollout(s, actions).members, worst)  # type: ignore[arg-type]
        bound = Energy(m, s, worst)(actions)
        mean = Energy(m, s, replace(worst, risk=0.0))(actions)
    assert each.shape == (6, 20, members) and each.std(-1).min() > 1e-4
    assert (bound >= each.amax(-1) - 1e-4).all() and (each.amax(-1) >= mean - 1e-4).all()
    if members == 2:
        assert torch.allclose(bound, each.amax(-1), atol=1e-4)
    half = Energy(m, s, replace(worst, risk=worst.risk / 2))(actions)
    assert (half < each.amax(-1) - 1e-4).any()  # less would be no bound


def test_where_all_but_one_agree_the_bound_is_the_worst_case() -> None:
    """Two courses: an adversary could make the first cost 3; on average it is the better one."""
    agent = make_agent(members=4)
    energy = torch.tensor([[-1.0, -1.0, -1.0, 3.0], [0.5, 0.5, 0.5, 0.5]])
    iota = torch.zeros(1, 2, 4, 1, len(INTEROCEPTION))
    iota[0, :, :, 0, 0] = -energy / 0.9  # one step later, at the discount of the agent
    nothing = torch.zeros(1, 2, 4, 1)
    own = Trajectory(torch.zeros(1, 2, 4, 2, 8), iota, nothing)
    foreseen = Trajectory(own.latent.mean(2), iota.mean(2), nothing.mean(2), own)
    imagined: Any = SimpleNamespace(rollout=lambda state, actions, goal, feel, chance: foreseen)
    m = replace(agent.modules, world_model=imagined)
    found = {}
    for risk in (0.0, 3**0.5):
        configuration = replace(m.configurator("mode-2"), risk=risk)
        found[risk] = Energy(m, State(torch.zeros(1, 8)), configuration)(torch.zeros(1, 2, 1))[0]
    assert torch.allclose(found[3**0.5], torch.tensor([3.0, 0.5]), atol=1e-4)
    assert [int(values.argmin()) for values in found.values()] == [0, 1]
