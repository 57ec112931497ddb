"""Fixtures for tests that train."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forethought.agent import run


@pytest.fixture
def short_check_up() -> Iterator[None]:
    """The check-up at the end of a training is kept short where it is not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "DECISIONS", 128)
        yield
