"""Sampling frames, dreaming on with a cache, and worlds on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forethought.modules.genie.dynamics import check_sampling
from forethought.modules.genie.files import load_part, load_prompts, load_settings, load_world, save_part
from forethought.modules.genie.outcomes import OutcomesConfig
from forethought.modules.genie.sampler import Sampling, draw_noise, fill_in, pick, schedule
from forethought.modules.genie.world import Genie

from .small import CONFIG, CONTEXT, frames, make, save, tokens

CPU = torch.device("cpu")


def noise_for(rows: int, sampling: Sampling, seed: int = 0) -> torch.Tensor:
    return draw_noise([torch.Generator().manual_seed(seed + row) for row in range(rows)], sampling.steps, 16)


@pytest.mark.parametrize("steps", [1, 2, 5, 16])
def test_the_schedule_fills_in_every_token_and_more_at_each_step(steps: int) -> None:
    counts = schedule(steps, 16)
    assert len(counts) == steps and counts[-1] == 16
    assert all(b - a > 0 for a, b in zip([0, *counts], counts, strict=False))
    if steps == 5:
        assert counts[0] < 16 / 5  # the cosine begins with few


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_tokens_that_are_filled_in_stay_and_none_is_left(order: str) -> None:
    seen: list[torch.Tensor] = []
    fixed = torch.randn(2, 16, 7, generator=torch.Generator().manual_seed(0))

    def logits_of(given: torch.Tensor) -> torch.Tensor:
        seen.append(given.clone())
        return fixed

    sampling = Sampling(5, 1.0, order)  # type: ignore[arg-type]
    done = fill_in(logits_of, 7, noise_for(2, sampling), sampling)
    assert ((done >= 0) & (done < 7)).all()
    for earlier, later in zip(seen, [*seen[1:], done], strict=True):
        known = earlier != 7
        assert torch.equal(earlier[known], later[known])
    assert [int((given != 7).sum(1)[0]) for given in seen] == [0, *schedule(5, 16)[:-1]]


def test_temperature_widens_the_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0]).expand(1, 3_000, 3)
    noise = torch.rand(1, 3_000, generator=torch.Generator().manual_seed(0))
    for temperature in (0.5, 1.0, 3.0):
        drawn, chance = pick(logits, noise, temperature)
        expected = (logits[0, 0] / temperature).softmax(0)
        shares = torch.bincount(drawn[0], minlength=3) / 3_000
        torch.testing.assert_close(shares, expected, atol=0.03, rtol=0)
        torch.testing.assert_close(chance[0, 0], expected[drawn[0, 0]])
    assert (pick(logits, noise, 0.0)[0] == 0).all()


def test_confidence_fills_in_the_surest_token_first_at_temperature_zero() -> None:
    logits = torch.zeros(1, 16, 4)
    logits[0, 9, 2] = 9.0
    seen: list[torch.Tensor] = []

    def logits_of(given: torch.Tensor) -> torch.Tensor:
        seen.append(given)
        return logits

    sampling = Sampling(16, 0.0, "confidence")
    fill_in(logits_of, 4, noise_for(1, sampling), sampling)
    assert seen[1][0, 9] == 2


@pytest.mark.parametrize(("steps", "temperature"), [(0, 1.0), (17, 1.0), (4, -1.0), (4, float("nan"))])
def test_impossible_sampling_is_refused(steps: int, temperature: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        check_sampling(steps, temperature, 16)


@pytest.mark.parametrize("injection", ["add", "prepend", "film"])
def test_cached_and_uncached_dreams_have_the_same_tokens(injection: str) -> None:
    world = make(injection=injection)  # type: ignore[arg-type]
    codes, actions = tokens()
    history = codes
    _, dream = world.begin(codes[:, : CONTEXT - 1], actions[:, : CONTEXT - 2])
    noise = noise_for(2, world.sampling)
    _, dream = world.step(dream, actions[:, -1], noise, world.sampling)
    plain = world.sample_uncached(history[:, : CONTEXT - 1], actions, noise, world.sampling)
    assert torch.equal(dream.tokens, plain)
    assert not torch.equal(plain, world.sample_uncached(history[:, : CONTEXT - 1], actions, 1 - noise, world.sampling))


def test_dreaming_leaves_the_prompt_alone_and_feeds_frames_back() -> None:
    world = make()
    codes, actions = tokens()
    before = codes.clone()
    _, first = world.begin(codes, actions)
    noise = [noise_for(2, world.sampling, seed) for seed in (0, 10)]
    taken = torch.zeros(2, dtype=torch.long)
    _, second = world.step(first, taken, noise[0], world.sampling)
    _, third = world.step(second, taken, noise[1], world.sampling)
    assert torch.equal(codes, before) and torch.equal(first.tokens, codes[:, -1])
    _, other = world.step(first, taken, noise[1], world.sampling)  # the same noise, without the second frame
    assert not torch.equal(third.tokens, other.tokens)


def test_actions_and_prompts_change_the_dream() -> None:
    world = make()
    codes, actions = tokens()
    noise = noise_for(2, world.sampling)
    _, dream = world.begin(codes, actions)
    ways = [world.step(dream, torch.full((2,), action), noise, world.sampling)[1].tokens for action in range(4)]
    assert len({tuple(way.flatten().tolist()) for way in ways}) == 4
    _, elsewhere = world.begin((codes + 3) % 16, actions)
    assert not torch.equal(
        world.step(elsewhere, torch.zeros(2, dtype=torch.long), noise, world.sampling)[1].tokens, ways[0]
    )


def test_a_dream_is_drawn_as_its_tokens_would_be() -> None:
    world = make()
    codes, actions = tokens()
    steps = torch.randint(4, (2, 6), generator=torch.Generator().manual_seed(3))
    noise = torch.stack([noise_for(2, world.sampling, seed) for seed in range(6)])
    drawn = world.rollout(codes, actions, steps, noise, world.sampling)
    _, dream = world.begin(codes, actions)
    all_tokens = [codes]
    for action, draws in zip(steps.unbind(1), noise, strict=True):
        _, dream = world.step(dream, action, draws, world.sampling, draw=False)
        all_tokens.append(dream.tokens[:, None])
    whole = world.tokenizer.decode(torch.cat(all_tokens, 1))
    torch.testing.assert_close(drawn, whole[:, CONTEXT:], atol=2e-4, rtol=1e-3)


def test_rows_dream_alone_as_they_do_together() -> None:
    world = make()
    codes, actions = tokens(batch=3)
    noise = noise_for(3, world.sampling)
    taken = torch.tensor([0, 1, 2])
    picture, dream = world.step(world.begin(codes, actions)[1], taken, noise, world.sampling)
    for row in range(3):
        one = slice(row, row + 1)
        alone, single = world.step(world.begin(codes[one], actions[one])[1], taken[one], noise[one], world.sampling)
        torch.testing.assert_close(alone, picture[one], atol=2e-4, rtol=1e-3)
        assert torch.equal(single.tokens, dream.rows(torch.tensor([row])).tokens)


def test_lower_precision_runs_and_stays_close() -> None:
    world = make()
    video = frames()
    with torch.autocast("cpu", torch.bfloat16):
        codes, actions = world.infer(video)
        _, dream = world.begin(codes, actions)
        picture, _ = world.step(dream, actions[:, 0], noise_for(2, world.sampling), world.sampling)
    exact = world.tokenizer.decode(codes)
    with torch.autocast("cpu", torch.bfloat16):
        rough = world.tokenizer.decode(codes)
    assert picture.isfinite().all()
    assert (rough.float() - exact).abs().mean() < 0.1 * exact.std()


# Files


def test_a_world_comes_back_as_it_was(tmp_path: Path) -> None:
    world = make(seed=3)
    folder = save(world, tmp_path / "world")
    again = load_world(folder, CPU)
    assert load_settings(folder) == (CONFIG, {"data": "noise"})
    assert load_prompts(folder, CONFIG).shape == (3, 2, 16, 16, 3)
    video = frames()
    for one, other in zip(world.infer(video), again.infer(video), strict=True):
        assert torch.equal(one, other)
    codes, actions = tokens()
    noise = noise_for(2, world.sampling)
    pictures = [w.step(w.begin(codes, actions)[1], actions[:, 0], noise, w.sampling)[0] for w in (world, again)]
    assert torch.equal(*pictures)
    patches = torch.randn(2, 16, 16)
    assert torch.equal(world.outcomes.judge(patches, actions[:, 0])[0], again.outcomes.judge(patches, actions[:, 0])[0])


def test_a_world_of_the_first_format_goes_on_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = replace(
        CONFIG,
        tokenizer=replace(CONFIG.tokenizer, changed=0.0),
        latent_action=replace(CONFIG.latent_action, pooling="all"),
        outcomes=OutcomesConfig(layers=0),
    )
    world = Genie(config).eval()
    folder = save(world, tmp_path / "world")
    told = json.loads((folder / "world.json").read_text())
    assert told["format"] == 2
    for part, setting in (("tokenizer", "changed"), ("latent_action", "pooling")):
        del told["config"][part][setting]
    del told["config"]["outcomes"]
    (folder / "world.json").write_text(json.dumps(told | {"format": 1}))
    assert load_settings(folder)[0] == config
    again, video = load_world(folder, CPU), frames()
    torch.testing.assert_close(again.latent_action.vectors(video), world.latent_action.vectors(video))
    patches, actions = torch.randn(2, 16, 16), tokens()[1][:, 0]
    assert torch.equal(again.outcomes(patches, actions)[0], world.outcomes(patches, actions)[0])
    for damage in ({"format": 3}, {"format": 1, "config": 5}, {"format": 1, "config": {"latent_action": 3}}):
        (folder / "world.json").write_text(json.dumps(told | damage))
        with pytest.raises(ValueError, match=r"world\.json"):
            load_settings(folder)


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no Genie world.*genie train"):
        load_world(tmp_path, CPU)
    folder = save(make(), tmp_path / "world")
    (folder / "tokenizer.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer yet"):
        load_world(folder, CPU)
    (folder / "tokenizer.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"tokenizer.safetensors is damaged"):
        load_world(folder, CPU)
    save_part(folder, "tokenizer", make().dynamics)
    with pytest.raises(ValueError, match=r"does not fit the settings"):
        load_world(folder, CPU)
    (folder / "prompts.npy").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"prompts.npy is damaged"):
        load_prompts(folder, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": "8"}, r"config.context is '8'"),
        ({"contxt": 8}, r"another version wrote it"),
        ({"dynamics": []}, r"config.dynamics is \[\]"),
        ({"context": 10**9}, "context 1000000000"),
        ({"height": -4}, "height -4"),
    ],
)
def test_settings_that_are_not_ours_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = save(make(), tmp_path / "world")
    content = json.loads((folder / "world.json").read_text())
    content["config"].update(change)
    (folder / "world.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_settings(folder)
    (folder / "world.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        load_settings(folder)


def test_outcomes_may_be_missing(tmp_path: Path) -> None:
    folder = save(make(), tmp_path / "world", parts=("tokenizer", "latent_action", "dynamics"))
    assert isinstance(load_world(folder, CPU), Genie)
    load_part(folder / "dynamics.safetensors", make().dynamics)
