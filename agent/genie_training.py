"""Learning a Genie world from video: tokenizer, latent actions, dynamics, and outcomes where there are labels.

The dynamics never sends a gradient into the latent action model (Genie's stop-gradient), so nothing is lost by training
them one after the other, and much is saved: tokens and latent actions are computed once and kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..modules.genie.files import PARTS, load_part, save_part, save_prompts, save_settings
from ..modules.genie.patches import to_unit
from ..modules.genie.quantisers import perplexity
from ..modules.genie.transformer import compiled, precision
from ..modules.genie.video import VideoDataset
from ..modules.genie.world import Genie
from .agent import pick_device
from .checkpoint import load_optimiser, optimiser_tensors, part, prefixed
from .descent import descend, named
from .genie_settings import GenieTraining, check_training
from .genie_windows import Cached, Told, drawn_weights, some_clips, step_weights, tell, thin
from .storage import generator_from, generator_tensor

Report = Callable[[str, int, int, Mapping[str, float]], None]
"""Told of every update: phase, updates done and wanted, numbers."""
PHASES = ("tokenizer", "latent actions", "dynamics", "outcomes")
_CHUNK = 64  # windows encoded at once


class GenieTrainer:
    """Trains the parts of a world one after the other and leaves them in a folder.

    After each update it can be saved (`state`) and left, and another trainer with the same settings and data that is
    given this state (`restore`) goes on to the very same end.

    Attributes:
        stage: Parts that are learned.
        done: Updates of the present part.
        pause: Called after each update.

    Args:
        config: Settings.
        data: Video to learn from.
        folder: Of the world.
        report: Told of every update.

    Raises:
        ValueError: Settings that do not fit each other or the data.
    """

    def __init__(self, config: GenieTraining, data: VideoDataset, folder: Path, report: Report) -> None:
        check_training(config, data)
        self.config, self.data, self.folder, self.report = config, data, folder, report
        self.device = pick_device(config.device)
        self.numbers = np.random.default_rng(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.world = Genie(config.world).to(self.device)
        self.stage = self.done = 0
        self.pause: Callable[[], None] = lambda: None
        self.optimiser: torch.optim.Optimizer | None = None
        self.averages: dict[str, Tensor] = {}  # of the optimiser that was left

    def run(self, about: dict[str, Any], keep: bool = False) -> Genie:
        """Train what is to be trained, from wherever it was left.

        Args:
            about: Where the world comes from, for `world.json`.
            keep: Read parts whose weights are in the folder instead of learning them.
        """
        save_settings(self.folder, self.config.world, about)
        learn = {
            "tokenizer": self.learn_tokenizer, "latent_action": self.learn_latent_actions,
            "dynamics": self.learn_dynamics, "outcomes": self.learn_outcomes,
        }  # fmt: skip
        while self.stage < len(self.parts):
            name, network = list(self.parts.items())[self.stage]
            path = self.folder / f"{name}.safetensors"
            if keep and path.is_file():
                load_part(path, network)
            else:
                learn[name]()
                save_part(self.folder, name, network.eval())
            self.stage += 1
        return self.world.eval()

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What is to be learned, in this order: true actions need no latent ones, and outcomes are learned if asked."""
        left_out = {"latent_action": self.config.true_actions, "outcomes": not self.config.updates.outcomes}
        return {name: getattr(self.world, name) for name in PARTS if not left_out.get(name)}

    def take_tokenizer(self, path: Path) -> None:
        """Begin with the tokenizer of another world instead of learning one.

        Raises:
            FileNotFoundError: There is none.
            ValueError: The file is damaged or holds other weights.
        """
        load_part(path, self.world.tokenizer)
        save_part(self.folder, "tokenizer", self.world.tokenizer.eval())
        self.stage = 1

    def state(self) -> dict[str, Tensor]:
        """All that the future of the training depends on, besides settings and data."""
        state = {"stage": torch.tensor(self.stage), "done": torch.tensor(self.done)}
        state |= {"numbers": generator_tensor(self.numbers), "generator": self.generator.get_state()}
        if self.optimiser is not None:
            state |= optimiser_tensors("optimiser", self.optimiser)
        return state | prefixed("world", self.world.state_dict())

    def restore(self, state: dict[str, Tensor]) -> None:
        """Undo `state`, in a fresh trainer.

        Raises:
            ValueError: The state does not fit.
        """
        self.stage, self.done = int(state["stage"]), int(state["done"])
        if not 0 <= self.stage <= len(self.parts) or self.done < 0:
            raise ValueError(f"it has {self.stage} parts and {self.done} updates")
        self.numbers = generator_from(state["numbers"])
        self.generator.set_state(state["generator"])
        self.world.load_state_dict(part(state, "world"))
        self.averages = {name: tensor for name, tensor in state.items() if name.startswith("optimiser.")}
        if self.averages:  # those of other parameters show now
            learning = list(self.parts.values())[self.stage]
            load_optimiser("optimiser", torch.optim.AdamW(learning.parameters()), self.averages)

    def windows(self, frames: int) -> Callable[[], Tensor]:
        """Draws batches of windows ``[B, frames, H, W, 3]`` in [0, 1]."""
        starts = self.data.starts(frames)

        def draw() -> Tensor:
            chosen = starts[self.numbers.integers(len(starts), size=self.config.updates.batch)]
            return to_unit(torch.from_numpy(self.data.read(chosen, frames)).to(self.device))

        return draw

    def learn_tokenizer(self) -> None:
        """Reconstruct frames."""
        tokenizer, draw = self.world.tokenizer, self.windows(self.config.updates.frames)

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            frames = draw()
            total, codes, drawn = tokenizer.loss(frames, self.generator)
            error = float((drawn.detach() - frames).square().mean())
            return total, {
                "psnr": -10 * math.log10(max(error, 1e-10)),
                "codes": float(codes.flatten().bincount().count_nonzero()),
            }

        self.optimise("tokenizer", tokenizer, self.config.updates.tokenizer, loss)

    def learn_latent_actions(self) -> None:
        """Agree on a few codes for what happens between frames."""
        model, updates = self.world.latent_action, self.config.updates
        draw, warmup = (
            self.windows(updates.frames),
            round(updates.latent_action * self.world.latent_action.config.warmup),
        )

        few = self.labelled_steps()

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            if step == warmup and warmup:
                with torch.no_grad():
                    sample = torch.cat(
                        [model.vectors(draw()).flatten(0, 1) for _ in range(max(1, 1024 // updates.batch))]
                    )
                model.quantiser.place(sample, self.generator)
            told = model.loss(draw(), self.generator, quantise=step >= warmup)
            used, spread = perplexity(told.codes, self.world.actions)
            numbers = {"error": float(told.error.detach()), "perplexity": spread, "usage": used}
            if few is None:
                return told.loss, numbers
            chosen = self.numbers.integers(len(few[1]), size=min(4 * updates.batch, len(few[1])))  # single steps: cheap
            naming = model.naming_loss(few[0][chosen].to(self.device), few[1][chosen].to(self.device))
            return told.loss + updates.label_weight * naming, {**numbers, "naming": float(naming.detach())}

        self.optimise("latent actions", model, updates.latent_action, loss)

    def labelled_steps(self) -> tuple[Tensor, Tensor] | None:
        """The few steps whose true actions are told: frames ``[N, 2, H, W, 3]`` in [0, 1] and actions ``[N]``."""
        if not self.config.updates.labels:
            return None
        starts = self.data.starts(2)
        drawn = np.random.default_rng(self.config.seed).permutation(len(starts))[: self.config.updates.labels]
        truth = torch.from_numpy(self.data.read_label("actions", starts[drawn], 2)[:, 0])
        return to_unit(torch.from_numpy(self.data.read(starts[drawn], 2))), truth

    def learn_dynamics(self) -> None:
        """Foretell tokens from past tokens and actions."""
        dynamics, cached, batch = self.world.dynamics, self.cached, self.config.updates.batch

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            chosen = torch.from_numpy(self.numbers.integers(len(cached.tokens), size=batch))
            tokens, actions = cached.tokens[chosen].to(self.device), cached.actions[chosen].to(self.device)
            entropy, accuracy = dynamics.loss(tokens, actions, self.generator)
            return entropy, {"entropy": float(entropy.detach()), "accuracy": float(accuracy)}

        self.optimise("dynamics", dynamics, self.config.updates.dynamics, loss)

    def learn_outcomes(self) -> None:
        """Foretell rewards and endings from the frames that the dynamics has understood.

        Half of a batch are windows with an event, or rare events would be learned last; windows weigh as often as they
        come (importance sampling), and steps alike however many windows hold them, or the heads would believe in more
        or fewer events than there are. A step is read twice, as the code of what was seen to happen and as that of what
        was meant: what a button does where it cannot do what it mostly does, no code of the first kind ever tells.
        """
        heads, told, batch = self.world.outcomes, self.told(), self.config.updates.batch
        read = torch.stack([told.codes, told.meant])  # 2, n, T
        known = read >= 0
        event = (((told.rewards != 0) | (told.ended > 0)) & known.any(0)).any(1)
        eventful = torch.from_numpy(np.flatnonzero(event.numpy()))
        extra = batch // 2 if len(eventful) else 0
        counts = torch.stack([step_weights(told.starts, each) for each in known])
        weights = drawn_weights(event, extra, batch).unsqueeze(1) * counts

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            chosen = torch.from_numpy(self.numbers.integers(len(event), size=batch))
            if extra:
                chosen[:extra] = eventful[torch.from_numpy(self.numbers.integers(len(eventful), size=extra))]
            tokens, codes = told.tokens[chosen].to(self.device), read[:, chosen].to(self.device)
            with torch.no_grad():
                _, hidden = self.world.dynamics.predict(tokens, tokens[:, 1:], codes[0, :, :-1])
            patches = hidden.float()
            reward, ending = heads(patches.expand(2, *patches.shape), codes.clamp(min=0))
            counted, steps = weights[:, chosen].to(self.device), known[:, chosen].sum()
            rewards, ended = (part[chosen].to(self.device).expand(codes.shape) for part in (told.rewards, told.ended))
            felt = heads.two_hot.loss(reward, rewards)
            ends = F.binary_cross_entropy_with_logits(ending, ended, reduction="none")
            felt, ends = (counted * felt).sum() / steps, (counted * ends).sum() / steps
            return felt + ends, {"reward": float(felt.detach()), "ending": float(ends.detach())}

        self.optimise("outcomes", heads, self.config.updates.outcomes, loss)

    def told(self) -> Told:
        """Windows whose outcomes are known, those that end with an episode among them.

        Raises:
            ValueError: The data has no rewards.
        """
        starts = self.data.starts(self.config.world.context)
        final = starts[self.data.read_label("ended", starts, self.config.world.context)[:, -1]]
        told = tell(self.data, self.cached, self.encode(final), self.world.actions)
        return some_clips(told, self.data, self.config.updates.told_clips, self.config.seed)

    @cached_property
    def cached(self) -> Cached:
        """Tokens and actions of the training windows, computed once, when tokenizer and latent actions are done."""
        return self.cache()

    def cache(self) -> Cached:
        """Tokens and actions of the training windows, half a window apart."""
        steps = self.config.world.context
        return self.encode(thin(self.data.starts(steps), max(1, steps // 2)))

    @torch.no_grad()
    def encode(self, starts: NDArray[np.int64]) -> Cached:
        """Tokens and actions of the windows that begin at ``starts [n, 2]``."""
        steps = self.config.world.context
        tokens = [torch.zeros(0, steps, self.world.tokenizer.tokens, dtype=torch.long)]
        actions = [torch.zeros(0, steps - 1, dtype=torch.long)]
        self.world.eval()
        for begin in range(0, len(starts), _CHUNK):
            chosen = starts[begin : begin + _CHUNK]
            frames = to_unit(torch.from_numpy(self.data.read(chosen, steps)).to(self.device))
            with precision(self.device):
                tokens.append(self.world.tokenizer.encode(frames).cpu())
                if not self.config.true_actions:
                    actions.append(self.world.latent_action.encode(frames).cpu())
            self.report("tokens", min(begin + _CHUNK, len(starts)), len(starts), {})
        if self.config.true_actions and len(starts):
            actions.append(torch.from_numpy(self.data.read_label("actions", starts, steps - 1)))
        return Cached(torch.cat(tokens), torch.cat(actions), starts)

    def optimise(
        self, phase: str, part: nn.Module, updates: int, loss_of: Callable[[int], tuple[Tensor, dict[str, float]]]
    ) -> None:
        """AdamW on a part's loss, from the update that the part was left at.

        Raises:
            FloatingPointError: The loss or a gradient is no longer a number.
        """
        part.train()
        rate = self.config.updates.learning_rate
        optimiser = torch.optim.AdamW(named(phase, part), rate, betas=(0.9, 0.99), weight_decay=1e-4)
        load_optimiser("optimiser", optimiser, self.averages)
        self.optimiser, self.averages = optimiser, {}
        with compiled(part) if self.config.compile else nullcontext():
            for step in range(self.done, updates):
                for group in optimiser.param_groups:
                    group["lr"] = rate * min(1.0, (step + 1) / (0.05 * updates)) * anneal(step / updates)
                with precision(self.device):
                    loss, numbers = loss_of(step)
                if not math.isfinite(float(loss.detach())):
                    raise FloatingPointError(
                        f"the loss of the {phase} is {float(loss.detach())} at update {step}; lower the learning rate"
                    )
                descend(optimiser, loss, limit=1.0)
                self.done = step + 1
                self.report(phase, step + 1, updates, {"loss": float(loss.detach()), **numbers})
                self.pause()
        self.done, self.optimiser = 0, None
        part.eval()


def anneal(done: float, floor: float = 0.05) -> float:
    """Cosine from 1 to ``floor`` as ``done`` goes from 0 to 1."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def keep_prompts(config: GenieTraining, data: VideoDataset, folder: Path) -> None:
    """Save clips for dreams to begin with, spread over the data."""
    starts = data.starts(config.prompt_frames)
    chosen = np.linspace(0, len(starts) - 1, min(config.prompts, len(starts))).round().astype(np.int64)
    save_prompts(folder, data.read(starts[chosen], config.prompt_frames))
