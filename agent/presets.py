"""Default settings for each kind of world; every one runs on a laptop without a GPU."""

from __future__ import annotations

from dataclasses import replace

from ..modules.actor import ActorConfig
from ..modules.configurator import Task, Thinking
from ..modules.critic import CriticConfig
from ..modules.perception import PerceptionConfig
from ..modules.recall import RecallConfig
from ..modules.world_model import WorldModelConfig
from .config import BehaviourLoss, EnvConfig, RunConfig, Schedule, WorldModelLoss


def preset(id: str) -> RunConfig:
    """The settings that fit an environment id best; unknown ids get those for vector observations."""
    if id.startswith("genie:") or id == "forethought/Genie-v0":
        return dreams(id)
    kinds = {
        "procgen": procgen, "TwoRoom": rooms, "DotWall": rooms, "Recall": recall, "MiniGrid-Memory": minigrid_memory,
        "Foraging": foraging, "forethought/Look": look,
    }  # fmt: skip
    for part, fitting in kinds.items():
        if part in id:
            return fitting(id)
    return continuous_control(id) if id.startswith("Pendulum") else discrete_control(id)


def procgen(id: str) -> RunConfig:
    """A Procgen game: pixels, 15 actions, rewards that are rare; 198,528 frames of 200 levels.

    Random play first, then rounds of Mode-1, whose actor and critic learn in imagination. Rounds go on with the
    episodes under way: the ends of levels come late. The encoder sees windows that are shifted at random (without that
    it learns the levels by heart), and three frames of each: rewards and endings are read on imagined steps, so that
    more windows teach more than more frames of them. Where rewards are rare, actors find what a world model wrongly
    believes of them: it is told how rare they are, dreams are no longer than its roll-outs, and the actor learns more
    from what it remembers to have come out well than from dreams. It acts by chance there, or it gets stuck. Fruitbot,
    where rewards are frequent, did worse with a model that was told, and learns from memory and dreams alike; starpilot
    gained nothing from memory, and much from states that tell what came later and from networks that begin anew
    halfway. Coinrun has both as well, and remembers every frame. Fruitbot's and bigfish's latents are a screen, on
    which planning sees what will be met where.
    """
    ending = 6.0 if "fruitbot" in id else 2.0  # what is to be had there, is had by who gets far
    wary = not ("fruitbot" in id or "starpilot" in id)
    anew = "starpilot" in id or "coinrun" in id
    returns = 0.5 if anew else 0.0  # a shot may hit later than a roll-out looks
    frequent = BehaviourLoss(
        batch=16, steps=8, real=0.5, imagined=1.0, imitation=0.0, improvement=1.0, imagination=12, dream_entropy=0.003,
        remembered=float("fruitbot" in id),
    )  # fmt: skip
    rare = replace(frequent, batch=8, steps=32, remembered=1.0, improvement=0.3, imagination=5)
    usual = RunConfig(
        env=EnvConfig(id, num_envs=32, distribution_mode="easy", action_repeat=3, train_levels=200),
        task=Task(
            ending=ending, discount=0.98,
            thinking=Thinking(
                horizon=6, candidates=64, iterations=2, proposals=8, habit=0.3, views=5, sample=wary
            ),
        ),
        perception=PerceptionConfig("pool", latent=256, history=2, width=16),
        world_model=WorldModelConfig(hidden=256),
        model_loss=WorldModelLoss(
            steps=5, batch=48, targets=2, balance=0.5, correction=float(wary), prediction=0.3, prediction_delay=600,
            detach_target=True, regulariser_weight=0.01, directions=32, inverse=0.3, shift=4, returns=returns,
        ),
        behaviour=rare if wary else frequent,
        schedule=Schedule(
            prefill=16_000, prefill_updates=4_000, sticky=2, rounds=49, round_steps=1_024, round_reset=False,
            round_updates=245, mode="mode-1", exploration=0.05, behaviour_ratio=0.5, final_behaviour_updates=500,
            renewal=24 if anew else None, prefill_behaviour=1_000 if anew else 0, every_frame="coinrun" in id,
        ),
    )  # fmt: skip
    if "fruitbot" in id:  # updates are slower on a screen: fewer in as much time
        fewer = replace(usual.schedule, prefill_updates=3_000, round_updates=210, behaviour_ratio=0.45)
        return on_a_screen(replace(usual, schedule=fewer))
    if "maze" in id or "heist" in id:
        return unsure(usual, frames=2 if "maze" in id else 4)
    return on_a_screen(far_sighted(usual)) if "bigfish" in id else usual


def for_gpu(usual: RunConfig) -> RunConfig:
    """Procgen where there is a GPU: the IMPALA encoder, wider latents and networks, larger batches, more updates.

    As many frames as on a laptop, so that the two can be compared.

    Raises:
        ValueError: Another kind of world; its networks are small.
    """
    if "procgen" not in usual.env.id:
        raise ValueError(
            f"{usual.env.id} has no settings for a GPU, only Procgen has; leave --gpu away (--device cuda alone is "
            "possible)"
        )
    loss, behaviour, schedule = usual.model_loss, usual.behaviour, usual.schedule
    return replace(
        usual,
        env=replace(usual.env, num_envs=64),
        perception=replace(usual.perception, encoder="impala", latent=2 * usual.perception.latent, width=64),
        world_model=replace(usual.world_model, hidden=512),
        critic=replace(usual.critic, hidden=512),
        actor=replace(usual.actor, hidden=512),
        model_loss=replace(loss, batch=4 * loss.batch, directions=2 * loss.directions),
        behaviour=replace(behaviour, batch=4 * behaviour.batch),
        schedule=replace(
            schedule, prefill_updates=2 * schedule.prefill_updates, round_updates=2 * schedule.round_updates
        ),
    )


def on_a_screen(usual: RunConfig) -> RunConfig:
    """Latents that are a screen: 16 numbers for each of 8 × 8 places."""
    return replace(
        usual,
        perception=replace(usual.perception, latent=1_024, latents="screen"),
        world_model=replace(usual.world_model, predictor="screen"),
    )


def unsure(usual: RunConfig, frames: int) -> RunConfig:
    """Maze and heist, where chance is hard to beat: held for so many frames, and as many frames in all.

    What few lucky ends teach of 200 levels does not hold on others, and an actor that is sure of it does worse than
    chance there: entropy counts where it imitates its own past.
    """
    held = usual.env.action_repeat
    return replace(
        usual,
        env=replace(usual.env, action_repeat=frames),
        behaviour=replace(usual.behaviour, entropy=0.1),
        schedule=replace(
            usual.schedule, prefill=usual.schedule.prefill * held // frames,
            round_steps=usual.schedule.round_steps * held // frames,
        ),
    )  # fmt: skip


def far_sighted(usual: RunConfig) -> RunConfig:
    """Bigfish: whoever stays at the edge lives for hundreds of decisions, and that is what pays.

    Actions are held for longer, so that five imagined steps lead further; a life that goes on counts for longer and
    its end costs more; critic and actor learn twice as often. 195,328 frames. It acts by what is likeliest.
    """
    return replace(
        usual,
        env=replace(usual.env, action_repeat=8),
        task=replace(usual.task, ending=5.0, discount=0.99, thinking=replace(usual.task.thinking, sample=False)),
        behaviour=replace(usual.behaviour, final_rate=0.1),
        schedule=replace(
            usual.schedule, prefill=6_000, prefill_updates=2_400, rounds=18, behaviour_ratio=1.0,
            final_behaviour_updates=1_500,
        ),
    )  # fmt: skip


def dreams(id: str) -> RunConfig:
    """A world learned from video: small pictures, latent actions, rewards that are rare; episodes of 16 steps."""
    return RunConfig(
        env=EnvConfig(id, num_envs=16, train_steps=16),
        task=Task(discount=0.95, thinking=Thinking(horizon=6, candidates=64, iterations=2)),
        perception=PerceptionConfig("cnn", latent=64, width=16),
        world_model=WorldModelConfig(hidden=128),
        critic=CriticConfig(hidden=128),
        actor=ActorConfig(hidden=128),
        model_loss=WorldModelLoss(
            steps=5, batch=48, balance=0.5, detach_target=True, regulariser_weight=0.03, inverse=0.3
        ),
        behaviour=BehaviourLoss(batch=32, imitation=0.0, improvement=1.0),
        schedule=Schedule(
            prefill=6_000, prefill_updates=500, rounds=3, round_steps=1_000, round_updates=150,
            behaviour_ratio=0.8, final_behaviour_updates=300,
        ),
        threads=1,
    )  # fmt: skip


def rooms(id: str) -> RunConfig:
    """A room world: goals from pixels, two-dimensional moves.

    Random moves first. Then perception rests, and in rounds of Mode-1 the actor meets what it believes of walls.
    """
    thinking = Thinking(horizon=6, candidates=40, iterations=2, hold=3, proposals=8, commit=3)
    two_room = RunConfig(
        env=EnvConfig(id, num_envs=32, pairs="uniform"),
        task=Task(goals=True, discount=0.98, thinking=thinking),
        perception=PerceptionConfig("cnn", latent=32, history=1, width=16, stride=4),
        world_model=WorldModelConfig(hidden=256, events=False),
        critic=CriticConfig(hidden=256, target_rate=0.03),
        actor=ActorConfig(hidden=128),
        behaviour=BehaviourLoss(
            batch=160, steps=5, courses=6, walks=0.5, imitation=0.0, improvement=1.0, imagination=8, final_rate=0.1
        ),
        model_loss=WorldModelLoss(steps=8, batch=48, targets=3, regulariser_weight=0.1, directions=64),
        schedule=Schedule(
            prefill=30_000, prefill_updates=1_200, sticky=5, predictor_updates=1_000, prefill_behaviour=350, rounds=3,
            rest=0, mode="mode-1", round_steps=9_600, round_updates=200, behaviour_ratio=1.4, exploration=0.2,
            final_behaviour_updates=300,
        ),
    )  # fmt: skip
    if "TwoRoom" in id:
        return two_room
    # Walls that differ between episodes are all that an encoder sees at first: inverse dynamics finds the dot. What a
    # wall or a door does is then learnt of every place at once, by latents that are maps.
    return replace(
        two_room,
        env=replace(two_room.env, pairs="near_wall", train_steps=32),
        perception=replace(two_room.perception, latent=1024, latents="map"),
        world_model=replace(two_room.world_model, predictor="conv", hidden=32),
        critic=replace(two_room.critic, target_rate=0.05),
        behaviour=BehaviourLoss(
            batch=40, steps=4, courses=12, goals="episode", hindsight=5, walks=0.5, learning_rate=2e-3, final_rate=0.1
        ),
        model_loss=WorldModelLoss(
            steps=5, batch=48, inverse=1.0, prediction_delay=600, detach_target=True, regulariser_weight=0.03,
            directions=64,
        ),
        schedule=Schedule(
            prefill=96_000, prefill_updates=2_500, sticky=8, predictor_updates=2_000, predictor_batch=96,
            predictor_steps=10, prefill_behaviour=200, rounds=40, rest=0, mode="mode-1", round_steps=7_680,
            round_updates=48, behaviour_ratio=1.75, exploration=0.1, final_behaviour_updates=1_400, capacity=200_000,
        ),
    )  # fmt: skip


def discrete_control(id: str) -> RunConfig:
    """Vector observations and discrete actions (CartPole, Acrobot …)."""
    thinking = Thinking(horizon=24, candidates=96, iterations=2, hold=2, proposals=16)
    return RunConfig(
        env=EnvConfig(id, num_envs=8, observation_key="image" if id.startswith("MiniGrid-") else None),
        task=Task(ending=1.0, discount=0.99, thinking=thinking),
        perception=PerceptionConfig("mlp", latent=16, width=32),
        world_model=WorldModelConfig(hidden=128, bins=81, limit=10.0),
        critic=CriticConfig(hidden=128, bins=81, limit=10.0),
        actor=ActorConfig(hidden=128),
        # CartPole needs next to none; with as little Acrobot's representation collapses
        model_loss=WorldModelLoss(
            steps=8, batch=64, regulariser_weight=0.0003 if id.startswith("CartPole") else 0.1, directions=32
        ),
        behaviour=BehaviourLoss(batch=24, imitation=0.0, improvement=1.0),
        schedule=Schedule(
            prefill=2_000, prefill_updates=500, rounds=8, round_steps=1_000, round_updates=300, mode_1_rounds=2,
            behaviour_ratio=0.8, final_behaviour_updates=300,
        ),
        threads=1,  # networks this small are slower on two
    )  # fmt: skip


def recall(id: str) -> RunConfig:
    """A question about what was seen: perception reads a memory by content; one step of thought is enough."""
    return RunConfig(
        env=EnvConfig(id, num_envs=8),
        task=Task(discount=0.9, thinking=Thinking(horizon=1, candidates=8, iterations=1)),
        perception=PerceptionConfig("mlp", latent=16, width=16, recall=RecallConfig(slots=8, past=4)),
        world_model=WorldModelConfig(hidden=256),
        critic=CriticConfig(hidden=32),
        actor=ActorConfig(hidden=32),
        model_loss=WorldModelLoss(
            steps=1, batch=64, balance=0.8, regulariser_weight=0.01, directions=16, learning_rate=3e-3
        ),
        behaviour=BehaviourLoss(batch=32, steps=4, learning_rate=3e-3),
        schedule=Schedule(prefill=2_400, prefill_updates=800, reanalyse=32, final_behaviour_updates=100),
        threads=1,
    )


def look(id: str) -> RunConfig:
    """Two doors and a look: a world model that foresees several outcomes; what one may tell, the critic knows.

    The target of the prediction stands still, or perception erases what cannot be foreseen: which door it is.
    """
    return RunConfig(
        env=EnvConfig(id, num_envs=8),
        task=Task(discount=0.9, thinking=Thinking(horizon=1, candidates=16, iterations=1, futures=8)),
        perception=PerceptionConfig("mlp", latent=8, width=8),
        world_model=WorldModelConfig(hidden=48, codes=4),
        critic=CriticConfig(hidden=32),
        actor=ActorConfig(hidden=32),
        model_loss=WorldModelLoss(
            steps=3, batch=48, detach_target=True, regulariser_weight=0.01, directions=16, learning_rate=3e-3
        ),
        behaviour=BehaviourLoss(
            batch=32, steps=6, learning_rate=3e-3, imitation=0.0, improvement=1.0, imagination=3, real=0.5
        ),
        schedule=Schedule(prefill=1_200, prefill_updates=300, final_behaviour_updates=300),
        threads=1,
    )


def minigrid_memory(id: str) -> RunConfig:
    """MiniGrid's memory worlds: what lies where it begins tells which way to go where it ends.

    Random play meets few ends; rounds of Mode-1 many. The short-term memory is small, so that critic and actor learn
    mostly from what the actor does. The target of the prediction stands still and more is done against collapse, or
    perception makes small what cannot be foreseen: what a look will show. A model that foresees one outcome foresees
    the mean of what it may show, so the actor learns more from what it remembers to have come out well than from
    dreams.
    """
    return RunConfig(
        env=EnvConfig(id, num_envs=32, observation_key="image", train_steps=60),
        task=Task(discount=0.98, thinking=Thinking(horizon=4, candidates=32, iterations=1, proposals=8)),
        perception=PerceptionConfig("mlp", latent=32, width=32, recall=RecallConfig(slots=16, past=16)),
        world_model=WorldModelConfig(hidden=256),
        critic=CriticConfig(hidden=128),
        actor=ActorConfig(hidden=128),
        model_loss=WorldModelLoss(
            steps=2, batch=64, balance=0.8, detach_target=True, regulariser_weight=0.1, directions=16,
            learning_rate=3e-3,
        ),
        behaviour=BehaviourLoss(
            batch=32, steps=8, imitation=0.0, improvement=0.1, remembered=1.0, imagination=4
        ),
        schedule=Schedule(
            prefill=60_000, prefill_updates=2_000, rounds=18, mode="mode-1", round_steps=6_400, round_updates=250,
            prefill_behaviour=300, final_behaviour_updates=500, capacity=64_000,
        ),
        threads=1,
    )  # fmt: skip


def continuous_control(id: str) -> RunConfig:
    """Vector observations and Box actions (Pendulum …)."""
    return RunConfig(
        env=EnvConfig(id, num_envs=4),
        task=Task(discount=0.98, thinking=Thinking(horizon=20, candidates=64, iterations=3, hold=2)),
        perception=PerceptionConfig("mlp", latent=16, width=32),
        world_model=WorldModelConfig(hidden=128, bins=81, limit=10.0),
        critic=CriticConfig(hidden=128, bins=81, limit=10.0),
        actor=ActorConfig(hidden=128),
        model_loss=WorldModelLoss(steps=8, batch=64, regulariser_weight=0.0003, directions=32),
        behaviour=BehaviourLoss(batch=32, imitation=0.0, improvement=1.0),
        schedule=Schedule(
            prefill=4_000, prefill_updates=2_000, rounds=2, round_steps=1_600, round_updates=600, behaviour_ratio=0.8,
            exploration=0.0, sticky=3, final_behaviour_updates=300,
        ),
        threads=1,
    )  # fmt: skip


def foraging(id: str) -> RunConfig:
    """Foraging from its state vector: several drives at once, two-dimensional moves, events that are rare."""
    return RunConfig(
        env=EnvConfig(id, num_envs=32),
        task=Task(discount=0.93, thinking=Thinking(horizon=6, candidates=48, iterations=2)),
        perception=PerceptionConfig("mlp", latent=24, width=48),
        world_model=WorldModelConfig(hidden=128),
        critic=CriticConfig(hidden=128, target_rate=0.05),
        actor=ActorConfig(hidden=128),
        model_loss=WorldModelLoss(
            steps=3, batch=192, balance=0.5, learning_rate=3e-3, detach_target=True, regulariser_weight=0.05,
            directions=16, sensors=40.0,
        ),
        behaviour=BehaviourLoss(batch=128, learning_rate=3e-3),
        schedule=Schedule(
            prefill=32_000, prefill_updates=2_500, sticky=3, rounds=1, round_steps=1_600, round_updates=250,
            behaviour_ratio=0.2, final_behaviour_updates=250,
        ),
        threads=1,
    )  # fmt: skip
