"""Worlds learned from video, as Gymnasium environments: latent actions in, dreamed frames out.

`GenieVectorEnv` dreams B episodes in one batch; `forethought/Genie-v0` is one of them. An episode begins with a prompt,
a short clip, and is truncated after a fixed number of steps, because no dream stays true for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from ..modules.genie.dynamics import check_sampling
from ..modules.genie.files import check_prompts, has_outcomes, load_prompts, load_settings, load_world
from ..modules.genie.patches import to_bytes, to_unit
from ..modules.genie.reading import read_prompt
from ..modules.genie.sampler import draw_noise
from ..modules.genie.transformer import precision
from ..modules.genie.video import VideoDataset
from ..modules.genie.world import Dream, Genie, GenieConfig
from .gym import check_actions
from .room_options import read_mask, read_seeds
from .single import SingleEnv

Frames = NDArray[np.uint8]
RewardFunction = Callable[[Frames, NDArray[np.int64], Frames], NDArray[np.float32]]
"""Frames before ``[B, H, W, 3]``, latent actions ``[B]`` and frames after, to rewards ``[B]``."""
EndingFunction = Callable[[Frames, NDArray[np.int64], Frames], NDArray[np.bool_]]
"""The same, to whether the episode has ended there ``[B]``."""
_WORLDS = Path(__file__).parent / "pretrained"
PRETRAINED = _WORLDS / "sprite"
"""The smallest of the worlds that come along, which is taken where none is named."""


def pretrained_worlds() -> list[str]:
    """Names of the worlds that come along, each made by the command in its `world.json`."""
    return sorted(path.name for path in _WORLDS.iterdir() if path.is_dir())


def find_world(world: str | Path | None) -> Path:
    """The folder of a world: the smallest that comes along for None, one of those by name, else the folder itself."""
    if world is None:
        return PRETRAINED
    return _WORLDS / world if str(world) in pretrained_worlds() and not Path(world).exists() else Path(world)


class GenieVectorEnv(VectorEnv[Frames, NDArray[Any], NDArray[Any]]):
    """B dreams in a world learned from video.

    Observations are uint8 ``[B, H, W, 3]``, actions are latent, Discrete(|A|). Rewards and endings come from learned
    heads where the world has them (`forethought genie train` with labelled episodes), or from functions of yours, which
    come first; without either rewards are 0 and nothing ever ends but by time. Environment i draws from its own
    generator only, so it behaves as a batch of one with the same seed. An ended environment resets within the same step
    and leaves its last frame in `final_obs`. Infos: `success` bool ``[B]``, always False: a dream has no verdict.

    Args:
        world: Folder of a trained world, or the name of one that comes along (`pretrained_worlds`); "sprite" when None.
        num_envs: B.
        seed: Of the first episodes; environment i gets seed + i.
        prompts: Clips to begin with, uint8 ``[P, F, H, W, 3]``, or the folder of a data set, of whose training video
            4,096 pairs of frames are taken at most; those that go with the world when None.
        max_steps: Steps until an episode is truncated.
        sampling_steps: MaskGIT steps per frame; the world's own when None.
        temperature: Of the sampling; the world's own when None.
        reward: Rewards by a function instead of the learned head.
        ending: Endings by a function instead of the learned head.
        device: cpu, or an accelerator such as cuda.
        render_mode: None or "rgb_array" (the observation).

    Raises:
        FileNotFoundError: No world there, or a part of it is missing.
        ValueError: Files that are damaged, or an argument out of range.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": ["rgb_array"],
        "render_fps": 10,
    }

    def __init__(
        self,
        world: str | Path | None = None,
        num_envs: int = 1,
        *,
        seed: int = 0,
        prompts: Frames | str | Path | None = None,
        max_steps: int = 64,
        sampling_steps: int | None = None,
        temperature: float | None = None,
        reward: RewardFunction | None = None,
        ending: EndingFunction | None = None,
        device: str = "cpu",
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1 or max_steps < 1:
            raise ValueError(f"num_envs={num_envs}, max_steps={max_steps}: expected both at least 1.")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}: expected None or 'rgb_array'.")
        folder = find_world(world)
        config, self.about = load_settings(folder)
        self.device = torch.device(device)
        self.world: Genie = load_world(folder, self.device)
        if prompts is None:
            self.prompts = load_prompts(folder, config)
        else:
            clips = read_clips(Path(prompts), config) if isinstance(prompts, str | Path) else prompts
            self.prompts = check_prompts(clips, config, "prompts")
        self.sampling = replace(
            self.world.sampling,
            steps=config.dynamics.steps if sampling_steps is None else sampling_steps,
            temperature=config.dynamics.temperature if temperature is None else temperature,
        )
        check_sampling(self.sampling.steps, self.sampling.temperature, self.world.tokenizer.tokens)
        self.learned = has_outcomes(folder)
        self.reward, self.ending = reward, ending
        self.max_steps, self.num_envs, self.render_mode = max_steps, num_envs, render_mode
        self.single_observation_space = gymnasium.spaces.Box(0, 255, (config.height, config.width, 3), np.uint8)
        self.single_action_space = gymnasium.spaces.Discrete(self.world.actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators = [torch.Generator().manual_seed(seed + index) for index in range(num_envs)]
        self._frames = np.zeros((num_envs, config.height, config.width, 3), np.uint8)
        self._steps = np.zeros(num_envs, np.int64)
        self._dream: Dream | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frames, dict[str, Any]]:
        """Begin new episodes.

        Args:
            seed: Environment i draws anew from seed + i; or one seed for each.
            options: `prompt`, for all environments that are reset: a clip uint8 ``[F, H, W, 3]``, the number of a
                prompt, or the path of a picture or video, which is resized and of which as many frames are taken as
                the world sees; `reset_mask`, bool ``[B]``: only these.

        Raises:
            FileNotFoundError: The prompt is a path, and no file is there.
            ValueError: Unknown options, values that do not fit, or a file that cannot be read.
            ResetNeeded: A `reset_mask` before the first full reset.
        """
        options = dict(options or {})
        rows = read_mask(options.pop("reset_mask", None), self.num_envs)
        prompt = options.pop("prompt", None)
        if options:
            raise ValueError(f"reset got unknown options {sorted(options)}; expected prompt and reset_mask.")
        if self._dream is None and len(rows) < self.num_envs:
            raise ResetNeeded("reset_mask before the first reset: call reset() without it first.")
        for index, one in enumerate(read_seeds(seed, self.num_envs)):
            if one is not None:
                self._generators[index].manual_seed(one)
        self._begin(rows, None if prompt is None else self._read_prompt(prompt))
        return self._frames.copy(), self._infos()

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Frames, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Dream on under latent actions ``[B]``.

        Raises:
            ValueError: Actions of another shape, type or range.
            ResetNeeded: No episode has begun.
        """
        if self._dream is None:
            raise ResetNeeded("step before the first reset: call reset() first.")
        chosen = check_actions(actions, self.action_space).astype(np.int64)
        action = torch.from_numpy(chosen).to(self.device)
        noise = draw_noise(self._generators, self.sampling.steps, self.world.tokenizer.tokens)
        chance = torch.cat([torch.rand(1, generator=generator) for generator in self._generators])
        before = self._frames.copy()
        with torch.no_grad(), precision(self.device):
            rewards, endings = self.world.outcomes.judge(self._dream.patches.float(), action)
            picture, self._dream = self.world.step(self._dream, action, noise.to(self.device), self.sampling)
        self._frames = _to_numpy(picture)
        self._steps += 1
        reward = np.zeros(self.num_envs, np.float32)
        terminated = np.zeros(self.num_envs, np.bool_)
        if self.learned:
            reward = rewards.float().cpu().numpy()
            terminated = (chance < endings.float().cpu()).numpy()
        if self.reward is not None:
            told = np.asarray(self.reward(before, chosen, self._frames.copy()))
            reward = self._one_each("reward", told).astype(np.float32)
        if self.ending is not None:
            told = np.asarray(self.ending(before, chosen, self._frames.copy()))
            terminated = self._one_each("ending", told).astype(np.bool_)
        truncated = (self._steps >= self.max_steps) & ~terminated
        infos = self._infos()
        ended = terminated | truncated
        if ended.any():
            final = self._frames.copy()
            self._begin(np.flatnonzero(ended), None)
            infos |= {"final_obs": final, "_final_obs": ended, "final_info": self._infos(), "_final_info": ended}
        return self._frames.copy(), reward, terminated, truncated, infos

    def render(self) -> tuple[Frames, ...] | None:
        """The newest frames, or None without a render mode."""
        return None if self.render_mode is None else tuple(self._frames.copy())

    def begin_from(self, frames: Frames) -> Frames:
        """Let all environments dream on from clips of their own, of live environments say, uint8 ``[B, F, H, W, 3]``.

        Returns:
            The last frames as the dream sees them.

        Raises:
            ValueError: Clips of another shape or number.
        """
        clips = check_prompts(frames, self.world.config, "begin_from")
        if len(clips) != self.num_envs:
            raise ValueError(f"begin_from got {len(clips)} clips for {self.num_envs} environments; give one for each.")
        self._put(np.arange(self.num_envs), clips)
        return self._frames.copy()

    def _begin(self, rows: NDArray[np.int64], prompt: Frames | None) -> None:
        if prompt is not None:
            self._put(rows, prompt[None].repeat(len(rows), 0))
            return
        count = len(self.prompts)
        drawn = [int(torch.randint(count, (1,), generator=self._generators[row])) for row in rows]
        self._put(rows, self.prompts[drawn])

    def _put(self, rows: NDArray[np.int64], clips: Frames) -> None:
        """Begin the dreams of some rows with clips ``[R, F, H, W, 3]``."""
        with torch.no_grad(), precision(self.device):
            tokens, actions = self.world.infer(to_unit(torch.from_numpy(clips).to(self.device)))
            picture, dream = self.world.begin(tokens, actions)
        index = torch.from_numpy(rows).to(self.device)
        self._dream = dream if self._dream is None else self._dream.put(index, dream)
        self._frames[rows] = _to_numpy(picture)
        self._steps[rows] = 0

    def _read_prompt(self, prompt: Any) -> Frames:
        if isinstance(prompt, int | np.integer):
            if not 0 <= prompt < len(self.prompts):
                raise ValueError(f"prompt is {prompt}; expected 0 to {len(self.prompts) - 1}, or a clip.")
            chosen: Frames = self.prompts[prompt]
            return chosen
        config = self.world.config
        if isinstance(prompt, str | Path):
            prompt = read_prompt(Path(prompt), config.height, config.width, config.context)
        checked: Frames = check_prompts(np.asarray(prompt)[None], config, "options['prompt']")[0]
        return checked

    def _one_each(self, name: str, told: NDArray[Any]) -> NDArray[Any]:
        """What a user's function told, if it is one finite value for each environment."""
        if told.shape != (self.num_envs,):
            raise ValueError(f"the {name} function returned shape {told.shape}, expected ({self.num_envs},).")
        if told.dtype.kind not in "biuf" or not np.isfinite(told).all():
            raise ValueError(f"the {name} function returned {told.tolist()}, expected finite numbers.")
        return told

    def _infos(self) -> dict[str, Any]:
        return {"success": np.zeros(self.num_envs, np.bool_)}


def read_clips(folder: Path, config: GenieConfig, most: int = 4096) -> Frames:
    """Pairs of frames uint8 ``[P, 2, H, W, 3]``, spread over the training video of a data set.

    Raises:
        FileNotFoundError: No data set there.
        ValueError: It is damaged, its frames have another size than the world's, or none follows another.
    """
    data = VideoDataset(folder, "train")
    data.need_size(config.height, config.width)
    starts = data.starts(2)
    return data.read(starts[np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(np.int64)], 2)


def make_single(**options: Any) -> SingleEnv:
    """Entry point of `gymnasium.make("forethought/Genie-v0")`: one dream; the options are `GenieVectorEnv`'s."""
    return SingleEnv(GenieVectorEnv(num_envs=1, **options))


def _to_numpy(picture: Tensor) -> Frames:
    return to_bytes(picture.float()).cpu().numpy()
