"""Settings of a run: typed, nested, each field with the sentence that `--help` shows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ..modules.actor import ActorConfig
from ..modules.configurator import Task
from ..modules.critic import CriticConfig
from ..modules.perception import PerceptionConfig
from ..modules.types import Mode
from ..modules.world_model import WorldModelConfig

Symmetry = Literal["none", "horizontal", "vertical", "both"]
Regulariser = Literal["sigreg", "vicreg", "ema", "infonce", "hinge", "none"]


@dataclass(frozen=True)
class EnvConfig:
    """Which world, and how it is seen."""

    id: str = "procgen:fruitbot"
    """procgen:GAME, TwoRoom, DotWall or any Gymnasium id."""
    num_envs: int = 16
    """Environments stepped together while collecting."""
    distribution_mode: str | None = None
    """Procgen: easy, hard, extreme, memory or exploration."""
    action_repeat: int = 1
    """Frames for which each action is held."""
    actions: tuple[int, ...] = ()
    """Procgen: the buttons to choose from, by number; all when empty."""
    distinct_actions: bool = False
    """Procgen: try out first which buttons do the same in the training levels, and choose from one of each (these
    become `actions`, unless they are given)."""
    observation_key: str | None = None
    """Dict observations: the entry to use."""
    train_levels: int = 200
    """Procgen: how many levels to learn from, [0, n); the unseen ones are elsewhere."""
    backgrounds: bool = True
    """Procgen: draw backgrounds."""
    one_theme: bool = False
    """Procgen: one theme instead of many."""
    pairs: str | None = None
    """TwoRoom and DotWall: how start and goal are drawn."""
    pixels: bool | None = None
    """Foraging: pictures instead of a vector."""
    train_steps: int | None = None
    """Rooms and Gymnasium: steps of a training episode; None: the world's own. Short ones show more worlds."""
    wirings: int = 0
    """Gymnasium: ways in which the controls may be wired, another in each episode, which the context tells; 0: as they
    are."""
    wirings_told: bool = True
    """Whether the context tells how they are wired; else it is zeros."""
    prompts: str | None = None
    """Dreams (genie:WORLD): the folder of a data set whose training clips training episodes begin with, thousands
    instead of the few that go with the world."""


@dataclass(frozen=True)
class WorldModelLoss:
    """What the world model and perception are trained on."""

    steps: int = 6
    """Steps T of the training roll-out."""
    batch: int = 48
    """Windows per update."""
    targets: int = 0
    """Outcomes per window that are encoded and predicted, drawn anew in each update; 0: all (encoding costs most)."""
    balance: float = 0.0
    """Share of windows made to contain a reward or an ending."""
    rarity: float = 0.0
    """How much oftener rare kinds of events are among these: kinds that there are n of are drawn in proportion to n to
    the power 1 − rarity. 0: all events alike; 1: all kinds alike."""
    correction: float = 0.0
    """How far the losses of reward and ending are corrected for events being drawn oftener than they come: exponent of
    the windows' importance weights (1511.05952). 0: not at all, and the world model believes in more events than there
    are, the more the rarer they are; 1: fully."""
    learning_rate: float = 1e-3
    """Peak learning rate (AdamW, short warm-up, cosine to a tenth)."""
    prediction: float = 1.0
    """Weight of the latent prediction error."""
    prediction_delay: int = 0
    """Updates without prediction error, so that actions become visible first; then it is ramped up as long again."""
    detach_target: bool = False
    """Stop the gradient at the prediction's target."""
    sharpness: float = 10.0
    """How sharply the codes of the latent variable are told apart: nats for as much prediction error as the best code
    leaves on average (world_model.codes above 1)."""
    regulariser: Regulariser = "sigreg"
    """What keeps latents from collapsing: sigreg, vicreg, ema (the target is a slow copy of the encoder), or the
    contrastive baselines infonce and hinge; none is for showing that something must."""
    regulariser_weight: float = 0.1
    """Weight of that term: SIGReg's statistic (with the factor N), VICReg's variance and covariance, InfoNCE, hinge."""
    directions: int = 64
    """Random projections of SIGReg."""
    covariance: float = 0.04
    """VICReg: weight of the covariance term (the sum over pairs divided by D) beside the variance term."""
    momentum: float = 0.996
    """ema: share of the target encoder that each update keeps."""
    time_similarity: float = 0.0
    """Weight of the mean squared difference of successive latents (PLDM), beside any regulariser."""
    inverse: float = 0.0
    """Weight of the inverse dynamics: which action lies between two latents?"""
    reward: float = 1.0
    """Weight of the reward's cross-entropy."""
    ending: float = 1.0
    """Weight of the ending's cross-entropy."""
    returns: float = 0.0
    """Reward tasks: weight of the cross-entropies of the discounted rewards and ending that followed in memory, told
    from encoded and imagined states alike, so that perception keeps what matters later, too. 0: nobody tells them."""
    returns_discount: float = 0.93
    """Discount of these per decision."""
    sensors: float = 10.0
    """Weight of the squared error of what the world's sensors will measure, where it has any."""
    shift: int = 0
    """Random shift augmentation in pixels."""
    colour: float = 0.0
    """Random colour augmentation: how far red, green and blue of a window are mixed and shifted (a deviation)."""
    mirror: Symmetry = "none"
    """Random mirror augmentation, for worlds that are their own mirror image (some of Procgen): windows are read with
    left and right exchanged (horizontal), up and down (vertical) or both, in pictures and buttons alike, while
    perception learns; critic and actor learn from them, too."""


Published = Literal["lewm", "vicreg", "pldm", "eb-jepa"]


def published(name: Published, loss: WorldModelLoss, latent: int) -> WorldModelLoss:
    """``loss`` with published weights against collapse, in this code's conventions and for a prediction weight of 1.

    lewm: 0.09 times SIGReg with the factor N at batch 128 (2603.19312); the same strength at any batch is ∝ 1/N.
    vicreg: 25 prediction, 25 variance averaged and 1 covariance summed over two branches (2105.04906, official code).
    pldm: 3.9843 variance, 6.9238 covariance, 0.74242 time similarity, 1.072 inverse dynamics (2502.14819, its two-room
    configuration for 1.5 M samples; without its variance along time). eb-jepa: 16, 8, 12, 1 (2602.03604, two rooms).
    The last two average the covariance over the D(D−1) pairs, here it is summed and divided by D.

    Args:
        name: Whose.
        loss: All other settings.
        latent: Width D of the latent.

    Raises:
        ValueError: An unknown name.
    """
    pairs = max(latent - 1, 1)
    match name:
        case "lewm":
            return replace(loss, regulariser="sigreg", prediction=1.0, regulariser_weight=0.09 * 128 / loss.batch)
        case "vicreg":
            variance, covariance, similarity, inverse = 1.0, 2 / 25, 0.0, loss.inverse
        case "pldm":
            variance, covariance, similarity, inverse = 3.9843, 6.9238 / pairs, 0.74242, 1.072
        case "eb-jepa":
            variance, covariance, similarity, inverse = 16.0, 8 / pairs, 12.0, 1.0
        case _:
            raise ValueError(f"no published weights {name!r}; choose lewm, vicreg, pldm or eb-jepa")
    return replace(
        loss, regulariser="vicreg", prediction=1.0, regulariser_weight=variance, covariance=covariance / variance,
        time_similarity=similarity, inverse=inverse,
    )  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """How acting and learning take turns."""

    prefill: int = 20_000
    """Decisions collected at random before learning begins."""
    prefill_updates: int = 1_000
    """World-model updates on the prefill."""
    prefill_behaviour: int = 0
    """Critic and actor updates before the first round, and before the one that follows a renewal, so that it is not
    played by an actor that knows nothing."""
    rounds: int = 0
    """Rounds of collecting with the agent and learning after that."""
    renewal: int | None = None
    """Rounds after which all networks begin anew and learn from what is remembered, as they did from the prefill
    (resets, 2205.07802): those that learned along the way know the first play by heart; None: never."""
    rest: int | None = None
    """Rounds after which perception comes to rest: latents are then computed once, and the rounds that are left train
    the predictor alone, which is cheap; None: after the last round."""
    round_steps: int = 2_000
    """Decisions per round, over all environments."""
    round_reset: bool = True
    """Begin every round with new episodes. Off: go on with those under way, so that short rounds meet the ends of long
    ones too (worlds whose state can be saved: Procgen, rooms, Foraging)."""
    round_updates: int = 200
    """World-model updates per round."""
    mode: Mode = "mode-2"
    """Mode in which the agent collects."""
    collecting_candidates: int = 0
    """Courses of action per iteration of plans made while collecting; 0: as many as when it is evaluated."""
    collecting_iterations: int = 0
    """Iterations of these plans; 0: as many as when it is evaluated."""
    mode_1_rounds: int = 0
    """Every so many rounds the agent collects in Mode-1, to meet the states it leads itself to; 0: never."""
    exploration: float = 0.1
    """Chance of a random action while collecting with the agent."""
    exploiting: float = 0.0
    """Share of the environments in which the agent collects as it acts when it is evaluated, without random actions
    and, where `task.thinking.sample` is off, without drawing from its policy: what is seen there is what it will
    meet."""
    sticky: int = 1
    """Steps for which a random action is held while prefilling."""
    behaviour_ratio: float = 1.0
    """Critic and actor updates per world-model update during the rounds."""
    predictor_updates: int = 0
    """World-model updates when perception comes to rest, on latents that are computed once: cheap ones."""
    predictor_batch: int = 128
    """Windows per update of these."""
    predictor_steps: int = 0
    """Steps of the roll-out in these; 0: as many as before."""
    final_behaviour_updates: int = 0
    """Critic and actor updates at the end, with perception and world model at rest."""
    reanalyse: int = 0
    """Remembered states per actor update that are planned anew with the present model."""
    reanalyse_candidates: int = 0
    """Courses of action per iteration of those plans; 0: as many as when acting."""
    capacity: int = 100_000
    """Entries of the short-term memory."""
    every_frame: bool = False
    """Remember a decision from each of the frames for which an action is held, not from the first alone: several times
    as many pictures and outcomes of the same play, and of entries (Mode-1 with env.action_repeat, reward tasks)."""
    memory_gib: float = 16.0
    """GiB that the short-term memory may take; a larger one lives in a temporary file under TMPDIR. 0: in any case."""


@dataclass(frozen=True)
class BehaviourLoss:
    """What critic and actor are trained on."""

    batch: int = 64
    """Windows per update; in goal tasks, states that short plans begin from: where the windows end."""
    steps: int = 8
    """Steps of the windows for the critic's λ-returns; in goal tasks, of the short plans it learns from."""
    goals: Literal["any", "episode"] = "any"
    """Goal tasks, what is learned to be reached. any: every remembered state from every other; episode: what an episode
    was asked to reach, or was seen in it (for worlds that change between episodes)."""
    courses: int = 24
    """Goal tasks: courses of action of those short plans."""
    hindsight: int = 1
    """Goal tasks: goals that the same short plans are judged by; imagining costs most, and it is done once. Of an
    episode's goals one is what it was asked to reach and counts as much as all others, which were seen in it."""
    walks: float = 0.0
    """Goal tasks: weight of the critic's loss on what remembered walks really cost, beside that on short plans, which
    believe in every gap that the world model leaves in a wall; 0: none are read."""
    walk_steps: int = 16
    """Goal tasks: steps of those walks."""
    expectile: float = 0.9
    """Goal tasks: how much more a walk counts that was cheaper than the critic thought than one that was dearer, τ of
    the expectile (0.5: walks as they are; towards 1: the best that was walked)."""
    learning_rate: float = 1e-3
    """Learning rate of critic and actor (Adam)."""
    final_rate: float = 1.0
    """Share of it that is left at the end of the final updates, in which it falls along a cosine; 1: it does not."""
    real: float = 1.0
    """Weight of the critic's loss on real states."""
    imagined: float = 0.5
    """Weight of the critic's loss on imagined states beside that on real ones."""
    imitation: float = 1.0
    """Weight of the actor's imitation of plans; in goal tasks without reanalysed ones, of those short plans."""
    advantage: bool = False
    """Imitate a plan the more, the less energy it has than the actor's own course, both judged by the present model;
    one that is no better, or has gone stale, is not imitated. Off: all plans alike."""
    improvement: float = 0.0
    """Weight of lower energy in the actor's own imagined roll-outs; 0: none are imagined."""
    remembered: float = 0.0
    """Reward tasks: weight of the imitation of remembered actions that led to less cost than the critic expected, by
    how much less (self-imitation, 1806.05635); what really came cannot be imagined away."""
    imagination: int = 12
    """Steps of those roll-outs; in reward tasks the critic learns from them too."""
    wander: int = 0
    """Reward tasks: dreams begin up to so many random imagined steps away from what is remembered, so that the critic
    knows places where a plan that leaves the actor's way can lead; 0: where something is remembered."""
    entropy: float = 0.0
    """Bonus for the actor's entropy where it imitates plans or its own past."""
    weights: Literal["own", "any"] = "own"
    """Reward tasks, whose dreams the actor has. own: those of the task's drive weights; any: of weights drawn anew in
    each update, for an actor that is told them (actor.weights) and will serve other tasks without training."""
    dream_entropy: float = 0.001
    """Bonus for the actor's entropy in them, relative to the spread of energies."""


@dataclass(frozen=True)
class Saving:
    """When a run is saved, so that it can go on where it was."""

    minutes: float = 5.0
    """Minutes between checkpoints; 0: none by time. A stopped run is saved in any case."""
    units: int = 0
    """Units of work (steps of all environments, updates) between checkpoints besides; 0: by time alone."""
    keep: int = 2
    """Checkpoints that are kept while training; a finished run needs none."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that defines a run."""

    env: EnvConfig = field(default_factory=EnvConfig)
    task: Task = field(default_factory=Task)
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)
    model_loss: WorldModelLoss = field(default_factory=WorldModelLoss)
    behaviour: BehaviourLoss = field(default_factory=BehaviourLoss)
    schedule: Schedule = field(default_factory=Schedule)
    saving: Saving = field(default_factory=Saving)
    seed: int = 0
    """Seed of every generator of the run."""
    device: str = "auto"
    """auto (CUDA, else CPU), cpu or cuda."""
    threads: int = 2
    """Torch threads on the CPU."""
