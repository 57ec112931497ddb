"""How a Genie world is to be learned, and which settings cannot be."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..modules.genie.video import VideoDataset
from ..modules.genie.world import GenieConfig


@dataclass(frozen=True)
class Updates:
    """How long each part learns."""

    tokenizer: int = 2_000
    """Updates of the tokenizer."""
    latent_action: int = 2_000
    """Updates of the latent action model."""
    dynamics: int = 3_000
    """Updates of the dynamics."""
    outcomes: int = 0
    """Updates of the reward and ending heads; they need data of which some clips have rewards."""
    told_clips: int = 0
    """Clips, drawn at random of those with rewards, that these heads learn from (an episode is a clip, or several where
    it is long); 0: all."""
    labels: int = 0
    """Steps of which the latent action model is told the true action while it learns; they need data with actions and
    world.latent_action.labelled_actions. 0: video alone."""
    label_weight: float = 1.0
    """Weight of naming these beside drawing frames."""
    batch: int = 16
    """Windows per update."""
    frames: int = 4
    """Frames of a window for tokenizer and latent actions; the dynamics takes as many as the context."""
    learning_rate: float = 2e-3
    """Peak learning rate (AdamW, short warm-up, cosine to a twentieth)."""


@dataclass(frozen=True)
class GenieTraining:
    """Everything that defines the training of a world."""

    world: GenieConfig = field(default_factory=GenieConfig)
    updates: Updates = field(default_factory=Updates)
    true_actions: bool = False
    """Train the dynamics on the recorded actions instead of latent ones: the twin that shows what latents cost."""
    prompts: int = 32
    """Test clips that go with the world, for dreams to begin with."""
    prompt_frames: int = 2
    """Frames of each; from two on the dream knows velocities."""
    seed: int = 0
    """Seed of every generator."""
    device: str = "auto"
    """auto (CUDA, else CPU), cpu or cuda."""
    compile: bool = False
    """Compile the networks' blocks while they learn: a minute each at first, then about twice as fast on a GPU."""
    threads: int = 2
    """Torch threads on the CPU."""
    save_minutes: float = 5.0
    """Minutes between checkpoints; 0: none by time. A stopped training is saved in any case."""


def check_training(config: GenieTraining, data: VideoDataset) -> None:
    """Refuse settings that cannot work with the data.

    Raises:
        ValueError: Names the setting, what was given and what was expected.
    """
    world, updates = config.world, config.updates
    if (data.height, data.width) != (world.height, world.width):
        raise ValueError(
            f"the data has frames of {data.height}×{data.width} and the world of {world.height}×{world.width}; "
            f"set world.height {data.height} and world.width {data.width}"
        )
    for name, value, low in (
        ("updates.batch", updates.batch, 1),
        ("updates.tokenizer", updates.tokenizer, 1),
        ("updates.latent_action", updates.latent_action, 1),
        ("updates.dynamics", updates.dynamics, 1),
        ("updates.outcomes", updates.outcomes, 0),
        ("updates.told_clips", updates.told_clips, 0),
        ("updates.labels", updates.labels, 0),
        ("prompts", config.prompts, 1),
        ("prompt_frames", config.prompt_frames, 1),
        ("threads", config.threads, 1),
        ("save_minutes", config.save_minutes, 0),
    ):
        if value < low:
            raise ValueError(f"{name} is {value}, expected at least {low}")
    if not 2 <= updates.frames <= world.context or config.prompt_frames > world.context:
        raise ValueError(
            f"updates.frames is {updates.frames} and prompt_frames {config.prompt_frames}; expected 2 to the context "
            f"({world.context}) and at most the context"
        )
    if updates.batch * (updates.frames - 1) < 2 and not config.true_actions:
        raise ValueError(
            f"updates.batch is {updates.batch} and updates.frames {updates.frames}, one step in all; latent actions "
            "are standardised over a batch: take at least two steps"
        )
    data.starts(world.context)  # refuses clips that are all too short
    if updates.labels:
        if not data.labelled:
            raise ValueError("updates.labels needs data with true actions; record some, or set it to 0")
        there = max(int(chunk.max()) for chunk in data.labels["actions"]) + 1
        given = world.latent_action.labelled_actions
        if given < there:
            raise ValueError(
                f"updates.labels is {updates.labels}, world.latent_action.labelled_actions {given} and the data has "
                f"{there} actions; set world.latent_action.labelled_actions to {there}"
            )
    if config.true_actions:
        if not data.labelled:
            raise ValueError("true_actions needs data with actions; record some, or leave it off")
        most = max(int(chunk.max()) for chunk in data.labels["actions"]) + 1
        if most > world.latent_action.actions:
            raise ValueError(f"the data has {most} actions; set world.latent_action.actions to at least that many")
