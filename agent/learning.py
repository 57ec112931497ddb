"""How the modules learn: one update for the world model and perception, one for the critic, one for the actor.

Who may change what is fixed by the optimisers: the world-model update moves perception and world model; the critic
update the critic's heads; the actor update the actor (both in `behaviour.py`). The intrinsic cost has nothing to move.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from ..modules.memory import Window
from ..modules.regularisers import follow
from .agent import Agent
from .augmentation import check_colour, check_shift
from .behaviour import BehaviourLearner
from .checkpoint import load_optimiser, optimiser_tensors, part, prefixed
from .criterion import Metrics, carried, return_head, world_model_loss
from .descent import check_finite, descend, learning_rate_factor, named


class Learner:
    """The optimisers of a run: perception and world model learn here, critic and actor in its ``behaviour``.

    Args:
        agent: Whose modules learn.
        updates: World-model updates planned in all, for the learning-rate schedule.
        renewal: Those of them after which all networks begin anew; None: they never do.

    Raises:
        ValueError: Observations cannot be shifted by so much, or have no colours.
    """

    def __init__(self, agent: Agent, updates: int, renewal: int | None = None) -> None:
        self.agent, self.updates, self.renewal, self.done = agent, max(updates, 1), renewal, 0
        m, loss = agent.modules, agent.config.model_loss
        check_shift("model_loss.shift", loss.shift, m.perception.shape)
        check_colour("model_loss.colour", loss.colour, m.perception.shape, agent.spaces.pixels)
        parameters = [*named("perception", m.perception), *named("world_model", m.world_model)]
        self.returns: torch.nn.Module | None = None
        if loss.returns:
            model = agent.config.world_model
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(agent.config.seed + 7)
                self.returns = return_head(m.perception.width, model.hidden, model.bins).to(agent.device)
            parameters += named("returns", self.returns)
        self.model_optimiser = torch.optim.AdamW(parameters, loss.learning_rate, weight_decay=1e-5)
        self.target_perception = deepcopy(m.perception).train() if loss.regulariser == "ema" else None
        self.generator = torch.Generator(device=agent.device).manual_seed(agent.config.seed + 1)
        self.behaviour = BehaviourLearner(agent, self.generator)

    def targets(self) -> dict[str, torch.nn.Module]:
        """The slow copies of networks, by the name they are saved under."""
        slow: dict[str, torch.nn.Module] = {"target": self.behaviour.target_critic}
        return slow if self.target_perception is None else slow | {"target_perception": self.target_perception}

    def networks(self) -> dict[str, torch.nn.Module]:
        """What is saved besides the agent, by the name it is saved under: slow copies, and what only learning asks."""
        return self.targets() if self.returns is None else self.targets() | {"returns": self.returns}

    def state(self) -> dict[str, Tensor]:
        """All that learning goes on from, besides the agent's weights."""
        numbers = {"done": torch.tensor(self.done), "spread": torch.tensor(self.behaviour.spread, dtype=torch.float64)}
        tensors = numbers | {"generator": self.generator.get_state()}
        for name, optimiser in self.optimisers().items():
            tensors |= optimiser_tensors(name, optimiser)
        for name, network in self.networks().items():
            tensors |= prefixed(name, network.state_dict())
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        """Undo `state`.

        Raises:
            ValueError: It belongs to a learner with other settings.
        """
        for name, optimiser in self.optimisers().items():
            load_optimiser(name, optimiser, state)
        for name, network in self.networks().items():
            network.load_state_dict(part(state, name))
        self.generator.set_state(state["generator"])
        self.done, self.behaviour.spread = int(state["done"]), float(state["spread"])

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """By the name they are saved under."""
        return {"model": self.model_optimiser} | self.behaviour.optimisers()

    def renew(self, fresh: Agent) -> None:
        """Let all networks begin anew, as those of an agent with the same settings, and all that hangs on them."""
        as_fresh = Learner(fresh, self.updates).networks() | fresh.networks()
        for name, network in (self.networks() | self.agent.networks()).items():
            network.load_state_dict(as_fresh[name].state_dict())
        for optimiser in self.optimisers().values():
            optimiser.state.clear()
        self.behaviour.spread = 1.0

    @property
    def age(self) -> tuple[int, int]:
        """World-model updates of the present networks, and how many are planned of them."""
        if self.renewal is None or self.done < self.renewal:
            return self.done, self.updates if self.renewal is None else self.renewal
        return self.done - self.renewal, self.updates - self.renewal

    def _prediction_weight(self) -> float:
        config = self.agent.config.model_loss
        if not config.prediction_delay:
            return config.prediction
        return config.prediction * min(max(self.age[0] / config.prediction_delay - 1, 0.0), 1.0)

    @property
    def predicts(self) -> bool:
        """Whether the present networks learn to predict in earnest: `WorldModelLoss.prediction_delay` is over."""
        return self.age[0] >= 2 * self.agent.config.model_loss.prediction_delay

    def world_model_update(self, window: Window) -> Metrics:
        """One step of perception and world model.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        m, config = self.agent.modules, self.agent.config.model_loss
        m.perception.train()
        if self.target_perception is not None:
            follow(self.target_perception, m.perception, 1 - config.momentum)
        loss, metrics = world_model_loss(
            m.perception, m.world_model, window, config, self._prediction_weight(), self.generator,
            self.target_perception, self.returns,
        )  # fmt: skip
        m.perception.eval()
        self._step_model(loss, metrics, *self.age)
        self.done += 1
        return metrics

    def predictor_update(self, window: Window, done: int, updates: int) -> Metrics:
        """One step of the world model alone, on latents that perception at rest computed once.

        Args:
            window: With latents.
            done: How many such steps were taken.
            updates: How many are planned; the learning rate begins anew for them.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        m = self.agent.modules
        config = replace(self.agent.config.model_loss, regulariser="none", time_similarity=0.0, inverse=0.0)
        window = carried(m.perception, window)
        loss, metrics = world_model_loss(
            m.perception, m.world_model, window, config, config.prediction, self.generator, returns=self.returns
        )
        self._step_model(loss, metrics, done, updates)
        return metrics

    def _step_model(self, loss: Tensor, metrics: Metrics, done: int, updates: int) -> None:
        """Descend at the learning rate of update ``done`` of ``updates``."""
        check_finite("world-model loss", loss, metrics)
        for group in self.model_optimiser.param_groups:
            group["lr"] = self.agent.config.model_loss.learning_rate * learning_rate_factor(done, updates)
        descend(self.model_optimiser, loss)


def to_device(window: Window, device: torch.device) -> Window:
    """The same window on a device."""
    moved = {name: value.to(device) for name, value in vars(window).items() if isinstance(value, Tensor)}
    return replace(window, **moved)
