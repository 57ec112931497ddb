"""Recall: a world that only an agent with a memory can solve, small enough to be learned in seconds.

First each of S symbols is shown once, in any order, half of them on the left and half on the right. Then comes a wait
without anything to see. At last one of the symbols is shown alone, and the agent says on which side it was: reward 1 if
that is right, −1 if not, and the episode ends. What it does before does not matter. Without a memory of which symbol
was on which side nothing beats chance, whose mean return is 0; a mean of all that was seen is always the same and does
not help.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Observation = NDArray[np.float32]


class RecallEnv(gymnasium.Env[Observation, np.int64]):
    """Symbols and sides, a wait, a question.

    The observation is a vector of S + 3: the symbol (one of S), the side that it is on (left or right; in a question
    neither), and 1 where it is a question. Actions: 0 left, 1 right.

    Args:
        symbols: S, an even number.
        wait: Steps between the last symbol and the question.
        render_mode: None; there is nothing to be drawn.

    Raises:
        ValueError: An odd number of symbols, or a negative wait.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (as Gymnasium declares it)

    def __init__(self, symbols: int = 2, wait: int = 2, render_mode: str | None = None) -> None:
        if symbols < 2 or symbols % 2 or wait < 0:
            raise ValueError(f"{symbols} symbols and a wait of {wait} steps; expected 2, 4 … and a wait from 0")
        self.symbols, self.wait, self.render_mode = symbols, wait, render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (symbols + 3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.order, self.sides, self.asked, self.steps = np.arange(symbols), np.zeros(symbols, np.int64), 0, 0

    @property
    def _question(self) -> bool:
        return self.steps == self.symbols + self.wait

    def _observe(self) -> Observation:
        seen = np.zeros(self.symbols + 3, np.float32)
        if self.steps < self.symbols:
            symbol = self.order[self.steps]
            seen[symbol] = seen[self.symbols + self.sides[symbol]] = 1.0
        elif self._question:
            seen[self.asked] = seen[-1] = 1.0
        return seen

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw order, sides and question."""
        super().reset(seed=seed)
        draws = self.np_random
        self.order, self.sides = draws.permutation(self.symbols), draws.permutation(self.symbols) % 2
        self.asked, self.steps = int(draws.integers(self.symbols)), 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Show what comes next; judge the answer to the question."""
        if self._question:
            right = int(action) == self.sides[self.asked]
            return self._observe(), 1.0 if right else -1.0, True, False, {"is_success": bool(right)}
        self.steps += 1
        return self._observe(), 0.0, False, False, {"is_success": False}
