"""From latent actions to real ones, learned from a few labelled steps.

The dictionary is Genie's (2402.15391, section 3.3): which real actions were seen with a code. The decoder looks at the
frame as well, as LAPO's does (2312.10812): the same code may need another button elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ActionDictionary:
    """How often each real action was seen with each code.

    Args:
        codes: Latent actions |A|.
        actions: Real actions.
    """

    def __init__(self, codes: int, actions: int) -> None:
        self.counts = torch.zeros(codes, actions, dtype=torch.long)

    def learn(self, codes: Tensor, actions: Tensor) -> None:
        """Add labelled steps ``[n]``."""
        self.counts.index_put_((codes.cpu(), actions.cpu()), torch.ones(len(codes), dtype=torch.long), accumulate=True)

    def probabilities(self, codes: Tensor) -> Tensor:
        """Chances of real actions ``[n, actions]``; of a code that was never seen, those of all steps together."""
        seen = self.counts[codes.cpu()].double()
        seen = torch.where(seen.sum(-1, keepdim=True) > 0, seen, self.counts.sum(0).double() + 1e-9)
        return (seen / seen.sum(-1, keepdim=True)).to(codes.device)

    def draw(self, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Real actions ``[n]``, as often as they were seen with the codes."""
        return torch.multinomial(self.probabilities(codes), 1, generator=generator).squeeze(-1)

    def likeliest(self, codes: Tensor) -> Tensor:
        """The real action seen most often with each code ``[n]``."""
        return self.probabilities(codes).argmax(-1)


class ActionDecoder(nn.Module):
    """Real actions from a code and what the dynamics makes of the frame at hand.

    Args:
        features: Width of `Dream.features`.
        codes: Latent actions |A|.
        actions: Real actions.
        hidden: Hidden units.
    """

    def __init__(self, features: int, codes: int, actions: int, hidden: int = 64) -> None:
        super().__init__()
        self.codes = codes
        self.norm = nn.LayerNorm(features)
        self.trunk = nn.Sequential(nn.Linear(features + codes, hidden), nn.SiLU(), nn.Linear(hidden, actions))

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        """Logits ``[n, actions]`` from features ``[n, D]`` and codes ``[n]``."""
        logits: Tensor = self.trunk(torch.cat([self.norm(features), F.one_hot(codes, self.codes).to(features)], -1))
        return logits

    def learn(
        self, features: Tensor, codes: Tensor, actions: Tensor, generator: torch.Generator, updates: int = 300
    ) -> None:
        """Cross-entropy on labelled steps ``[n]``, in batches of at most 64, with weight decay against few labels."""
        optimiser = torch.optim.AdamW(self.parameters(), 3e-3, weight_decay=0.1)
        for _ in range(updates):
            chosen = torch.randint(len(codes), (min(64, len(codes)),), generator=generator)
            loss = F.cross_entropy(self(features[chosen], codes[chosen]), actions[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
