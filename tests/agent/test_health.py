"""Measures of representation and world model against known answers, and the stop of collapsed training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from forethought.agent import training
from forethought.agent.agent import Agent
from forethought.agent.config import WorldModelLoss
from forethought.agent.errors import CollapseError
from forethought.agent.health import (
    PredictionErrors,
    Spread,
    Vitals,
    collapse,
    effective_rank,
    encode,
    inverse_dynamics,
    prediction_errors,
    r_squared,
    singular_values,
    spread,
    stop_if_collapsed,
)
from forethought.agent.run import prepare, train
from forethought.agent.training import Trainer
from forethought.modules.actions import ActionEncoder
from forethought.modules.perception import Perception
from gymnasium import spaces
from torch import Tensor

from .small import SEEK, fingerprints, settings, tiny


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(count: int, width: int) -> Tensor:
    return torch.randn(count, width, generator=draws())


def look(latent: Tensor, percepts: Tensor | None = None) -> Spread:
    return spread(latent, latent if percepts is None else percepts, draws(1))


# ---- spread


def test_effective_rank_has_the_values_of_its_definition() -> None:
    assert effective_rank(torch.ones(7)) == pytest.approx(7)
    assert effective_rank(torch.tensor([3.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_rank(torch.tensor([2.0, 1.0, 1.0])) == pytest.approx(2**1.5)  # exp of the entropy of ½, ¼, ¼
    assert effective_rank(torch.zeros(5)) == 0


@pytest.mark.parametrize("shape", [(50, 6), (6, 50)])
def test_singular_values_are_those_of_the_centred_samples(shape: tuple[int, int]) -> None:
    samples = gaussian(*shape) + 100
    expected = np.linalg.svd(samples.numpy() - samples.numpy().mean(0, dtype=np.float64), compute_uv=False)
    np.testing.assert_allclose(singular_values(samples), expected, rtol=1e-3, atol=1e-3)


def test_a_gaussian_uses_all_dimensions() -> None:
    found = look(gaussian(2_000, 12))
    assert found.rank == pytest.approx(12, rel=0.01)
    assert found.use == pytest.approx(1, abs=0.02)
    assert 0.9 < found.std[0] < found.std[1] < found.std[2] < 1.1
    assert found.sigreg * 2_000 == pytest.approx(1.05, rel=0.35)
    assert sum(found.spectrum) == pytest.approx(1) and list(found.spectrum) == sorted(found.spectrum, reverse=True)


def test_copies_of_one_dimension_have_rank_1() -> None:
    line = gaussian(1_000, 1) * torch.linspace(-1, 1, 8)
    found = look(line, gaussian(1_000, 8))
    assert found.rank == pytest.approx(1, abs=1e-3) and found.use == pytest.approx(0, abs=1e-3)
    assert 0.1 < look(gaussian(1_000, 1).expand(-1, 8), line).sigreg < 0.25


def test_dead_dimensions_show_in_the_smallest_deviation_and_the_rank() -> None:
    half = gaussian(1_000, 12)
    half[:, 6:] = 0.3
    found = look(half, gaussian(1_000, 12))
    assert found.std[0] == 0 and found.std[1] == pytest.approx(0.5, rel=0.05)
    assert found.rank == pytest.approx(6, rel=0.02) and found.use == pytest.approx(5 / 11, rel=0.05)


def test_latents_that_are_all_alike_have_no_rank() -> None:
    found = look(torch.zeros(500, 8), gaussian(500, 8))
    assert found.rank == 0 and found.std == (0, 0, 0)
    assert found.sigreg == pytest.approx(0.40, abs=0.01)
    assert all(share == 0 for share in found.spectrum)


def test_what_is_possible_is_what_percepts_offer_whatever_their_units() -> None:
    units = torch.tensor([1.0, 1e3, 1e-3])
    assert look(gaussian(1_000, 8), gaussian(1_000, 3) * units).possible == pytest.approx(3, rel=0.05)
    assert look(gaussian(1_000, 8), gaussian(1_000, 40)).possible == 8
    pixels = (gaussian(1_000, 30) * torch.tensor([60.0, 60.0, *[0.6] * 28]) + 128.5).clamp(0, 255).to(torch.uint8)
    assert look(gaussian(1_000, 16), pixels).possible < 5  # faint pixels count for little


def test_latents_that_are_not_finite_are_refused() -> None:
    broken = gaussian(50, 4)
    broken[3, 2] = math.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        look(broken)


def test_encoding_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    perception = Agent(settings(), SEEK).modules.perception
    percepts = torch.rand(3, 5, 1, 2, generator=draws())
    whole = perception(percepts)
    monkeypatch.setattr("forethought.agent.health._CHUNK", 4)
    torch.testing.assert_close(encode(perception, percepts), whole)


# ---- prediction


class Walk:
    """A world model that is right about s' = s + a when it listens to the actions."""

    def __init__(self, listens: bool = True) -> None:
        self.listens = listens
        self.actions = ActionEncoder(spaces.Box(-3.0, 3.0, (1,)))

    def rollout(self, state: Any, actions: Tensor) -> Any:
        moves = actions.cumsum(2) if self.listens else torch.zeros_like(actions)
        start = state.latent[:, None, None].expand(-1, actions.shape[1], 1, -1)
        return SimpleNamespace(latent=torch.cat([start, start + moves], dim=2))


def walk(actions: list[float], steps: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of constant steps: latents ``[B, T+1, 1]``, actions ``[B, T, 1]``, all known."""
    action = torch.tensor(actions)[:, None, None].expand(-1, steps, 1)
    latent = torch.cat([torch.zeros(len(actions), 1, 1), action.cumsum(1)], dim=1)
    return latent, action, torch.ones(len(actions), steps)


def test_prediction_errors_of_a_perfect_model() -> None:
    errors = prediction_errors(Walk(), *walk([1.0, -1.0]))  # type: ignore[arg-type]
    assert errors.model == (0, 0, 0, 0)
    assert errors.persistence == (1, 4, 9, 16)
    assert errors.shuffled == (4, 16, 36, 64)  # the other window's actions lead the other way
    assert errors.over_persistence == errors.over_shuffled == (0, 0, 0, 0)


def test_a_model_that_ignores_actions_is_as_good_with_others() -> None:
    errors = prediction_errors(Walk(listens=False), *walk([1.0, 2.0, -1.0]))  # type: ignore[arg-type]
    assert errors.model == errors.persistence == (2, 8, 18, 32)
    assert errors.over_shuffled == (1, 1, 1, 1)


def test_what_follows_the_end_of_an_episode_does_not_count() -> None:
    latent, action, known = walk([1.0, -1.0, 2.0])
    latent[0, 3:], known[0, 2:] = 1e6, 0
    errors = prediction_errors(Walk(), latent, action, known)  # type: ignore[arg-type]
    assert errors.model == (0, 0, 0, 0)
    assert errors.persistence == (2, 8, 9 * 2.5, 16 * 2.5)
    known[:, 3] = 0
    errors = prediction_errors(Walk(), latent, action, known)  # type: ignore[arg-type]
    assert math.isnan(errors.model[3]) and math.isnan(errors.over_persistence[3]) and errors.model[2] == 0


def test_one_window_has_no_other_actions() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        prediction_errors(Walk(), *walk([1.0]))  # type: ignore[arg-type]


# ---- inverse dynamics


def told_by(space: Any, answer: Tensor) -> Any:
    """A model whose inverse head always gives ``answer`` for the pairs in question."""
    return SimpleNamespace(actions=ActionEncoder(space), inverse=lambda pairs: answer)


def test_inverse_dynamics_of_discrete_actions_is_an_accuracy() -> None:
    action = torch.tensor([[0, 1], [2, 2]])
    known = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    logits = torch.eye(3)[torch.tensor([0, 2, 2])]  # for 0, 1 and 2: the transition that is not known is not asked for
    found = inverse_dynamics(told_by(spaces.Discrete(3), logits), torch.zeros(2, 3, 4), action, known)
    assert found is not None
    assert (found.kind, found.score, found.floor) == ("top-1", pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_inverse_dynamics_of_several_components_is_their_mean() -> None:
    action = torch.tensor([[[0, 2], [1, 2]]])
    logits = torch.cat([torch.eye(2)[[0, 0]], torch.eye(3)[[2, 2]]], dim=-1)
    known = torch.ones(1, 2)
    found = inverse_dynamics(told_by(spaces.MultiDiscrete([2, 3]), logits), torch.zeros(1, 3, 4), action, known)
    assert found is not None and found.score == pytest.approx(0.75) and found.floor == pytest.approx(0.75)


def test_inverse_dynamics_of_a_box_is_an_r_squared() -> None:
    action = torch.tensor([[[-2.0], [2.0], [0.0]]])  # −1, 1 and 0 when scaled
    answer = torch.tensor([[-1.0, 9.0], [0.0, 9.0], [0.0, 9.0]])  # mean and, unused, spread
    space = spaces.Box(-2.0, 2.0, (1,))
    found = inverse_dynamics(told_by(space, answer), torch.zeros(1, 4, 4), action, torch.ones(1, 3))
    assert found is not None and (found.kind, found.score, found.floor) == ("R²", pytest.approx(0.5), 0)


def test_without_known_transitions_nothing_is_said_of_the_inverse() -> None:
    model = told_by(spaces.Discrete(3), torch.zeros(0, 3))
    assert inverse_dynamics(model, torch.zeros(2, 3, 4), torch.zeros(2, 2), torch.zeros(2, 2)) is None


def test_r_squared_compares_with_the_mean_of_each_column() -> None:
    target = torch.tensor([[0.0, 1.0, 5.0], [2.0, 3.0, 5.0]])
    scores = r_squared(torch.tensor([[0.0, 2.0, 5.0], [2.0, 2.0, 5.0]]), target)
    assert scores[:2] == [1, 0] and math.isnan(scores[2])


# ---- collapse


def vital_signs(std: float = 1.0, rank: float = 10.0, possible: float = 16.0, over_shuffled: float = 0.4) -> Vitals:
    errors = PredictionErrors((over_shuffled,) * 3, (1.0,) * 3, (1.0,) * 3)
    return Vitals(Spread((std, std, std), rank, possible, 0.1, (1.0,)), errors, None)


@pytest.mark.parametrize(
    "signs",
    [
        {},
        {"std": 0.11},
        {"rank": 2.0},  # low, but the model is not blind to actions
        {"over_shuffled": 1.0},  # blind, but the representation is rich
        {"rank": 2.0, "possible": 2.2, "over_shuffled": 1.0},  # the world has no more to offer
        {"rank": 1.0, "possible": 1.0, "over_shuffled": 1.0},
        {"rank": 1.5, "over_shuffled": math.nan},  # nothing is known about the actions
    ],
)
def test_healthy_signs_are_no_collapse(signs: dict[str, float]) -> None:
    assert collapse(vital_signs(**signs)) is None


@pytest.mark.parametrize(
    ("signs", "said"),
    [
        ({"std": 0.007}, ["standard deviation is 0.007", "below 0.1", "whatever is seen"]),
        (
            {"rank": 2.0, "over_shuffled": 0.96},
            ["effective rank is 2.0", "below 4.8", "offer 16.0", "from the actions"],
        ),
    ],
)
def test_collapsed_signs_are_named_with_value_and_threshold(signs: dict[str, float], said: list[str]) -> None:
    wrong = collapse(vital_signs(**signs))
    assert wrong is not None
    for part in said:
        assert part in wrong, wrong


def test_sight_at_any_distance_is_sight() -> None:
    errors = PredictionErrors((1.0, 1.0, 0.9), (1.0,) * 3, (1.0,) * 3)
    assert collapse(replace(vital_signs(rank=2.0), errors=errors)) is None


def test_a_world_model_that_does_not_predict_yet_is_not_called_blind() -> None:
    blind = vital_signs(rank=2.0, over_shuffled=1.0)
    assert collapse(blind) is not None and collapse(blind, predicts=False) is None
    assert collapse(vital_signs(std=0.007), predicts=False) is not None  # the same whatever is seen: known at once


def test_training_stops_at_the_second_finding_in_a_row_and_says_what_to_do() -> None:
    loss = WorldModelLoss(regulariser_weight=0.01, inverse=0.0)
    stop_if_collapsed(None, "worse", 200, loss)
    stop_if_collapsed("bad", None, 400, loss)
    with pytest.raises(CollapseError) as error:
        stop_if_collapsed("bad", "worse", 400, loss)
    said = str(error.value)
    for part in ("after 400 updates worse", "regulariser_weight (now 0.01, sigreg)", "model_loss.inverse"):
        assert part in said
    assert "bad" not in said
    with pytest.raises(CollapseError) as error:
        stop_if_collapsed("bad", "worse", 400, replace(loss, inverse=0.3))
    assert "inverse" not in str(error.value)  # it is switched on already


# ---- in training


def hear(told: list[tuple[int, dict[str, float]]]) -> Any:
    def report(phase: str, done: int, total: int, metrics: dict[str, float]) -> None:
        if phase == "health":
            told.append((done, dict(metrics)))

    return report


def blind_perception(monkeypatch: pytest.MonkeyPatch) -> None:
    """Perception that gives nearly the same latent for everything, and can still be differentiated."""
    forward = Perception.forward
    monkeypatch.setattr(Perception, "forward", lambda self, observation: 0.01 * forward(self, observation))


def test_a_healthy_run_is_looked_at_regularly_and_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECK_EVERY", 110)
    told: list[tuple[int, dict[str, float]]] = []
    config = settings()
    schedule = replace(config.schedule, prefill_updates=250, final_behaviour_updates=0)
    agent, env = prepare(replace(config, schedule=schedule))
    Trainer(agent, env, hear(told)).run()
    env.close()
    assert [done for done, _ in told] == [110, 220]
    last = told[-1][1]
    assert 0.5 < last["std_mean"] < 1.5 and last["effective_rank"] > 1.5
    assert last["error_over_persistence_1"] < 0.5 and last["error_over_shuffled_1"] < 0.5
    assert {"sigreg", "std_min", "std_max", "rank_use", "error_over_persistence_10"} < last.keys()


def test_looking_leaves_no_trace_in_what_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []
    monkeypatch.setattr(training, "collapse", lambda found, predicts: None)  # so early it would look like one
    for every in (2, 1_000):
        monkeypatch.setattr(training, "CHECK_EVERY", every)
        agent, env = prepare(tiny())
        told: list[tuple[int, dict[str, float]]] = []
        Trainer(agent, env, hear(told)).run()
        env.close()
        assert bool(told) == (every == 2)
        learned.append(fingerprints(agent))
    assert learned[0] == learned[1]


def test_a_collapsed_run_is_stopped_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blind_perception(monkeypatch)
    monkeypatch.setattr(training, "CHECK_EVERY", 2)
    told: list[tuple[int, dict[str, float]]] = []
    with pytest.raises(CollapseError, match=r"after 4 updates the latents' standard deviation is 0\.0"):
        train(tiny(), tmp_path, hear(told))
    assert [done for done, _ in told] == [2, 4]
    assert (tmp_path / "weights.safetensors").is_file() and any((tmp_path / "checkpoints").glob("*/manifest.json"))
    assert '"finished": false' in (tmp_path / "progress.json").read_text()


def test_training_asks_for_predictions_only_when_they_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(training, "collapse", lambda found, predicts: asked.append(predicts))
    monkeypatch.setattr(training, "CHECK_EVERY", 2)
    config = tiny()
    config = replace(
        config, model_loss=replace(config.model_loss, prediction_delay=2),
        schedule=replace(config.schedule, prefill_updates=8, rounds=0),
    )  # fmt: skip
    agent, env = prepare(config)
    Trainer(agent, env, hear([])).run()
    env.close()
    assert asked == [False, True, True, True]


def test_a_finished_run_ends_with_the_whole_check_up(tmp_path: Path) -> None:
    told: list[tuple[int, dict[str, float]]] = []
    train(tiny(), tmp_path, hear(told))
    done, last = told[-1]
    assert done == 14 and {"auroc_teleported", "auroc_shifted", "auroc_other_action", "probe"} < last.keys()
