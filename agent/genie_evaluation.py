"""The report card of a Genie world: does the picture last, do the actions matter, and what do they mean?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modules.genie.latent_action import shuffled_loss
from ..modules.genie.patches import to_unit
from ..modules.genie.quantisers import perplexity
from ..modules.genie.sampler import Sampling, draw_noise
from ..modules.genie.transformer import precision
from ..modules.genie.video import UNKNOWN, VideoDataset
from ..modules.genie.world import Genie
from .genie_metrics import best_matching, contingency, majority, mutual_information, psnr, ssim
from .genie_motion import Motion, motions, view_shifts
from .genie_speed import Speed, measure_speed
from .statistics import Interval, mean_interval

Progress = Callable[[int, int], None]
_CHUNK = 16  # clips dreamed at once


@dataclass(frozen=True)
class Examination:
    """On what a world is measured."""

    clips: int = 64
    """Test clips, of which each gives one roll-out."""
    prompt_frames: int = 2
    """True frames that a roll-out begins with."""
    steps: int = 10
    """Frames dreamed after them."""
    sampling_steps: int = 0
    """MaskGIT steps per frame; 0: the world's own."""
    temperature: float = -1.0
    """Sampling temperature; negative: the world's own."""
    starts: int = 6
    """Start frames of the picture grid."""
    grid_steps: int = 4
    """Steps for which the grid repeats each code."""
    seed: int = 0
    """Draws clips, random actions and sampling noise."""


@dataclass(frozen=True)
class Card:
    """What was measured; PSNR in dB, each number the mean over clips with its 95 % interval.

    Attributes:
        tokenizer: PSNR and SSIM of frames that went through the tokenizer.
        rollout: PSNR by step under inferred actions.
        similarity: SSIM by step.
        random: PSNR by step under random actions, with the same sampling noise.
        copied: PSNR by step of the last true frame, copied.
        copied_similarity: SSIM by step of that.
        gain: PSNR by step of the roll-out under inferred actions − that of the copied frame, clip by clip.
        similarity_gain: The same of SSIM.
        delta: Δ_t PSNR by step: rollout − random, clip by clip.
        shuffle_ratio: Error of the latent action model's decoder with shuffled actions, divided by that with its own.
        entropy: Dynamics' cross-entropy per token with inferred actions and with shuffled ones.
        usage: Share of codes in use, and exp(entropy) of their frequencies.
        agreement: Best one-to-one matching with true actions, NMI, accuracy of a dictionary (code to its commonest
            action, made on one half and tried on the other), and the commonest action's share; None without labels.
        meanings: Counts ``[codes, true actions]``, or None.
        motions: How the view moves with each code, in true steps and in dreams of ``grid_steps`` steps.
        milliseconds: A step of the environment with one dream; None where the world's folder was not given.
        grid: Frames uint8 ``[starts, 1 + codes, H, W, 3]``: the start, and after some steps of each code.
        film: uint8 ``[3, T, H, W, 3]``: truth, inferred actions, random actions of the first clip.
        twin: The same of a twin whose dynamics hears true actions: what latent ones cost; None where none was given.
    """

    tokenizer: tuple[Interval, Interval]
    rollout: list[Interval]
    similarity: list[Interval]
    random: list[Interval]
    copied: list[Interval]
    copied_similarity: list[Interval]
    gain: list[Interval]
    similarity_gain: list[Interval]
    delta: list[Interval]
    shuffle_ratio: float
    entropy: tuple[float, float]
    usage: tuple[float, float]
    agreement: dict[str, float] | None
    meanings: NDArray[np.int64] | None
    motions: list[Motion]
    milliseconds: Speed | None
    grid: NDArray[np.uint8]
    film: NDArray[np.uint8]
    twin: Curves | None = None


@dataclass(frozen=True)
class Curves:
    """What is told of a world and of its twin on the same clips, as in `Card`; the copied frame is the same."""

    rollout: list[Interval]
    similarity: list[Interval]
    gain: list[Interval]
    similarity_gain: list[Interval]
    delta: list[Interval]
    entropy: tuple[float, float]


@torch.no_grad()
def examine_world(
    world: Genie,
    data: VideoDataset,
    settings: Examination,
    device: torch.device,
    progress: Progress | None = None,
    twin: Genie | None = None,
    folder: Path | None = None,
) -> Card:
    """Measure a world on test clips.

    Args:
        world: In evaluation mode, on ``device``.
        data: The test split.
        settings: On what.
        device: Where the world is.
        progress: Told of clips.
        twin: Its true-action twin, measured on the same clips; needs data with true actions.
        folder: Where the world lies, for its environment to be timed; None: it is not.

    Raises:
        FileNotFoundError: A part of the world is missing in the folder.
        ValueError: Numbers out of range, clips of another size or too short, or a twin that does not fit the data.
    """
    check_examination(settings, world)
    data.need_size(world.config.height, world.config.width)
    if twin is not None:
        check_twin(twin, world, data)
    sampling = world.sampling_with(settings.sampling_steps, settings.temperature)
    length = settings.prompt_frames + settings.steps
    starts = data.starts(length)
    numbers = np.random.default_rng(settings.seed)
    chosen = starts[numbers.choice(len(starts), size=min(settings.clips, len(starts)), replace=False)]
    generator = torch.Generator().manual_seed(settings.seed)
    told = _measure(world, data, chosen, settings, sampling, generator, device, progress)
    table, own, other = told.table, _curves(told), None
    if twin is not None:
        other = _curves(_measure(twin, data, chosen, settings, sampling, generator, device, None, true_actions=True))
    prompts = data.read(chosen[:_CHUNK], settings.prompt_frames)
    speed = None if folder is None else measure_speed(folder, prompts, sampling, device, settings.seed)
    pixels = to_unit(torch.from_numpy(data.read(chosen[:_CHUNK], length)).to(device))
    fitting, shuffled = shuffled_loss(world.latent_action, pixels, generator)
    agreement, meanings = _meanings(told.codes.numpy(), data, chosen, length)
    dreams = repeat_codes(world, data, chosen[: max(_CHUNK, settings.starts)], settings, sampling, device)
    return Card(
        tokenizer=(mean_interval(table["psnr"]), mean_interval(table["ssim"])),
        rollout=own.rollout,
        similarity=own.similarity,
        random=_by_step(table["random"]),
        copied=_by_step(table["copied"]),
        copied_similarity=_by_step(table["copied similar"]),
        gain=own.gain,
        similarity_gain=own.similarity_gain,
        delta=own.delta,
        shuffle_ratio=shuffled / max(fitting, 1e-12),
        entropy=own.entropy,
        usage=perplexity(told.codes, world.actions),
        agreement=agreement,
        meanings=meanings,
        motions=_motions(data, chosen, told.codes, dreams),
        milliseconds=speed,
        grid=draw_grid(data, chosen[: settings.starts], settings.prompt_frames, dreams),
        film=told.film,
        twin=other,
    )


def _curves(told: _Measured) -> Curves:
    """Differences are taken clip by clip, so that clips which are easy for both do not widen their intervals."""
    table = told.table
    return Curves(
        rollout=_by_step(table["rollout"]),
        similarity=_by_step(table["similar"]),
        gain=_by_step(table["rollout"] - table["copied"]),
        similarity_gain=_by_step(table["similar"] - table["copied similar"]),
        delta=_by_step(table["rollout"] - table["random"]),
        entropy=told.entropy,
    )


@dataclass(frozen=True)
class _Measured:
    """Numbers of each clip and step ``[n]`` or ``[n, T]``, codes ``[n, F+T-1]``, cross-entropies and a film."""

    table: dict[str, NDArray[np.float64]]
    codes: Tensor
    entropy: tuple[float, float]
    film: NDArray[np.uint8]


def _measure(
    world: Genie,
    data: VideoDataset,
    chosen: NDArray[np.int64],
    settings: Examination,
    sampling: Sampling,
    generator: torch.Generator,
    device: torch.device,
    progress: Progress | None,
    true_actions: bool = False,
) -> _Measured:
    """Dream on from the chosen clips, a few at a time, under inferred actions or true ones."""
    prompt = settings.prompt_frames
    length = prompt + settings.steps
    truths = torch.from_numpy(data.read_label("actions", chosen, length - 1)).to(device) if true_actions else None
    choices = torch.arange(world.actions) if truths is None else torch.from_numpy(np.unique(truths.cpu().numpy()))
    rows: dict[str, list[Tensor]] = {}
    codes: list[Tensor] = []
    losses: list[Tensor] = []
    film = np.zeros(0, np.uint8)
    for begin in range(0, len(chosen), _CHUNK):
        frames = to_unit(torch.from_numpy(data.read(chosen[begin : begin + _CHUNK], length)).to(device))
        with precision(device):
            actions = world.latent_action.encode(frames) if truths is None else truths[begin : begin + _CHUNK]
            dreamed = _dream(world, frames, actions, prompt, sampling, choices, generator)
            losses.append(_entropies(world, dreamed.tokens, dreamed.actions, generator))
        truth = frames[:, prompt:]
        last = frames[:, prompt - 1 : prompt].expand_as(truth)
        for name, value in (
            ("psnr", psnr(dreamed.decoded, frames).mean(1)),
            ("ssim", ssim(dreamed.decoded, frames).mean(1)),
            ("rollout", psnr(dreamed.inferred, truth)),
            ("similar", ssim(dreamed.inferred, truth)),
            ("random", psnr(dreamed.random, truth)),
            ("copied", psnr(last, truth)),
            ("copied similar", ssim(last, truth)),
        ):
            rows.setdefault(name, []).append(value.float().cpu())
        codes.append(dreamed.actions.cpu())
        if not len(film):
            film = np.stack([_bytes(clip[0]) for clip in (truth, dreamed.inferred, dreamed.random)])
        if progress is not None:
            progress(min(begin + _CHUNK, len(chosen)), len(chosen))
    own, shuffled = (float(value) for value in torch.stack(losses).mean(0))
    table = {name: torch.cat(parts).double().numpy() for name, parts in rows.items()}
    return _Measured(table, torch.cat(codes), (own, shuffled), film)


def _by_step(values: NDArray[np.float64]) -> list[Interval]:
    """Mean and interval over clips of each step, from ``[clips, T]``."""
    return [mean_interval(column) for column in values.T]


@dataclass(frozen=True)
class _Dreamed:
    """Clips and their dreams: ``tokens [B, F+T, N]``, ``actions [B, F+T-1]``, frames ``[B, T or F+T, H, W, 3]``."""

    tokens: Tensor
    actions: Tensor
    decoded: Tensor
    inferred: Tensor
    random: Tensor


def _dream(
    world: Genie,
    frames: Tensor,
    actions: Tensor,
    prompt: int,
    sampling: Sampling,
    choices: Tensor,
    generator: torch.Generator,
) -> _Dreamed:
    """Roll clips ``[B, F+T, H, W, 3]`` out from their first ``prompt`` frames.

    Once under their actions ``[B, F+T-1]``, and once under others drawn from the choices.
    """
    device = frames.device
    tokens = world.tokenizer.encode(frames)
    given, within, taken = tokens[:, :prompt], actions[:, : prompt - 1], actions[:, prompt - 1 :]
    noise = torch.stack(
        [draw_noise([generator] * len(frames), sampling.steps, tokens.shape[2]) for _ in range(taken.shape[1])]
    ).to(device)
    other = choices[torch.randint(len(choices), taken.shape, generator=generator)].to(device)
    inferred = world.rollout(given, within, taken, noise, sampling).float()
    random = world.rollout(given, within, other, noise, sampling).float()
    return _Dreamed(tokens, actions, world.tokenizer.decode(tokens).float(), inferred, random)


def _entropies(world: Genie, tokens: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy ``[2]`` with all of the new frame masked: under inferred actions, and under shuffled ones."""
    given = torch.full_like(tokens[:, 1:], world.dynamics.mask)
    order = torch.randperm(actions.numel(), generator=generator).to(actions.device)
    values = []
    for chosen in (actions, actions.reshape(-1)[order].reshape(actions.shape)):
        logits, _ = world.dynamics.predict(tokens, given, chosen)
        values.append(torch.nn.functional.cross_entropy(logits.flatten(0, 2).float(), tokens[:, 1:].flatten()))
    return torch.stack(values).cpu()


def _meanings(
    codes: NDArray[np.int64], data: VideoDataset, starts: NDArray[np.int64], length: int
) -> tuple[dict[str, float] | None, NDArray[np.int64] | None]:
    """How codes ``[n, T]`` go with true actions, where these are known."""
    truth = data.read_label("actions", starts, length - 1)
    if (truth == UNKNOWN).any():
        return None, None
    counts = contingency(codes, truth)
    half = len(codes) // 2
    known = dict(enumerate(majority(contingency(codes[:half], truth[:half])))) if half else {}
    tried = np.vectorize(lambda code: known.get(int(code), UNKNOWN), otypes=[np.int64])(codes[half:])
    matching = best_matching(counts) if min(counts.shape) <= 12 else float("nan")
    return {
        "matching": matching,
        "nmi": mutual_information(counts),
        "dictionary": float((tried == truth[half:]).mean()),
        "commonest": float(counts.sum(0).max() / counts.sum()),
    }, counts


def _motions(data: VideoDataset, starts: NDArray[np.int64], codes: Tensor, dreams: Sequence[Tensor]) -> list[Motion]:
    """Codes ``[n, T]`` of the true steps of clips, and dreams of each code alone."""
    truth = to_unit(torch.from_numpy(data.read(starts, codes.shape[1] + 1)))
    shifts = view_shifts(truth[:, :-1].flatten(0, 1), truth[:, 1:].flatten(0, 1))
    dreamed = [view_shifts(dream[:, :-1].flatten(0, 1), dream[:, 1:].flatten(0, 1)) for dream in dreams]
    return motions(shifts, codes.flatten().numpy(), np.stack(dreamed), len(dreams))


@torch.no_grad()
def repeat_codes(
    world: Genie,
    data: VideoDataset,
    starts: NDArray[np.int64],
    settings: Examination,
    sampling: Sampling,
    device: torch.device,
) -> list[Tensor]:
    """Dreams of each code alone, from each start: for each code ``[starts, 1 + grid_steps, H, W, 3]``, as drawn.

    The codes share the sampling noise of a start, so that their dreams differ by the code alone.
    """
    prompts = to_unit(torch.from_numpy(data.read(starts, settings.prompt_frames)).to(device))
    generators = [torch.Generator().manual_seed(settings.seed + row) for row in range(len(prompts))]
    steps = [draw_noise(generators, sampling.steps, world.tokenizer.tokens) for _ in range(settings.grid_steps)]
    noise = torch.stack(steps).to(device)
    dreams = []
    with precision(device):
        tokens, actions = world.infer(prompts)
        first = world.tokenizer.decode(tokens)[:, -1:]
        for code in range(world.actions):
            taken = torch.full((len(prompts), settings.grid_steps), code, device=device)
            dreams.append(torch.cat([first, world.rollout(tokens, actions, taken, noise, sampling)], 1).float())
    return dreams


def draw_grid(
    data: VideoDataset, starts: NDArray[np.int64], prompt_frames: int, dreams: Sequence[Tensor]
) -> NDArray[np.uint8]:
    """What repeating each code leads to from each start, uint8 ``[starts, 1 + codes, H, W, 3]``; `repeat_codes`."""
    last = data.read(starts, prompt_frames)[:, -1:]
    return np.concatenate([last, *(_bytes(dream[: len(starts), -1:]) for dream in dreams)], 1)


def check_examination(settings: Examination, world: Genie) -> None:
    """Refuse numbers out of range.

    Raises:
        ValueError: Names the setting.
    """
    for name in ("clips", "prompt_frames", "steps", "starts", "grid_steps"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} is {getattr(settings, name)}, expected at least 1")
    if settings.prompt_frames > world.config.context:
        raise ValueError(f"prompt_frames is {settings.prompt_frames} and the world sees {world.config.context} frames")
    if not 0 <= settings.sampling_steps <= world.tokenizer.tokens:
        raise ValueError(f"sampling_steps is {settings.sampling_steps}, expected 0 to {world.tokenizer.tokens}")


def check_twin(twin: Genie, world: Genie, data: VideoDataset) -> None:
    """Refuse a twin that cannot be measured beside a world.

    Raises:
        ValueError: Says why.
    """
    if not data.labelled:
        raise ValueError(f"{data.folder} has no true actions, which a twin needs; leave the twin out")
    if (twin.config.height, twin.config.width) != (world.config.height, world.config.width):
        raise ValueError(
            f"the twin dreams {twin.config.height}×{twin.config.width} frames and the world "
            f"{world.config.height}×{world.config.width}; train it with --twin-of this world"
        )
    most = 1 + max(int(chunk.max()) for chunk in data.labels["actions"])
    if most > twin.actions:
        raise ValueError(f"the data has {most} actions and the twin knows {twin.actions}; train it on this data")


def _bytes(frames: Tensor) -> NDArray[Any]:
    return (frames.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
