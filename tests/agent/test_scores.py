"""Published numbers that come along."""

from __future__ import annotations

import numpy as np
import pytest
from forethought.agent.scores import Normalisation, game_of, normalisation, published_ppo
from forethought.envs.procgen import GAMES


def test_normalisation_is_the_papers() -> None:
    coinrun = normalisation("procgen:coinrun")
    assert coinrun == Normalisation(5, 10, 2.76)
    assert coinrun(np.array([5.0, 7.5, 10.0, 2.5])).tolist() == [0, 0.5, 1, -0.5]
    assert normalisation("forethought/procgen-starpilot-v0", "hard") == Normalisation(1.5, 35, 0.85)
    for game in GAMES:
        for mode in ("easy", "hard"):
            found = normalisation(f"procgen:{game}", mode)
            assert found is not None and found.low < found.high and found.random < found.high


def test_worlds_without_published_numbers_have_none() -> None:
    assert normalisation("CartPole-v1") is None and published_ppo("CartPole-v1") == ()
    assert normalisation("procgen:coinrun", "memory") is None and published_ppo("procgen:coinrun", "hard") == ()
    assert game_of("CartPole-v1") is None and game_of("procgen:maze") == "maze"


def test_curves_are_those_of_train_procgen() -> None:
    curve = published_ppo("procgen:fruitbot")
    assert [point.steps for point in curve] == [500_000, *(n * 1_000_000 for n in (1, 2, 5, 10, 25, 50))]
    assert (curve[5].train, curve[5].unseen) == pytest.approx((29.60, 26.55), abs=0.005)
    # Normalised mean over all games at 25 M steps, as the sum of the single numbers says
    scores = [
        [norm(np.array([point.train, point.unseen])) for point in published_ppo(f"procgen:{game}")]
        for game in GAMES
        if (norm := normalisation(f"procgen:{game}"))
    ]
    assert np.mean(scores, axis=0)[5] == pytest.approx([0.598, 0.354], abs=5e-4)
