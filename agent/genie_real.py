"""The true environment of a Genie world, acted in by latent actions.

A recorded world knows where it comes from (`world.json`), so its environment can be built again. What the codes mean
there is learned from a few labelled steps of random play, by Genie's dictionary or LAPO's decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from ..modules.genie.decoding import ActionDecoder, ActionDictionary
from ..modules.genie.patches import to_unit
from ..modules.genie.transformer import precision
from ..modules.genie.video import Clip, Split, resize
from ..modules.genie.world import Dream, Genie
from .agent import Decision
from .genie_data import PLAY, Recording, build_recorded, pictures_now, recorded_behaviour, watch
from .genie_decoding import Labelled, label_windows, make_decoder
from .interaction import Behaviour, Observation, VectorEnv
from .storage import from_json

Meaning = Literal["dictionary", "decoder"]
"""How codes become real actions: by the code alone, or by code and frame."""
_CHUNK = 64


@dataclass(frozen=True)
class Home:
    """Where a world was recorded: the environment's id, and how."""

    id: str
    recording: Recording

    def build(self, num_envs: int, split: Split, seed: int) -> VectorEnv:
        """The environment with Discrete actions, on the levels of a split.

        Raises:
            ValueError: Its actions are not discrete.
        """
        env = build_recorded(self.id, replace(self.recording, num_envs=num_envs, seed=seed), split)
        if not isinstance(env.single_action_space, spaces.Discrete):
            env.close()
            raise ValueError(
                f"{self.id} has {env.single_action_space}; latent actions are mapped to Discrete ones only"
            )
        return env


def home_of(about: Mapping[str, Any]) -> Home | None:
    """Where the world comes from that tells this about itself; None where it was learned from other video.

    Raises:
        ValueError: What it tells is damaged.
    """
    data = about.get("data")
    if not isinstance(data, dict) or "env" not in data:
        return None
    return Home(str(data["env"]), from_json(Recording, data.get("recording"), "world.json: recording"))


def need_home(about: Mapping[str, Any], name: str) -> Home:
    """As `home_of`.

    Raises:
        ValueError: The world does not tell.
    """
    home = home_of(about)
    if home is None:
        raise ValueError(
            f"{name} does not say which environment it shows (it was learned from other video); "
            "record one with forethought genie record and learn from that"
        )
    return home


def seen_frames(world: Genie) -> int:
    """Frames of the past from which codes are decided on and decoded."""
    return min(4, world.config.context) - 1


def play_labels(world: Genie, home: Home, count: int, seed: int, device: torch.device) -> Labelled:
    """Labelled steps, from playing at random where the world was recorded, on its training levels.

    Raises:
        ValueError: A count below 1, or episodes that are too short.
    """
    if count < 1:
        raise ValueError(f"labels is {count}, expected at least 1")
    at_random = home.recording.policy in PLAY  # experts leave codes out
    recording = home.recording if at_random else replace(home.recording, policy="sticky")
    env = home.build(min(16, count), "train", seed)
    size, frames = world.config, seen_frames(world) + 1
    windows: list[NDArray[np.uint8]] = []
    taken: list[int] = []
    try:
        behaviour = recorded_behaviour(replace(recording, num_envs=env.num_envs, seed=seed), env, "train", home.id)
        for clip in watch(env, behaviour, 100 * count + 10_000, seed, cut=64):
            small = resize(clip.frames, size.height, size.width)
            windows += [small[start : start + frames] for start in range(len(small) - frames + 1)]
            taken += _steps(clip)[frames - 2 : -1]
            if len(windows) >= count:
                break
    finally:
        env.close()
    if len(windows) < count:
        raise ValueError(
            f"{home.id} gave {len(windows)} steps with {frames - 1} frames before them, {count} are needed"
        )
    parts = (np.stack(windows[begin : min(begin + _CHUNK, count)]) for begin in range(0, count, _CHUNK))
    return label_windows(world, parts, torch.tensor(taken[:count]), device)


def _steps(clip: Clip) -> list[int]:
    assert clip.actions is not None
    found: list[int] = clip.actions.tolist()
    return found


@dataclass(frozen=True)
class ActionMap:
    """From codes to real actions, learned from labelled steps."""

    dictionary: ActionDictionary
    decoder: ActionDecoder | None = None

    @torch.no_grad()
    def __call__(self, codes: Tensor, features: Tensor | None = None) -> NDArray[np.int64]:
        """Real actions ``[n]`` of codes ``[n]``; a decoder needs `Dream.features` ``[n, D]`` of the frames as well."""
        if self.decoder is None:
            found = self.dictionary.likeliest(codes)
        else:
            assert features is not None, "the decoder looks at frames"
            found = self.decoder(features, codes).argmax(-1)
        actions: NDArray[np.int64] = found.cpu().numpy()
        return actions


def learn_map(world: Genie, known: Labelled, meaning: Meaning, seed: int) -> ActionMap:
    """What the codes mean, by labelled steps; actions that are not among them are never taken."""
    actions = 1 + int(known.actions.max())
    dictionary = ActionDictionary(world.actions, actions)
    dictionary.learn(known.codes, known.actions)
    decoder = make_decoder(world, known, len(known.codes), actions, seed) if meaning == "decoder" else None
    return ActionMap(dictionary, decoder)


class Window:
    """The last frames of B environments, in the size of a world; a first frame stands for those before it."""

    def __init__(self, num_envs: int, world: Genie, frames: int | None = None) -> None:
        self.size = (world.config.height, world.config.width)
        self.frames = np.zeros((num_envs, frames or seen_frames(world), *self.size, 3), np.uint8)

    def see(self, pictures: NDArray[np.uint8], first: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Take in pictures ``[B, H, W, 3]`` of any size; ``first [B]`` begins episodes. The
        window ``[B, F, H, W, 3]``."""
        newest = resize(pictures, *self.size)[:, None]
        moved = np.concatenate([self.frames[:, 1:], newest], 1)
        self.frames = np.where(first[:, None, None, None, None], newest, moved)
        return self.frames


@torch.no_grad()
def dream_on(world: Genie, frames: NDArray[np.uint8], device: torch.device) -> Dream:
    """The dreams that begin with clips ``[B, F, H, W, 3]``."""
    with precision(device):
        tokens, actions = world.infer(to_unit(torch.from_numpy(np.ascontiguousarray(frames)).to(device)))
        return world.begin(tokens, actions)[1]


class LatentBehaviour:
    """Whoever decides on latent actions, at work in the true environment.

    Args:
        env: From `Home.build`.
        world: In evaluation mode, on ``device``.
        inner: Sees frames of the world's size and answers with codes.
        actions: What the codes mean; None where ``inner`` answers with true actions already.
        device: Where the world is.
        frames: That a decoder looks at; None: as many as those it learned from in `play_labels`.
    """

    def __init__(
        self,
        env: VectorEnv,
        world: Genie,
        inner: Behaviour,
        actions: ActionMap | None,
        device: torch.device,
        frames: int | None = None,
    ) -> None:
        self.env, self.world, self.inner, self.actions, self.device = env, world, inner, actions, device
        self.window = Window(env.num_envs, world, frames)

    def act(self, observation: Observation, first: NDArray[np.bool_], active: NDArray[np.bool_]) -> Decision:
        """Decide on codes, and do what they mean."""
        frames = self.window.see(pictures_now(self.env, observation), first)
        decision = self.inner.act(frames[:, -1], first, active)
        if self.actions is None:
            return decision
        codes = torch.from_numpy(np.asarray(decision.action, np.int64)).to(self.device)
        features = None
        if self.actions.decoder is not None:
            features = dream_on(self.world, frames, self.device).features.float()
        return replace(decision, action=self.actions(codes, features))


class TrueSide:
    """One episode of the true environment beside a dream, on levels that the world was not recorded on.

    Args:
        world: In evaluation mode.
        home: Where it was recorded.
        actions: What the codes mean there.
        seed: Of the episodes.
    """

    def __init__(self, world: Genie, home: Home, actions: ActionMap, seed: int) -> None:
        self.world, self.actions, self.seed = world, actions, seed
        self.env = home.build(1, "test", seed)
        meanings = getattr(self.env.unwrapped, "action_meanings", None)
        self.names: list[str] = [str(name) for name in meanings] if meanings else []
        self.window = Window(1, world)
        self.taken, self.ended, self.total = "", False, 0.0
        self._begun = False

    @property
    def frame(self) -> NDArray[np.uint8]:
        """The newest picture ``[H, W, 3]``, in the world's size."""
        newest: NDArray[np.uint8] = self.window.frames[0, -1]
        return newest

    def reset(self) -> NDArray[np.uint8]:
        """Begin an episode; its first picture as a clip ``[1, 1, H, W, 3]``."""
        observation, _ = self.env.reset(seed=None if self._begun else self.seed)
        self._begun, self.taken, self.ended, self.total = True, "", False, 0.0
        self.window.see(pictures_now(self.env, observation), np.ones(1, np.bool_))
        return self.window.frames[:, -1:]

    def step(self, code: int) -> None:
        """Do what a code means; nothing where the episode is over."""
        if self.ended:
            return
        device = next(self.world.parameters()).device
        features = None
        if self.actions.decoder is not None:
            features = dream_on(self.world, self.window.frames, device).features.float()
        action = self.actions(torch.tensor([code], device=device), features)
        observation, reward, terminated, truncated, infos = self.env.step(action)
        self.taken = self.names[action[0]] if self.names else str(action[0])
        self.total += float(reward[0])
        self.ended = bool(terminated[0] or truncated[0])
        if not self.ended:
            self.window.see(pictures_now(self.env, observation), np.zeros(1, np.bool_))
        elif "final_obs" in infos and infos["final_obs"][0] is not None and self._shows_pictures():
            self.window.see(infos["final_obs"][:1], np.zeros(1, np.bool_))

    def _shows_pictures(self) -> bool:
        return (self.env.single_observation_space.shape or ())[-1:] == (3,)
