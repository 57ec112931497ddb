"""Fixtures for tests that train."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forethought.agent import run
from forethought.agent.training import Trainer

from .point import point_settings


@pytest.fixture(scope="session")
def point_trainer() -> Trainer:
    """A finished life in `Point`; whoever changes its agent copies it first."""
    agent, env = run.prepare(point_settings())
    trainer = Trainer(agent, env, lambda *_: None)
    trainer.run()
    env.close()
    return trainer


@pytest.fixture
def short_check_up() -> Iterator[None]:
    """The check-up at the end of a training is kept short where it is not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "DECISIONS", 128)
        yield
