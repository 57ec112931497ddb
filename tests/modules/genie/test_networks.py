"""What depends on what: causality, straight-through gradients, masks, and streams that equal batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from forethought.modules.genie.latent_action import LatentActionModel
from forethought.modules.genie.outcomes import Outcomes, OutcomesConfig
from forethought.modules.genie.patches import cut, cut_wide, join, to_bytes, to_unit
from forethought.modules.genie.quantisers import FiniteScalarQuantiser, VectorQuantiser, perplexity
from forethought.modules.genie.tokenizer import TokenizerConfig, VideoTokenizer
from forethought.modules.genie.transformer import Projections, SpaceTimeTransformer, lengths, number_ways, spelled_out
from torch.nn import functional as F

from .small import ACTIONS, CONTEXT, SIDE, frames, make, tokens

INJECTIONS = ["add", "prepend", "film"]
CLOSE = {"atol": 2e-4, "rtol": 1e-3}


def changed(steps: int, at: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two videos that differ in frame ``at`` only."""
    one = frames(steps=steps)
    two = one.clone()
    two[:, at] = 1 - two[:, at]
    return one, two


# Patches and the transformer


def test_patches_are_joined_as_they_were_cut() -> None:
    video = frames()
    assert torch.equal(join(cut(video, 4), 4, 16, 16), video)
    assert torch.equal(cut_wide(video, 4, 0).sum(-1), cut_wide(video, 4, 0).sum(-1))
    wide = cut_wide(video, 4, 2).unflatten(-1, (3, 8, 8))  # unfold keeps channels first
    narrow = cut(video, 4).unflatten(-1, (4, 4, 3)).movedim(-1, -3)
    assert torch.equal(wide[..., 2:6, 2:6], narrow)


def test_bytes_survive() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_unit(every)), every)


def test_a_frame_depends_on_its_past_and_no_further_back_than_the_context() -> None:
    torch.manual_seed(0)
    network = SpaceTimeTransformer(16, 1, 2, 3, (2, 2)).eval()
    x = torch.randn(1, 6, 4, 16)
    for at in range(6):
        other = x.clone()
        other[:, at] = torch.randn(4, 16)
        differs = (network(x) - network(other)).abs().amax((0, 2, 3)) > 1e-6
        assert differs.tolist() == [at <= t < at + 3 for t in range(6)]


def test_a_token_sees_all_places_of_its_frame() -> None:
    network = SpaceTimeTransformer(16, 1, 2, 3, (2, 2)).eval()
    x = torch.randn(1, 2, 4, 16)
    other = x.clone()
    other[:, 1, 0] = torch.randn(16)
    assert ((network(x) - network(other)).abs().amax(-1)[0, 1] > 1e-6).all()


@pytest.mark.parametrize("film", [False, True])
def test_a_stream_equals_the_batch_also_beyond_the_context(film: bool) -> None:
    torch.manual_seed(0)
    network = SpaceTimeTransformer(16, 2, 2, 3, (2, 2), film=film).eval()
    x, condition = torch.randn(2, 7, 4, 16), torch.randn(2, 7, 16) if film else None
    whole = network(x, condition=condition)
    past = network.begin(2, x.device)
    for t in range(7):
        one = None if condition is None else condition[:, t : t + 1]
        frame, keys, values = network.stream(x[:, t : t + 1], past, one)
        past = past.append(keys, values)
        torch.testing.assert_close(frame, whole[:, t : t + 1], **CLOSE)


def test_attention_spelled_out_is_torchs_with_its_gradients_and_stays_in_its_precision() -> None:
    torch.manual_seed(0)
    q, k, v, bias = torch.randn(5, 2, 3, 4), torch.randn(5, 2, 6, 4), torch.randn(5, 2, 6, 4), torch.randn(5, 2, 3, 6)
    bias[1, :, 0, 2:] = -torch.inf
    leaves = [x.requires_grad_() for x in (q, k, v, bias)]
    ours, torchs = spelled_out(*leaves), torch.nn.functional.scaled_dot_product_attention(q, k, v, bias)
    torch.testing.assert_close(ours, torchs)
    weight = torch.randn_like(ours)
    gradients = [torch.autograd.grad((weight * y).sum(), leaves, retain_graph=True) for y in (ours, torchs)]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)
        assert mine.abs().max() > 0.1
    with torch.autocast("cpu", torch.bfloat16):
        assert spelled_out(*leaves).dtype == torch.float32  # autocast would have multiplied in bfloat16


def test_rows_of_a_past_are_taken_and_put() -> None:
    network = SpaceTimeTransformer(16, 1, 2, 3, (2, 2)).eval()
    x = torch.randn(3, 1, 4, 16)
    _, keys, values = network.stream(x, network.begin(3, x.device))
    past = network.begin(3, x.device).append(keys, values)
    fresh = network.begin(1, x.device)
    mixed = past.put(torch.tensor([1]), fresh)
    assert mixed.valid.tolist() == [[False, True], [False, False], [False, True]]
    assert torch.equal(mixed.rows(torch.tensor([2, 0])).keys, past.keys[[2, 0]])


def test_queries_and_keys_are_normed_and_values_are_not() -> None:
    torch.manual_seed(0)
    project = Projections(16, 2)
    x = torch.randn(3, 5, 16)
    q, k, v = project(x)
    louder = project(50 * x)
    torch.testing.assert_close(louder[0], q, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(louder[1], k, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(louder[2], 50 * v)
    torch.testing.assert_close(q.square().mean(-1), torch.ones(3, 2, 5), rtol=1e-3, atol=1e-3)


def test_neighbours_have_the_same_way_everywhere() -> None:
    ways, length = number_ways((3, 4), 1), lengths((3, 4))
    assert ways.shape == (13, 13) and len(length) == 5 * 7 + 1
    assert (ways[0] == ways[:, 0]).all() and length[ways[0]].eq(0).all()  # the extra token
    grid = ways[1:, 1:].reshape(3, 4, 3, 4)
    right = {int(grid[row, column, row, column + 1]) for row in range(3) for column in range(3)}
    down = {int(grid[row, column, row + 1, column]) for row in range(2) for column in range(4)}
    assert len(right) == len(down) == 1 and right != down
    assert length[right.pop()] == length[down.pop()] == 1
    assert length[grid[0, 0, 2, 3]] == pytest.approx(13**0.5)


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads divide"):
        SpaceTimeTransformer(10, 1, 4, 3, (2, 2))
    with pytest.raises(ValueError, match=r"16×16 cannot be cut into patches of 5×5 \(tokenizer"):
        VideoTokenizer(TokenizerConfig(patch=5), 16, 16, 4)


# Quantisers


def test_fsq_finds_all_codes_and_looks_them_up() -> None:
    quantiser = FiniteScalarQuantiser((4, 3, 2))
    found = quantiser(4 * torch.randn(4_000, 3, generator=torch.Generator().manual_seed(0)))
    assert set(found.codes.tolist()) == set(range(24))
    torch.testing.assert_close(quantiser.look_up(found.codes), found.vectors)
    assert len(found.vectors.unique(dim=0)) == 24


def test_vq_takes_the_nearest_code() -> None:
    quantiser = VectorQuantiser(6, 3).eval()
    x = torch.randn(50, 3)
    distance = (x[:, None] - quantiser.codebook).square().sum(-1)
    found = quantiser(x)
    assert torch.equal(found.codes, distance.argmin(1))
    torch.testing.assert_close(found.vectors, quantiser.codebook[found.codes])


@pytest.mark.parametrize("quantiser", [FiniteScalarQuantiser((4, 4)), VectorQuantiser(8, 2).eval()])
def test_the_gradient_goes_straight_through(quantiser: torch.nn.Module) -> None:
    x = torch.randn(20, 2, requires_grad=True)
    weight = torch.randn(20, 2)
    (quantiser(x).vectors * weight).sum().backward()
    assert x.grad is not None
    if isinstance(quantiser, VectorQuantiser):
        torch.testing.assert_close(x.grad, weight)
    else:
        assert (x.grad.sign() == weight.sign()).all()


def test_codes_follow_the_inputs_and_unused_ones_are_reset() -> None:
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(0)
    centres = torch.tensor([[5.0, 5.0], [-5.0, 5.0], [5.0, -5.0], [-5.0, -5.0]])
    quantiser = VectorQuantiser(4, 2, decay=0.8, patience=5)
    quantiser.codebook.copy_(torch.tensor([[0.0, 0.0], [90.0, 0.0], [90.0, 1.0], [90.0, 2.0]]))
    quantiser.total.copy_(quantiser.codebook)
    for _ in range(100):
        x = centres[torch.randint(4, (64,), generator=draws)] + 0.1 * torch.randn(64, 2, generator=draws)
        quantiser(x, draws)
    assert quantiser.codebook.abs().max() < 6  # three were dead and far away
    assert perplexity(quantiser(centres.repeat(50, 1) + 0.1 * torch.randn(200, 2, generator=draws)).codes, 4)[0] == 1
    frozen = quantiser.codebook.clone()
    quantiser(x)  # without a generator nothing is learned
    quantiser.eval()(x, draws)
    assert torch.equal(quantiser.codebook, frozen)


def test_only_codes_out_of_use_are_reset_and_not_before_their_time() -> None:
    quantiser = VectorQuantiser(2, 1, patience=3)
    for tensor in (quantiser.codebook, quantiser.total):
        tensor.copy_(torch.tensor([[0.0], [100.0]]))
    for update in range(1, 4):
        quantiser(torch.full((8, 1), 1.0), torch.Generator().manual_seed(0))
        assert quantiser.idle.tolist() == [0, update if update < 3 else 0]
        assert abs(float(quantiser.codebook[1]) - (100 if update < 3 else 1)) < 1e-3
        assert 0 < float(quantiser.codebook[0]) < 1  # which follows the inputs and is never put anywhere


def test_codes_are_put_where_inputs_gather() -> None:
    draws = torch.Generator().manual_seed(1)
    centres = 10 * torch.randn(5, 4, generator=draws)
    x = centres[torch.randint(5, (300,), generator=draws)] + 0.1 * torch.randn(300, 4, generator=draws)
    quantiser = VectorQuantiser(5, 4)
    quantiser.place(x, draws)
    assert torch.cdist(centres, quantiser.codebook).amin(1).max() < 0.2


def test_perplexity_counts_codes_in_use() -> None:
    assert perplexity(torch.tensor([0, 0, 1, 1]), 4) == pytest.approx((0.5, 2.0))
    assert perplexity(torch.zeros(9, dtype=torch.long), 4) == pytest.approx((0.25, 1.0))


# Tokenizer


def test_tokens_and_pictures_do_not_see_the_future() -> None:
    tokenizer = make().tokenizer
    for at in range(1, CONTEXT):
        one, two = changed(CONTEXT, at)
        codes, others = tokenizer.encode(one), tokenizer.encode(two)
        assert torch.equal(codes[:, :at], others[:, :at])
        assert not torch.equal(codes[:, at], others[:, at])
        mixed = torch.cat([codes[:, :at], others[:, at:]], 1)
        before, after = tokenizer.decode(codes), tokenizer.decode(mixed)
        torch.testing.assert_close(before[:, :at], after[:, :at])
        assert not torch.allclose(before[:, at], after[:, at])


def test_frames_drawn_one_by_one_are_those_of_the_clip() -> None:
    tokenizer = make().tokenizer
    codes, _ = tokens(steps=2 * CONTEXT)
    whole, past = tokenizer.decode(codes), tokenizer.begin(2, codes.device)
    alone = tokenizer.decode(codes[:, -1:])
    for t in range(2 * CONTEXT):
        frame, past = tokenizer.decode_next(codes[:, t], past)
        torch.testing.assert_close(frame, whole[:, t], **CLOSE)
    assert not torch.allclose(alone[:, 0], whole[:, -1], **CLOSE)  # so the past does matter


@pytest.mark.parametrize("quantiser", ["fsq", "vq"])
def test_the_reconstruction_alone_moves_the_encoder(quantiser: str) -> None:
    config = TokenizerConfig(width=16, encoder_blocks=1, decoder_blocks=1, heads=2, commitment=0.0)
    tokenizer = VideoTokenizer(TokenizerConfig(**{**vars(config), "quantiser": quantiser}), 16, 16, CONTEXT)
    tokenizer.loss(frames())[0].backward()
    for parameter in (*tokenizer.embed.parameters(), *tokenizer.encoder.parameters()):
        assert parameter.grad is not None
    assert tokenizer.to_code.weight.grad is not None and tokenizer.to_code.weight.grad.abs().max() > 0
    before = tokenizer.quantiser.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    tokenizer.loss(frames(), torch.Generator().manual_seed(0))
    if quantiser == "vq":  # the codebook learns without a gradient
        assert not torch.equal(before["codebook"], tokenizer.quantiser.state_dict()["codebook"])


def test_the_tokenizer_minds_most_what_changes() -> None:
    with pytest.raises(ValueError, match=r"tokenizer.changed is -1.0"):
        VideoTokenizer(TokenizerConfig(changed=-1.0), SIDE, SIDE, CONTEXT)
    config = TokenizerConfig(patch=4, width=16, encoder_blocks=1, decoder_blocks=1, heads=2, levels=(4, 4))
    torch.manual_seed(0)
    alike = VideoTokenizer(replace(config, changed=0.0), SIDE, SIDE, CONTEXT).eval()
    video = frames(steps=1).expand(-1, 3, -1, -1, -1).clone()
    video[:, 2, :4, :4] = 1 - video[:, 2, :4, :4]
    total, _, drawn = alike.loss(video)
    square = (drawn - video).square()
    torch.testing.assert_close(total, square.mean())
    mind = VideoTokenizer(replace(config, changed=1e6), SIDE, SIDE, CONTEXT).eval()
    mind.load_state_dict(alike.state_dict())
    moved = (video[:, 2, :4, :4] - video[:, 1, :4, :4]).abs().amax(-1) > 0.05
    torch.testing.assert_close(mind.loss(video)[0], square[:, 2, :4, :4][moved].mean(), rtol=1e-3, atol=0)
    torch.testing.assert_close(mind.loss(video[:, :1])[0], square[:, 0].mean())  # nothing is known to change


# Latent actions


def test_an_action_is_told_by_the_next_frame_and_not_by_the_one_after() -> None:
    model = make().latent_action
    for at in range(1, CONTEXT):
        one, two = changed(CONTEXT, at)
        differs = (model.vectors(one) - model.vectors(two)).abs().amax((0, 2)) > 1e-6
        assert differs.tolist() == [t + 1 >= at for t in range(CONTEXT - 1)]


def test_the_decoder_sees_no_target_and_hears_the_action() -> None:
    model = make().latent_action
    actions = model.quantiser.look_up(tokens()[1])
    for at in range(CONTEXT):
        one, two = changed(CONTEXT, at)
        drawn, other = model.draw(one[:, :-1], actions), model.draw(two[:, :-1], actions)
        differs = (drawn - other).abs().amax((0, 2, 3, 4)) > 1e-6
        assert differs.tolist() == [t >= at for t in range(CONTEXT - 1)]  # entry t draws frame t + 1
    louder = actions.clone()
    louder[:, 2] += 1
    heard = (model.draw(one[:, :-1], louder) - model.draw(one[:, :-1], actions)).abs().amax((0, 2, 3, 4)) > 1e-6
    assert heard.tolist() == [False, False, True, True]


def test_hidden_history_is_not_seen() -> None:
    model = make().latent_action
    actions = model.quantiser.look_up(tokens()[1])
    one, two = changed(CONTEXT, 0)
    alone = torch.eye(CONTEXT - 1, dtype=torch.bool).expand(2, -1, -1)
    drawn, other = model.draw(one[:, :-1], actions, alone), model.draw(two[:, :-1], actions, alone)
    torch.testing.assert_close(drawn[:, 1:], other[:, 1:])
    draws = torch.Generator().manual_seed(0)
    seen = torch.stack([model._hide(1, 3, draws, torch.device("cpu"))[0] for _ in range(400)]).float().mean(0)
    assert (seen.diagonal() == 1).all()
    assert (seen[~torch.eye(3, dtype=torch.bool)] - model.config.history).abs().max() < 0.1


def test_history_is_hidden_where_the_model_learns() -> None:
    """Or the decoder would foretell the next frame from the past and ignore the action (Genie, D.1)."""
    one, two = changed(CONTEXT, 0)
    for history, alike in ((0.0, True), (1.0, False)):
        model = showing(history)
        pictures = [model.loss(clip, torch.Generator().manual_seed(0)).drawn[:, 2:] for clip in (one, two)]
        assert torch.allclose(*pictures, atol=1e-5) is alike


def showing(history: float) -> LatentActionModel:
    """A model that shows its decoder so much of the past."""
    model = make().latent_action
    model.config = replace(model.config, history=history)
    return model


@pytest.mark.parametrize("quantise", [False, True])
def test_the_picture_alone_moves_the_action_encoder(quantise: bool) -> None:
    model = make().latent_action.train()
    told = model.loss(frames(), torch.Generator().manual_seed(0), quantise)
    told.error.backward()
    assert model.to_code.weight.grad is not None and model.to_code.weight.grad.abs().max() > 0


def test_steps_in_which_nothing_changes_are_told_alike_whatever_the_picture() -> None:
    """The patches that change are asked; where all were, the picture itself would speak louder than a small figure."""
    still = [frames(steps=1, seed=seed).expand(-1, CONTEXT, -1, -1, -1) for seed in (0, 1)]
    model = make().latent_action
    torch.testing.assert_close(model.vectors(still[0]), model.vectors(still[1]))
    moved = still[0].clone()
    moved[:, 2, :4, :4] = 1 - moved[:, 2, :4, :4]
    heard = (model.vectors(moved) - model.vectors(still[0])).abs().amax((0, 2)) > 0.01
    assert heard[1] and not heard[0]
    everywhere = LatentActionModel(replace(model.config, pooling="all"), SIDE, SIDE, CONTEXT).eval()
    everywhere.load_state_dict(model.state_dict())
    assert (everywhere.vectors(still[0]) - everywhere.vectors(still[1])).abs().max() > 0.01


# Outcomes


@pytest.mark.parametrize("layers", [0, 2])
def test_one_patch_among_many_is_heard_and_not_by_the_mean(layers: int) -> None:
    torch.manual_seed(0)
    heads = Outcomes(OutcomesConfig(layers, 16), 16, ACTIONS, (8, 8))
    draws = torch.Generator().manual_seed(1)

    def batch(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        patches = torch.randn(count, 64, 16, generator=draws)
        marked = torch.rand(count, generator=draws) < 0.5
        patches[marked, torch.randint(64, (count,), generator=draws)[marked], 0] += 6.0
        return patches, torch.randint(ACTIONS, (count,), generator=draws), marked.float()

    optimiser = torch.optim.AdamW(heads.parameters(), 3e-3)
    for _ in range(250):
        patches, actions, marked = batch(64)
        loss = F.binary_cross_entropy_with_logits(heads(patches, actions)[1], marked)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    patches, actions, marked = batch(512)
    right = ((heads.judge(patches, actions)[1] > 0.5) == (marked > 0.5)).float().mean()
    assert (right > 0.9) == bool(layers), right


def test_outcome_heads_name_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"outcomes.layers is -1 and channels 64"):
        Outcomes(OutcomesConfig(layers=-1), 16, ACTIONS, (8, 8))


# Dynamics


@pytest.mark.parametrize("injection", INJECTIONS)
def test_logits_see_the_past_their_action_and_what_is_given(injection: str) -> None:
    dynamics = make(injection=injection).dynamics  # type: ignore[arg-type]
    codes, actions = tokens()
    given = codes[:, 1:].clone()
    given[:, :, ::2] = dynamics.mask
    base = dynamics.predict(codes, given, actions)[0]

    def differs(clean: torch.Tensor, filled: torch.Tensor, taken: torch.Tensor) -> list[bool]:
        return ((dynamics.predict(clean, filled, taken)[0] - base).abs().amax((0, 2, 3)) > 1e-6).tolist()

    for at in range(CONTEXT):  # entry t holds the logits of frame t + 1
        clean = codes.clone()
        clean[:, at] = (clean[:, at] + 1) % 16
        assert differs(clean, given, actions) == [t + 1 > at for t in range(CONTEXT - 1)]
    for at in range(CONTEXT - 1):
        filled, taken = given.clone(), actions.clone()
        filled[:, at, 1] = (filled[:, at, 1] + 1) % 16
        assert differs(codes, filled, actions) == [t == at for t in range(CONTEXT - 1)]
        taken[:, at] = (taken[:, at] + 1) % ACTIONS
        assert differs(codes, given, taken) == [t >= at for t in range(CONTEXT - 1)]


@pytest.mark.parametrize("injection", INJECTIONS)
def test_the_stream_gives_the_logits_of_training(injection: str) -> None:
    dynamics = make(injection=injection).dynamics  # type: ignore[arg-type]
    codes, actions = tokens()
    given = torch.full_like(codes[:, 1:], dynamics.mask)
    whole, hidden = dynamics.predict(codes, given, actions)
    past = dynamics.begin(2, codes.device)
    arrivals = dynamics.arrivals(actions)
    for t in range(CONTEXT):
        if t:
            torch.testing.assert_close(dynamics.logits(given[:, t - 1], arrivals[:, t], past), whole[:, t - 1], **CLOSE)
        frame, past = dynamics.finish(codes[:, t], arrivals[:, t], past)
        torch.testing.assert_close(frame, hidden[:, t], **CLOSE)


def test_the_loss_is_on_masked_tokens_and_masks_differ_between_clips() -> None:
    dynamics = make().dynamics
    codes, actions = tokens(batch=64)
    seen: list[torch.Tensor] = []
    predict = dynamics.predict

    def watch(clean: torch.Tensor, given: torch.Tensor, taken: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(given)
        return predict(clean, given, taken)

    dynamics.predict = watch  # type: ignore[method-assign]
    before = codes.clone()
    loss, accuracy = dynamics.loss(codes, actions, torch.Generator().manual_seed(0))
    assert torch.equal(codes, before)  # the targets were not overwritten
    hidden = seen[0] == dynamics.mask
    assert torch.equal(seen[0][~hidden], codes[:, 1:][~hidden])
    share = hidden.float().mean(2)
    assert share.min() < 0.6 and share.max() > 0.9 and abs(share.mean() - 0.75) < 0.05
    assert share.std(0).min() > 0.05  # a rate of its own for each clip
    assert loss > 1 and 0 <= accuracy < 0.5


def test_corruption_replaces_a_share_of_the_past() -> None:
    dynamics = make(corruption=0.4).dynamics
    codes, _ = tokens(batch=200)
    wrong = (dynamics.corrupt(codes, torch.Generator().manual_seed(0)) != codes).float().mean((1, 2))
    assert wrong.max() < 0.55 and wrong.min() < 0.05
    assert abs(float(wrong.mean()) - 0.2 * 15 / 16) < 0.03
    untouched = make(corruption=0.0).dynamics
    assert torch.equal(untouched.corrupt(codes, torch.Generator().manual_seed(0)), codes)


def test_dynamics_learn_from_a_corrupted_past() -> None:
    """What it dreams is its own past, and never perfect."""
    codes, actions = tokens(batch=16)
    seen: dict[float, list[torch.Tensor]] = {}
    for share in (0.0, 0.8):
        dynamics = make(corruption=share).dynamics
        predict = dynamics.predict
        asked: list[torch.Tensor] = seen.setdefault(share, [])

        def watch(clean: Any, given: Any, taken: Any, asked: Any = asked, predict: Any = predict) -> Any:
            asked.extend((clean, given))
            return predict(clean, given, taken)

        dynamics.predict = watch  # type: ignore[method-assign]
        dynamics.loss(codes, actions, torch.Generator().manual_seed(0))
    assert torch.equal(seen[0.0][0], codes)
    assert 0.2 < (seen[0.8][0] != codes).float().mean() < 0.6
    shown = seen[0.8][1] != dynamics.mask
    assert torch.equal(seen[0.8][1][shown], codes[:, 1:][shown])  # what is given of the new frame is right
