"""The network shape that the actor and the critic share."""

from __future__ import annotations

from torch import nn


def zero_headed_mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two normalised hidden layers and an output that starts at zero, so that nothing is claimed before learning."""
    output = nn.Linear(hidden, outputs)
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LayerNorm(hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.LayerNorm(hidden),
        nn.SiLU(),
        output,
    )
