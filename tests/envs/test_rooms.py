"""The room worlds: published floors, walls that hold, pictures that show the state, and the vector contract."""

import numpy as np
import pytest
from forethought.envs.rooms import (
    DOT_WALL_200,
    PROTOCOLS,
    TWO_ROOM_25_50,
    TWO_ROOM_CROSS_50,
    TWO_ROOM_CROSS_100,
    DotWallVectorEnv,
    TwoRoomVectorEnv,
    dot_wall_expert,
    dot_wall_move,
    sample_pairs,
    two_room_expert,
    two_room_move,
)
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

WORLDS = (TwoRoomVectorEnv, DotWallVectorEnv)
EPISODES = 4000


def two_room_rates(protocol, policy):
    """Success in percent, at any step and at the last one."""
    pairs = sample_pairs(protocol, EPISODES, seed=7)
    generator = np.random.default_rng(11)
    place, ever = pairs.start, np.zeros(EPISODES, dtype=bool)
    for _ in range(protocol.budget_steps):
        action = {
            "random": lambda at: generator.uniform(-1, 1, at.shape),
            "noop": np.zeros_like,
            "expert": lambda at: two_room_expert(at, pairs.goal),
        }[policy](place)
        place = two_room_move(place, action)
        inside = np.linalg.norm(place - pairs.goal, axis=1) < protocol.success_radius
        ever |= inside
    return 100 * ever.mean(), 100 * inside.mean()


def dot_wall_rates(policy, count=1000):
    pairs = sample_pairs(DOT_WALL_200, count, seed=7)
    generator = np.random.default_rng(11)
    place = pairs.start
    for _ in range(DOT_WALL_200.budget_steps):
        action = generator.uniform(-2.45, 2.45, place.shape)
        if policy == "expert":
            action = dot_wall_expert(place, pairs.goal, pairs.wall, pairs.door)
        bounce = 0.5 * generator.standard_normal(place.shape)
        place = dot_wall_move(place, action, pairs.wall, pairs.door, bounce)
    return 100 * (np.linalg.norm(place - pairs.goal, axis=1) < DOT_WALL_200.success_radius).mean()


# Floors (world_models.md 2.2).


def test_floors_of_25_50_are_the_published_ones():
    ever, final = two_room_rates(TWO_ROOM_25_50, "random")
    assert 21 <= ever <= 26
    assert 6 <= final <= 9.5
    assert two_room_rates(TWO_ROOM_25_50, "noop")[1] == pytest.approx(7.3, abs=1.2)
    assert two_room_rates(TWO_ROOM_25_50, "expert")[0] == 100


def test_pairs_of_25_50_look_like_the_published_ones():
    pairs = sample_pairs(TWO_ROOM_25_50, EPISODES, seed=7)
    assert np.median(np.linalg.norm(pairs.start - pairs.goal, axis=1)) == pytest.approx(43, abs=2)
    crossing = (pairs.start[:, 0] < 112) != (pairs.goal[:, 0] < 112)
    assert 100 * crossing.mean() == pytest.approx(17.9, abs=2)


def test_floors_of_cross_room():
    assert two_room_rates(TWO_ROOM_CROSS_50, "expert")[0] == pytest.approx(91.5, abs=2)
    assert two_room_rates(TWO_ROOM_CROSS_100, "expert")[0] == 100
    for protocol in (TWO_ROOM_CROSS_50, TWO_ROOM_CROSS_100):
        assert two_room_rates(protocol, "random")[0] <= 0.5
    assert two_room_rates(TWO_ROOM_CROSS_100, "noop")[0] <= 0.1  # both just beside the wall, 16 px of each other
    pairs = sample_pairs(TWO_ROOM_CROSS_50, 500, seed=0)
    assert ((pairs.start[:, 0] < 112) != (pairs.goal[:, 0] < 112)).all()


def test_floors_of_dot_wall():
    assert dot_wall_rates("expert") >= 99.5
    assert dot_wall_rates("random") <= 2


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_the_environment_lives_by_its_protocol(protocol):
    pairs = sample_pairs(protocol, 12, seed=3)
    env = protocol.make(12)
    _, infos = env.reset(seed=0, options=pairs.options(slice(0, 12)))
    np.testing.assert_array_equal(infos["position"], pairs.start)
    np.testing.assert_array_equal(infos["goal"], pairs.goal)
    ended, reached, rewards = np.zeros(12, dtype=bool), np.zeros(12, dtype=bool), np.zeros(12)
    for step in range(1, protocol.budget_steps + 1):
        _, reward, terminated, truncated, infos = env.step(env.expert_action())
        rewards += np.where(ended, 0, reward)
        now = (terminated | truncated) & ~ended
        reached[now] = infos["success"][now]
        assert (terminated == (infos["success"] & (protocol.judged == "ever"))).all()
        assert protocol.judged == "ever" or (truncated.all() == (step == protocol.budget_steps))
        ended |= now
    assert ended.all()
    np.testing.assert_array_equal(rewards, reached)  # 1.0 once, on arrival
    assert reached.all() or protocol is TWO_ROOM_CROSS_50


# Physics.


def test_two_room_moves_by_five_pixels_and_stays_inside():
    start = np.array([[50.0, 50.0], [22.0, 200.0], [14.0, 209.0]])
    moved = two_room_move(start, np.array([[1.0, -0.5], [-9.0, 9.0], [0.0, 0.0]]))
    np.testing.assert_allclose(moved, [[55, 47.5], [21, 203], [21, 203]])


@pytest.mark.parametrize(
    ("start", "action", "end"),
    [
        ((99.0, 150.0), (1, 0), (99.5, 150.0)),  # walks into the wall from the left
        ((125.0, 150.0), (-1, 0), (124.5, 150.0)),  # and from the right
        ((99.0, 49.0), (1, 0), (104.0, 49.0)),  # the door is open
        ((111.0, 64.0), (0, 0.2), (99.5, 65.0)),  # out of the doorway sideways: back by almost 12 px
        ((113.0, 64.0), (0, 0.2), (124.5, 65.0)),
        ((111.0, 64.0), (0, 0.1), (111.0, 64.5)),  # 15.75 from the centre still passes
        ((99.0, 66.0), (1, -1), (104.0, 61.0)),  # only the destination counts
    ],
)
def test_two_room_wall_rule(start, action, end):
    moved = two_room_move(np.array([start]), np.array([action], dtype=float))
    np.testing.assert_allclose(moved, [end])


def test_two_room_wall_is_crossed_only_by_the_door():
    generator = np.random.default_rng(0)
    place = generator.uniform((80, 21), (99, 203), (500, 2))
    crossings = 0
    for _ in range(400):
        before = place
        place = two_room_move(before, generator.choice([-3.0, 3.0], size=before.shape))
        crossed = (before[:, 0] < 112) != (place[:, 0] < 112)
        assert (np.abs(place[crossed, 1] - 49) <= 15.75).all()
        solid = (place[:, 0] > 100) & (place[:, 0] < 124) & (np.abs(place[:, 1] - 49) > 15.75)
        assert not solid.any()
        crossings += crossed.sum()
    assert crossings > 50


def test_dot_wall_is_crossed_only_by_the_door():
    generator = np.random.default_rng(0)
    count, crossings, bounces = 1000, 0, 0
    pairs = sample_pairs(DOT_WALL_200, count, seed=1)
    wall, door, place = pairs.wall, pairs.door, pairs.start
    drift = generator.uniform(-2, 2, (count, 2))
    for step in range(300):
        if step % 20 == 0:
            drift = generator.uniform(-2, 2, (count, 2))
        action = 20 * (drift + generator.standard_normal((count, 2)))
        after = dot_wall_move(place, action, wall, door, 0.5 * generator.standard_normal((count, 2)))
        crossed = (place[:, 0] < wall) != (after[:, 0] < wall)
        for end in (place, after):
            assert (np.abs(end[crossed, 1] - door[crossed]) < 6.5).all()  # within a step of the opening
        direct = action * 2.45 / np.linalg.norm(action, axis=1, keepdims=True)
        bounced = np.abs(after - place - direct).max(axis=1) > 1e-9
        level = place[:, 1] + (after[:, 1] - place[:, 1]) * (wall - place[:, 0]) / (after[:, 0] - place[:, 0] + 1e-12)
        assert (np.abs(level - door)[crossed & ~bounced] < 4).all()  # where it passed the wall's middle
        assert (after >= 4).all()
        assert (after <= 60).all()
        assert not ((np.abs(after[:, 0] - wall) <= 1) & (np.abs(after[:, 1] - door) >= 4)).any()
        assert (np.abs(direct) <= 2.45).all()
        place, crossings, bounces = after, crossings + crossed.sum(), bounces + bounced.sum()
    assert crossings > 100
    assert bounces > 1000


def test_dot_wall_bounds_the_length_of_a_step_and_collides_where_it_meets_the_wall():
    wall, door, still = np.array([32.0]), np.array([18.0]), np.zeros((1, 2))
    free = dot_wall_move(np.array([[10.0, 30.0]]), np.array([[30.0, 40.0]]), wall, door, still)
    np.testing.assert_allclose(free, [[10 + 2.45 * 0.6, 30 + 2.45 * 0.8]])
    start, push = np.array([[30.0, 40.0]]), np.array([[2.0, 1.0]])
    np.testing.assert_allclose(dot_wall_move(start, push, wall, door, still), [[30.95, 40.5]])
    np.testing.assert_allclose(dot_wall_move(start, push, wall, door, np.array([[0.7, 0.3]])), [[30.95, 40.8]])
    np.testing.assert_allclose(dot_wall_move(start, push, wall, door, np.array([[-0.7, 0.3]])), [[30.3, 40.8]])
    jamb = dot_wall_move(np.array([[32.0, 21.0]]), np.array([[0.0, 2.0]]), wall, door, still)
    np.testing.assert_allclose(jamb, [[32.0, 21.95]])


def test_dot_wall_collisions_are_random_but_seeded():
    options = {"position": np.full((2, 2), (28.0, 40.0)), "wall": np.full(2, 32.0), "door": np.full(2, 18.0)}
    env = DotWallVectorEnv(2)
    ends = []
    for seed in (0, 0, 5):
        env.reset(seed=seed, options=options)
        for _ in range(5):
            infos = env.step(np.full((2, 2), (2.0, 0.0)))[-1]
        ends.append(infos["position"])
    np.testing.assert_array_equal(ends[0], ends[1])
    assert (ends[0][0] != ends[0][1]).any()
    assert (ends[0] != ends[2]).any()


def test_dot_wall_draws_walls_and_doors_anew():
    env = DotWallVectorEnv(64, max_steps=1)
    env.reset(seed=0)
    draws = [env.step(env.noop)[-1] for _ in range(40)]
    walls = np.concatenate([infos["wall"] for infos in draws])
    doors = np.concatenate([infos["door"] for infos in draws])
    assert set(walls) == set(range(20, 45))
    assert set(doors) == set(range(10, 55))
    for infos in draws:
        for name in ("position", "goal"):
            assert (infos[name] >= 6.6).all()
            assert (infos[name] <= 57.4).all()
            assert (np.abs(infos[name][:, 0] - infos["wall"]) >= 2.6).all()
        assert ((infos["position"][:, 0] < infos["wall"]) != (infos["goal"][:, 0] < infos["wall"])).all()
    swaps = np.concatenate([infos["position"][:, 0] > infos["wall"] for infos in draws])
    assert 0.45 < swaps.mean() < 0.55


# Pictures.


def centroid(weight):
    total = weight.sum(axis=(1, 2))
    axis = np.arange(64)
    return np.stack([(weight.sum(axis=1) * axis).sum(1) / total, (weight.sum(axis=2) * axis).sum(1) / total], axis=1)


@pytest.mark.parametrize("world", WORLDS)
def test_the_dot_is_where_the_position_says(world):
    env = world(200)
    observation, infos = env.reset(seed=0)
    for picture, place in (("observation", "position"), ("desired_goal", "goal")):
        image = observation[picture].astype(float)
        if world is TwoRoomVectorEnv:
            redness, expected = image[..., 0] - image[..., 1], infos[place] * 64 / 224
        else:
            redness, expected = image[..., 0], infos[place]
        assert np.abs(centroid(redness) - expected).max() < 0.5


def test_two_room_looks_as_specified():
    env = TwoRoomVectorEnv(1)
    options = {"position": np.array([[55.5, 153.5]]), "goal": np.array([[180.0, 100.0]])}
    image = env.reset(seed=0, options=options)[0]["observation"][0].astype(int)
    assert image[50, 50].tolist() == [255, 255, 255]
    assert image[40, 32].max() < 90  # the wall
    assert image[14, 30:34].min() == 255  # the door
    assert image[3, 20].max() == image[20, 3].max() == image[60, 20].max() == 0  # the border
    squared = (np.arange(64)[:, None] - (154 / 3.5 - 0.5)) ** 2 + (np.arange(64)[None] - (56 / 3.5 - 0.5)) ** 2
    alpha = np.exp(-squared / 8)[30:58, 5:28]
    np.testing.assert_allclose(image[30:58, 5:28, 1], 255 * (1 - alpha), atol=0.6)
    assert (image[30:58, 5:28, 0] == 255).all()


def test_dot_wall_looks_as_specified():
    env = DotWallVectorEnv(3)
    options = {"wall": np.array([20.0, 32.0, 44.0]), "door": np.array([10.0, 18.0, 54.0])}
    observation, infos = env.reset(seed=0, options=options)
    for image, wall, door, place in zip(
        observation["observation"], infos["wall"], infos["door"], infos["position"], strict=True
    ):
        solid = np.zeros((64, 64), dtype=bool)
        solid[5:60, int(wall) - 1 : int(wall) + 2] = True
        solid[int(door) - 4 : int(door) + 5] = False
        solid[[4, 60], 4:61] = solid[4:61, [4, 60]] = True
        np.testing.assert_array_equal(image[..., 1], 255 * solid)
        squared = (np.arange(64)[:, None] - place[1]) ** 2 + (np.arange(64)[None] - place[0]) ** 2
        np.testing.assert_allclose(image[..., 0], 255 * np.exp(-squared / (2 * 1.3**2)), atol=0.6)
        assert not image[..., 2].any()


@pytest.mark.parametrize("world", WORLDS)
def test_the_goal_image_is_the_observation_at_the_goal(world):
    env = world(20)
    observation, infos = env.reset(seed=1)
    options = {"position": infos["goal"], "goal": infos["position"]}
    if world is DotWallVectorEnv:
        options |= {"wall": infos["wall"], "door": infos["door"]}
    else:  # a goal may lie in the wall, where no dot can be put
        inside = (infos["goal"][:, 0] > 100) & (infos["goal"][:, 0] < 124)
        options["position"][inside] = options["goal"][inside] = 50.0
        observation["desired_goal"][inside] = observation["observation"][inside] = 0
    swapped, _ = env.reset(options=options)
    if world is TwoRoomVectorEnv:
        swapped["observation"][inside] = swapped["desired_goal"][inside] = 0
    np.testing.assert_array_equal(swapped["observation"], observation["desired_goal"])
    np.testing.assert_array_equal(swapped["desired_goal"], observation["observation"])


@pytest.mark.parametrize("world", WORLDS)
def test_render_shows_dot_and_ring(world):
    env = world(2, render_mode="rgb_array")
    with pytest.raises(ResetNeeded):
        env.render()
    with pytest.raises(ResetNeeded):
        env.render_first()
    place, goal = np.full((2, 2), 12.0 if world is DotWallVectorEnv else 40.0), np.full((2, 2), 50.0)
    env.reset(seed=0, options={"position": place, "goal": goal})
    pictures = env.render()
    scale = 224 / env.LAYOUT.side
    assert len(pictures) == 2
    assert np.array_equal(env.render_first(), pictures[0])
    for picture in pictures:
        assert picture.shape == (224, 224, 3)
        assert picture.dtype == np.uint8
        column, row = np.rint((place[0] + 0.5) * scale - 0.5).astype(int)
        assert picture[row, column].tolist() == pytest.approx([255, 0, 0], abs=12)
        column, row = np.rint((goal[0] + (env.LAYOUT.success_radius, 0.0) + 0.5) * scale - 0.5).astype(int)
        assert picture[row, column].tolist() == pytest.approx([0, 150, 60], abs=12)
    assert world(1).render() is None


# The vector contract.


def play(env, steps, generator_seed=0, rows=slice(None), width=None):
    """Step with noise around the expert; return everything each step gave."""
    generator = np.random.default_rng(generator_seed)
    limit = env.LAYOUT.action_limit
    record = []
    for _ in range(steps):
        noise = generator.uniform(-limit, limit, (width or env.num_envs, 2))[rows]
        record.append(env.step(np.clip(env.expert_action() + noise, -limit, limit)))
    return record


def flat(step, row=slice(None)):
    observation, reward, terminated, truncated, infos = step
    names = [name for name in ("position", "goal", "distance", "success", "wall", "door") if name in infos]
    return [
        *(observation[name][row] for name in ("observation", "desired_goal")),
        *(array[row] for array in (reward, terminated, truncated)),
        *(infos[name][row] for name in names),
    ]


@pytest.mark.parametrize(
    ("world", "settings"),
    [
        (TwoRoomVectorEnv, {"pairs": "uniform", "max_steps": 15}),
        (TwoRoomVectorEnv, {"pairs": "expert_25", "max_steps": 15}),
        (DotWallVectorEnv, {"max_steps": 25}),
    ],
)
def test_a_batch_equals_its_singles(world, settings):
    seeds = [3, 17, 4]
    batch = world(3, **settings)
    batch.reset(seed=seeds)
    together = play(batch, 60)
    for row, seed in enumerate(seeds):
        single = world(1, **settings)
        single.reset(seed=seed)
        alone = play(single, 60, rows=slice(row, row + 1), width=3)
        for one, many in zip(alone, together, strict=True):
            for left, right in zip(flat(one, 0), flat(many, row), strict=True):
                np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("world", WORLDS)
def test_the_same_seed_gives_the_same_run(world):
    runs = []
    for seed in (5, [5, 6], 6):
        env = world(2, max_steps=20)
        env.reset(seed=seed)
        runs.append([array for step in play(env, 50) for array in flat(step)])
    assert all(np.array_equal(left, right) for left, right in zip(runs[0], runs[1], strict=True))
    assert not all(np.array_equal(left, right) for left, right in zip(runs[0], runs[2], strict=True))


@pytest.mark.parametrize("world", WORLDS)
def test_state_resumes_exactly_and_is_a_copy(world):
    env = world(3, max_steps=12)
    env.reset(seed=2)
    play(env, 7)
    state = env.state()
    kept = {name: array.copy() for name, array in state.items()}
    first = play(env, 40)
    for name, array in kept.items():
        np.testing.assert_array_equal(state[name], array)
    other = world(3, max_steps=12)
    other.set_state(state)
    for name in state:
        state[name][...] = 0
    for left, right in zip(play(other, 40), first, strict=True):
        for one, two in zip(flat(left), flat(right), strict=True):
            np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="shape"):
        world(2, max_steps=12).set_state(kept)
    with pytest.raises(ValueError, match="goal"):
        other.set_state({name: array for name, array in kept.items() if name != "goal"})


@pytest.mark.parametrize("world", WORLDS)
def test_reset_mask_touches_only_what_it_marks(world):
    env = world(4)
    env.reset(seed=0)
    play(env, 3)
    before, state = env.state(), env.state()
    mask = np.array([False, True, False, True])
    goal = np.full((4, 2), np.nan)
    goal[mask] = 30.0
    options = {"reset_mask": mask, "goal": goal}
    observation, infos = env.reset(seed=9, options=options)
    assert set(options) == {"reset_mask", "goal"}
    after = env.state()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name][~mask], array[~mask])
    assert (after["steps"] == [3, 0, 3, 0]).all()
    assert (after["position"][mask] != state["position"][mask]).all()
    assert (infos["goal"][mask] == 30).all()
    fresh = world(4)
    expected, _ = fresh.reset(seed=9)
    np.testing.assert_array_equal(observation["observation"][mask], expected["observation"][mask])
    with pytest.raises(ValueError, match="first reset"):
        world(2).reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize("world", WORLDS)
def test_an_ended_episode_hands_over_its_last_observation_and_infos(world):
    assert world.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env = world(3, terminate_on_success=True, max_steps=6)
    limit = env.LAYOUT.action_limit
    goal = np.full((3, 2), 50.0)
    start = goal + np.array([[1.5 * env.LAYOUT.success_radius, 0], [0, -35.0], [0, -35.0]])
    fixed = {} if world is TwoRoomVectorEnv else {"wall": np.full(3, 20.0), "door": np.full(3, 30.0)}
    env.reset(seed=0, options={"position": start, "goal": goal, **fixed})
    reference = world(3, terminate_on_success=False, max_steps=50)
    reference.reset(seed=0, options={"position": start, "goal": goal, **fixed})
    action = np.array([[-limit, 0.0], [0.0, 0.0], [0.0, 0.0]])
    for _ in range(5):
        observation, reward, terminated, truncated, infos = env.step(action)
        true_observation, *_, true_infos = reference.step(action)
        if "final_obs" in infos:
            break
        assert not (terminated | truncated | reward.astype(bool) | infos["success"]).any()
    assert terminated.tolist() == infos["success"].tolist() == [True, False, False]
    assert reward.tolist() == [1, 0, 0]
    assert not truncated.any()
    for name in ("final_obs", "final_info"):
        assert infos[f"_{name}"].tolist() == [True, False, False]
    assert infos["final_obs"].dtype == object
    assert infos["final_obs"][1] is None
    for name, image in infos["final_obs"][0].items():
        np.testing.assert_array_equal(image, true_observation[name][0])
        assert (observation[name][0] != image).any()
    for name in ("position", "goal", "distance"):
        np.testing.assert_array_equal(infos["final_info"][name][0], true_infos[name][0])
        assert not infos["final_info"][name][1].any()
    assert infos["final_info"]["success"].tolist() == [True, False, False]
    assert infos["distance"][0] == pytest.approx(np.linalg.norm(infos["position"][0] - infos["goal"][0]))
    while not truncated.any():
        *_, terminated, truncated, infos = env.step(np.zeros((3, 2)))
    assert truncated.tolist()[1:] == [True, True]
    assert infos["_final_info"][1:].all()
    assert not infos["final_info"]["success"][1:].any()


@pytest.mark.parametrize("world", WORLDS)
def test_observations_fit_the_spaces_and_belong_to_the_caller(world):
    env = world(2)
    assert env.goal_conditioned
    assert env.noop.shape == (2, 2)
    assert not env.noop.any()
    first, _ = env.reset(seed=0)
    assert first in env.observation_space
    kept = {name: image.copy() for name, image in first.items()}
    first["desired_goal"][...] = 7
    second = env.step(env.noop)[0]
    assert second in env.observation_space
    np.testing.assert_array_equal(second["desired_goal"], kept["desired_goal"])


@pytest.mark.parametrize("world", WORLDS)
def test_wrong_use_is_named(world):
    env = world(2)
    for use in (lambda: env.step(env.noop), env.state):
        with pytest.raises(ResetNeeded, match="reset"):
            use()
    wrong_options = [
        ({"positions": np.zeros((2, 2))}, "positions.*position.*goal.*reset_mask"),
        ({"position": np.full((2, 2), 3.0)}, r"position'\]\[0\].*expected"),
        ({"goal": np.full((2, 2), env.LAYOUT.high + 1)}, r"goal'\]\[0\]"),
        ({"goal": np.full((2, 2), np.nan)}, "nan"),
        ({"goal": np.full((1, 2), 30.0)}, r"\(1, 2\); expected \(2, 2\)"),
        ({"goal": "left"}, "not an array of numbers"),
        ({"reset_mask": np.array([1, 0])}, "bool"),
        ({"reset_mask": np.zeros(2, dtype=bool)}, "marks no environment"),
    ]
    if world is DotWallVectorEnv:
        in_wall = {"wall": np.full(2, 30.0), "door": np.full(2, 20.0), "position": np.full((2, 2), 30.0)}
        wrong_options += [({"wall": np.full(2, 19.0)}, "20, 44"), (in_wall, "solid wall")]
    else:
        wrong_options += [({"position": np.full((2, 2), 110.0)}, "solid wall"), ({"wall": np.full(2, 30.0)}, "accepts")]
    for options, message in wrong_options:
        with pytest.raises(ValueError, match=message):
            env.reset(seed=0, options=options)
    for seed in (-1, [1], [1, "a"]):
        with pytest.raises(ValueError, match="seed"):
            env.reset(seed=seed)
    env.reset(seed=0)
    for actions, message in ((np.zeros(2), "shape"), (np.full((2, 2), np.nan), "nan"), (np.zeros((3, 2)), "shape")):
        with pytest.raises(ValueError, match=message):
            env.step(actions)
    for settings in ({"num_envs": 0}, {"max_steps": 0}, {"pairs": "near"}, {"render_mode": "human"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            world(**settings)
    with pytest.raises(TypeError):
        world(1, speed=3)


def test_the_noisy_expert_needs_its_generator():
    place, goal = np.array([[50.0, 50.0]]), np.array([[20.0, 50.0]])
    with pytest.raises(ValueError, match="generator"):
        two_room_expert(place, goal, noise_std=2.0)
    noisy = two_room_expert(place, goal, noise_std=2.0, generator=np.random.default_rng(0))
    assert (np.abs(noisy) <= 1).all()
    np.testing.assert_allclose(two_room_expert(place, goal), [[-1, 0]])


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_pairs_are_seeded_and_held_out(protocol):
    few, many = sample_pairs(protocol, 20, seed=4), sample_pairs(protocol, 150, seed=4)
    assert (len(few), len(many)) == (20, 150)
    np.testing.assert_array_equal(few.start, many.start[:20])
    np.testing.assert_array_equal(few.goal, many.goal[:20])
    seen = np.concatenate([sample_pairs(protocol, 150, seed=seed, split="train").start for seed in range(5)])
    env = protocol.make(8)
    at_resets = [env.reset(seed=8 * index)[1]["position"] for index in range(5)]
    others = np.concatenate([seen, *at_resets, sample_pairs(protocol, 150, seed=5).start])
    assert not (many.start[:, None] == others[None]).all(axis=2).any()
    with pytest.raises(ValueError, match="count"):
        sample_pairs(protocol, 0, seed=0)
    with pytest.raises(ValueError, match="split"):
        sample_pairs(protocol, 1, seed=0, split="test")


def test_every_second_episode_near_wall_begins_there() -> None:
    env = DotWallVectorEnv(num_envs=600, pairs="near_wall")
    _, infos = env.reset(seed=0)
    beside = np.abs(infos["position"][:, 0] - infos["wall"])
    above = np.abs(infos["position"][:, 1] - infos["door"])
    assert beside.min() >= 2.6
    other_room = (infos["position"][:, 0] < infos["wall"]) != (infos["goal"][:, 0] < infos["wall"])
    assert other_room.all()
    _, elsewhere = DotWallVectorEnv(num_envs=600).reset(seed=0)
    np.testing.assert_array_equal(infos["wall"], elsewhere["wall"])
    moved = (infos["position"] != elsewhere["position"]).any(1)
    assert 0.4 < moved.mean() < 0.6
    assert (beside[moved] <= 10).all()
    at_door = (above[moved] <= 8).mean()
    assert 0.45 < at_door < 0.72  # two fifths, and some of the others by chance
