"""Lines that matter, each with a way to get it wrong that a named test must notice.

    python tests/mutations.py            all of them
    python tests/mutations.py 3 17 20    some of them
    python tests/mutations.py --control  nothing is changed, and every named test must pass

The package is copied to a temporary folder, one line is changed there, the named test is run and must fail. Run by hand
(a few minutes); `tests/test_mutations.py` sees to it that the lines and tests listed here exist.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 900


@dataclass(frozen=True)
class Mutation:
    """In ``file`` the text ``old``, which occurs once, becomes ``new``; then ``test`` must fail."""

    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    # ---- returns and energies
    Mutation("modules/critic.py", "mixed = (1 - trace) * values[..., t, :] + trace * following",
             "mixed = trace * values[..., t, :] + (1 - trace) * following",
             "modules/test_critic.py::test_lambda_returns_equal_a_slow_recursion"),
    Mutation("modules/critic.py", "following = values[..., -1, :]", "following = values[..., 0, :]",
             "modules/test_critic.py::test_lambda_returns_equal_a_slow_recursion"),
    Mutation("modules/critic.py", "discount * continuation[..., t, None] * mixed", "discount * mixed",
             "modules/test_critic.py::test_nothing_passes_through_an_ending"),
    Mutation("modules/cost.py", "            -reward, ended, effort,", "            reward, ended, effort,",
             "modules/test_cost.py::test_drives_by_hand"),
    Mutation("modules/cost.py", "weights.maximum(weights.new_tensor(_FLOOR))", "weights",
             "modules/test_cost.py::test_no_weights_make_the_end_attractive"),
    Mutation("modules/cost.py", "torch.arange(1, horizon + 1,", "torch.arange(0, horizon,",
             "modules/test_cost.py::test_plan_energy_equals_a_slow_loop"),
    Mutation("modules/cost.py", "(discounts * alive[..., :-1] * costs)", "(discounts * alive[..., 1:] * costs)",
             "modules/test_cost.py::test_the_ending_is_felt_and_nothing_after_it"),
    Mutation("modules/two_hot.py", "target.scatter_(-1, index, (1 - weight).unsqueeze(-1))",
             "target.scatter_(-1, index, weight.unsqueeze(-1))",
             "modules/test_two_hot.py::test_encode_is_exact_in_symlog_space"),
    Mutation("agent/behaviour.py", "costs = torch.where(cut > 0, values[:, :-1], costs)",
             "costs = torch.where(cut > 0, values[:, 1:], costs)",
             "agent/test_learning.py::test_returns_of_remembered_chains_are_what_a_perfect_critic_says"),
    Mutation("agent/behaviour.py", "return target, 1 - window.truncated",
             "return target, torch.ones_like(window.truncated)",
             "agent/test_learning.py::test_returns_of_remembered_chains_are_what_a_perfect_critic_says"),
    Mutation("agent/behaviour.py", "goes_on = (1 - window.terminated) * (1 - window.truncated)",
             "goes_on = 1 - window.truncated",
             "agent/test_learning.py::test_returns_of_remembered_chains_are_what_a_perfect_critic_says"),
    Mutation("agent/modes.py", "energies.mean(-1) + risk * energies.std", "energies.mean(-1) - risk * energies.std",
             "agent/test_modes.py::test_energy_of_an_ensemble_is_mean_and_spread_over_its_members"),
    Mutation("agent/hindsight.py", "energy = energy.reshape(*energy.shape[:-1], count, members).mean(-1)",
             "energy = energy.reshape(*energy.shape[:-1], members, count).mean(-2)",
             "agent/test_hindsight.py::test_every_course_is_judged_by_every_goal_as_it_is_alone"),
    Mutation("agent/augmentation.py", "left + right : end + right]", "left : end]",
             "agent/test_augmentation.py::test_random_shift_moves_whole_windows"),
    Mutation("planners/actions.py", "share = (ranks(len(low)) + within) / candidates", "share = within",
             "planners/test_sampling.py::test_spread_actions_cover_every_component_evenly"),
    Mutation("modules/memory.py", "self._encoded[slots] = self.changed[slots]", "self._encoded[slots] = 0",
             "modules/test_memory.py::test_only_blocks_with_new_entries_are_encoded_again"),
    Mutation("agent/hindsight.py", "go_on = seeking(distance) * known + (1 - known)",
             "go_on = seeking(distance) * known",
             "agent/test_walks.py::test_a_walk_costs_what_its_steps_cost_and_what_the_critic_expects_after_them"),
    Mutation("agent/behaviour.py", "weights[0] = count / 2", "weights[0] = count / 2 / (count - 1)",
             "agent/test_walks.py::test_the_goal_that_was_asked_for_counts_as_much_as_all_that_were_seen"),
    Mutation("modules/memory.py", "drawn[torch.from_numpy(known).to(drawn.device), 0] = wanted",
             "drawn[torch.from_numpy(known).to(drawn.device), -1] = wanted",
             "modules/test_memory.py::test_goals_are_those_of_the_windows_first_episode"),
    Mutation("agent/hindsight.py", "late = configuration.discount ** (steps - known.shape[-1])",
             "late = configuration.discount ** (known.shape[-1] - steps)",
             "agent/test_walks.py::test_a_walk_costs_what_its_steps_cost_and_what_the_critic_expects_after_them"),
    Mutation("agent/behaviour.py", "cheaper = walked.energy < critic", "cheaper = walked.energy > critic",
             "agent/test_walks.py::test_the_expectile_says_how_much_the_better_walks_count"),
    Mutation("agent/training.py", "        if count < before:", "        if count <= before:",
             "agent/test_training.py::test_rounds_go_on_with_perception_at_rest"),
    # ---- tasks, lessons and limits
    Mutation("agent/modes.py", "State(self.s.latent[some])", "State(self.s.latent[:together][: len(actions[some])])",
             "agent/test_modes.py::test_many_environments_are_imagined_a_few_at_a_time"),
    Mutation("agent/behaviour.py", "left = behaviour.final_rate + (1 - behaviour.final_rate) * 0.5",
             "left = 1 + 0 * 0.5",
             "agent/test_training.py::test_critic_and_actor_slow_down_in_the_final_updates_alone"),
    Mutation("agent/behaviour.py", "gain.clamp(min=0) / max(self.spread, 1.0)", "1.0",
             "agent/test_self_imitation.py::test_the_actor_comes_to_do_what_was_remembered_to_be_better"),
    Mutation("agent/behaviour.py", "masked_mean(-weight * policy.log_probability(window.action), mask)",
             "masked_mean(-weight * policy.log_probability(window.action), torch.ones_like(mask))",
             "agent/test_self_imitation.py::test_where_time_ran_out_nothing_is_known_to_be_better"),
    Mutation("agent/distinct.py", "max(config.action_repeat, _SHOWS)", "config.action_repeat",
             "agent/test_distinct.py::test_what_shows_a_frame_later_is_told_apart_where_actions_are_held_for_one"),
    Mutation("agent/comparison.py", 'buttons", world=world)', 'buttons")',
             "agent/test_distinct.py::test_chance_plays_with_all_buttons_and_with_those_of_the_agent"),
    Mutation("agent/behaviour.py", "-behaviour.remembered * behaviour.entropy",
             "behaviour.remembered * behaviour.entropy",
             "agent/test_self_imitation.py::test_where_nothing_came_out_well_entropy_alone_speaks"),
    Mutation("planners/sampling.py", "draw_categorical(old.probabilities, components, 1, generator)",
             "draw_categorical(old.probabilities.roll(1, -1), components, 1, generator)",
             "planners/test_sampling.py::test_drawn_actions_come_as_often_as_the_plan_says"),
    Mutation("agent/behaviour.py", "configuration = replace(configuration, u=u, v=u)", "pass",
             "agent/test_weights.py::test_one_actor_serves_tasks_that_it_was_not_given"),
    Mutation("modules/actor.py", "found = found * (1 + scale) + shift", "pass",
             "agent/test_weights.py::test_one_actor_serves_tasks_that_it_was_not_given"),
    Mutation("agent/policies.py", "actor=copy.deepcopy(agent.modules.actor))", "actor=agent.modules.actor)",
             "agent/test_policies.py::test_a_distilled_agent_reacts_as_the_other_plans"),
    Mutation("agent/limits.py", "following[~alive] = now[~alive][:, None]", "pass",
             "agent/test_limits.py::test_a_course_costs_what_it_costs_when_it_is_played_by_itself"),
    # ---- memory
    Mutation("modules/memory.py", "over = np.cumsum(ended, axis=1) > 0", "over = ended",
             "modules/test_memory.py::test_masks_stay_shut_after_a_second_ending"),
    Mutation("modules/memory.py", "np.concatenate([np.ones_like(over[:, :1]), ~over[:, :-1]], axis=1)", "~over",
             "modules/test_memory.py::test_masks_at_the_end_of_an_episode"),
    Mutation("modules/memory.py", "margin = self.history - 1 if self.filled == self.length else 0", "margin = 0",
             "modules/test_memory.py::test_history_is_never_read_from_overwritten_entries"),
    Mutation("modules/memory.py", "np.where(self._ended, 0, self._age + 1)", "(self._age + 1)",
             "modules/test_memory.py::test_history_never_crosses_the_start_of_an_episode"),
    Mutation("modules/memory.py", 'self.data["truncated"][:, last] = cut', 'self.data["truncated"][:, last] = True',
             "modules/test_memory.py::test_break_streams_leaves_a_termination_as_it_was"),
    # ---- networks, and who may be taught
    Mutation("modules/regularisers.py", "parameter.lerp_(new, rate)", "parameter.lerp_(new, 1 - rate)",
             "modules/test_regularisers.py::test_a_slow_copy_follows_and_keeps_the_buffers_up_to_date"),
    Mutation("modules/regularisers.py", "return (known.unsqueeze(-2) == 0) & ~itself",
             "return (known.unsqueeze(-1) == 0) & ~itself",
             "modules/test_regularisers.py::test_samples_left_out_are_neither_compared_nor_compared_with"),
    Mutation("modules/actor.py", "return -(target * torch.cat(self._components(), dim=-1)).sum(-1)",
             "return (target * torch.cat(self._components(), dim=-1)).sum(-1)",
             "modules/test_actor.py::test_categorical_imitation_is_least_at_the_target"),
    Mutation("modules/world_model.py", "return iota, 1 - ended", "return iota, ended",
             "modules/test_world_model.py::test_channels"),
    Mutation("modules/world_model.py", "self.calls += carry[0].numel() // carry[0].shape[-1]", "self.calls += 1",
             "modules/test_world_model.py::test_every_single_prediction_is_counted"),
    Mutation("modules/genie/quantisers.py", "Quantised(x + (vectors - x).detach(), codes", "Quantised(vectors, codes",
             "modules/genie/test_networks.py::test_the_gradient_goes_straight_through"),
    Mutation("modules/genie/quantisers.py", "bounded + (bounded.round() - bounded).detach()", "bounded.round()",
             "modules/genie/test_networks.py::test_the_gradient_goes_straight_through"),
    Mutation("modules/genie/quantisers.py", "self.idle[hits > 0] = 0", "self.idle[hits == 0] = 0",
             "modules/genie/test_networks.py::test_only_codes_out_of_use_are_reset_and_not_before_their_time"),
    Mutation("agent/criterion.py", "return latent[:, 1:].detach() if detach else latent[:, 1:]",
             "return latent[:, 1:]",
             "agent/test_criterion.py::test_the_target_of_the_prediction_can_be_held_still"),
    Mutation("agent/criterion.py", "    with torch.no_grad():\n        slow: Tensor = target_perception(reached)",
             "    with torch.enable_grad():\n        slow: Tensor = target_perception(reached)",
             "agent/test_criterion.py::test_a_slow_encoder_is_predicted_and_not_taught"),
    Mutation("agent/criterion.py", "valid = window.valid[:, where]", "valid = torch.ones_like(window.valid[:, where])",
             "agent/test_criterion.py::test_nothing_after_the_end_of_an_episode_enters_the_loss"),
    Mutation("agent/behaviour.py", "loss = masked_mean((energy - expected) * chosen, dream.alive)",
             "loss = masked_mean((expected - energy) * chosen, dream.alive)",
             "agent/test_dreams.py::test_a_discrete_actor_comes_to_do_what_costs_least"),
    # ---- planners
    Mutation("planners/search.py", "dim=1, largest=False)", "dim=1, largest=True)",
             "planners/test_contract.py::test_elites_come_best_first"),
    Mutation("planners/mppi.py", "(-gaps / self.temperature).softmax(1)", "(gaps / self.temperature).softmax(1)",
             "planners/test_mppi.py::test_weights_are_those_of_the_formula"),
    Mutation("planners/gradient.py", "actions = actions - size * search.half * mean / root",
             "actions = actions + size * search.half * mean / root",
             "planners/test_gradient.py::test_every_iteration_is_a_step_of_adam"),
    Mutation("planners/sampling.py", ".add_(steps).clamp_(max=horizon - 1)", ".sub_(steps).clamp_(min=0)",
             "planners/test_proposals.py::test_shift_moves_the_plan_and_forgets_its_end"),
    Mutation("planners/tree.py", "(self.highest[:, None] - energy) /", "(energy - self.lowest[:, None]) /",
             "planners/test_tree.py::test_it_equals_a_tree_search_written_plainly"),
    Mutation("planners/beam.py", "total, share = total + share * cost, share * factor",
             "total, share = total + cost, share * factor",
             "planners/test_beam.py::test_it_equals_a_beam_search_written_plainly"),
    # ---- environments and measurements
    Mutation("envs/action_repeat.py", "out=rewards, where=~ended)", "out=rewards, where=ended)",
             "envs/test_make.py::test_action_repeat_sums_until_the_first_end_and_carries_the_rest"),
    Mutation("envs/procgen.py", 'truncated = ended & (self._steps >= self.step_limit) & ~infos["success"]',
             "truncated = ended & False", "envs/test_procgen.py::test_time_out_is_truncation"),
    Mutation("envs/room_base.py", "truncated = (self._steps >= self.max_steps) & ~terminated",
             "truncated = (self._steps > self.max_steps) & ~terminated",
             "envs/test_rooms.py::test_an_ended_episode_hands_over_its_last_observation_and_infos"),
    Mutation("agent/modes.py", "return energy + c.habit * self._surprise(imagined, actions) if c.habit else energy",
             "return energy", "agent/test_modes.py::test_with_all_habit_a_plan_is_what_mode_1_would_do"),
    Mutation("agent/modes.py", "before = each.latent[..., :-1, :]", "before = each.latent[..., 1:, :]",
             "agent/test_modes.py::test_habit_is_the_actors_surprise_along_the_course"),
    Mutation("agent/modes.py", "cost = cost - self.configuration.habit *", "cost = cost + self.configuration.habit *",
             "agent/test_modes.py::test_step_by_step_habit_costs_the_same"),
    # ---- the latent variable
    Mutation("agent/inference.py", "carry = tuple(part[rows, chosen] for part in after)",
             "carry = tuple(part[rows, 0] for part in after)",
             "agent/test_latent_variable.py::test_a_roll_out_along_codes_is_told_by_each_outcome"),
    Mutation("agent/inference.py", "share = (doubted - _badness(", "share = (doubted + _badness(",
             "agent/test_latent_variable.py::test_codes_stand_for_the_outcomes_of_a_fork"),
    Mutation("agent/inference.py", "            if predicts:", "            if True:",
             "agent/test_latent_variable.py::test_codes_are_alike_until_there_is_something_to_predict"),
    Mutation("agent/criterion.py", "told = window.valid if world_model.config.events else window.known",
             "told = window.known",
             "agent/test_latent_variable.py::test_what_comes_after_an_end_is_not_seen_but_its_reward_tells_the_code"),
    Mutation("agent/inference.py", "priors.append(-(share * prior).sum(-1))", "priors.append(0 * prior.sum(-1))",
             "agent/test_latent_variable.py::test_outcomes_are_drawn_as_often_as_they_come"),
    Mutation("modules/world_model.py", "if chance is None else drawn_code(share.detach(), chance)", "",
             "agent/test_latent_variable.py::test_outcomes_are_drawn_as_often_as_they_come"),
    Mutation("agent/modes.py", "return by_future(energies, imagined.futures).mean(-1).amax(-1)",
             "return by_future(energies, imagined.futures).mean(-1).mean(-1)",
             "agent/test_latent_variable.py::test_minimise_over_actions_average_over_z_and_fear_an_adversary"),
    Mutation("agent/modes.py", "chance = self.chance.gather(2, there).transpose(1, 2)",
             "chance = self.chance[..., 0][:, None]",
             "agent/test_latent_variable.py::test_step_by_step_the_same_futures_come"),
    Mutation("agent/budgets.py", "thinking_within(calls, thinking, each * futures)",
             "thinking_within(calls, thinking, each)",
             "agent/test_latent_variable.py::test_each_future_is_paid_for_and_budgets_count_them"),
    Mutation("envs/procgen.py", "self._advance(self.buttons[self._check_actions(actions)])",
             "self._advance(self._check_actions(actions))",
             "agent/test_distinct.py::test_the_world_is_the_same_with_fewer_buttons"),
    Mutation("agent/distinct.py", "same &= _alike(env, repeat)", "same = _alike(env, repeat)",
             "agent/test_distinct.py::test_the_groups_hold_every_action_once_and_nothing_that_differs"),
    Mutation("agent/distinct.py", "order = [copies.noop, *(", "order = [*(",
             "agent/test_distinct.py::test_the_groups_hold_every_action_once_and_nothing_that_differs"),
    Mutation("agent/comparison.py", 'Player("random", replace(world, actions=()),', 'Player("random", world,',
             "agent/test_distinct.py::test_chance_plays_with_all_buttons_and_with_those_of_the_agent"),
    Mutation("agent/genie_motion.py", "sideways = np.where(right < 0, 1, 2)", "sideways = np.where(right < 0, 2, 1)",
             "agent/test_genie_motion.py::test_the_longer_side_gives_the_direction"),
    Mutation("agent/genie_motion.py", "others = np.delete(dreams, code, 0)", "others = dreams",
             "agent/test_genie_motion.py::test_codes_are_told_by_their_motions_and_shuffled_ones_are_not"),
    Mutation("agent/statistics.py", "centre = (rate + z * z / (2 * count)) / shrink",
             "centre = (rate - z * z / (2 * count)) / shrink",
             "agent/test_statistics.py::test_wilson_matches_reference_values"),
    Mutation("agent/statistics.py", "data[cut : len(data) - cut]", "data[cut:]",
             "agent/test_statistics.py::test_iqm_by_hand"),
    # ---- what is kept
    Mutation("agent/learning.py", 'self.generator.set_state(state["generator"])', 'state["generator"]',
             "agent/test_learning.py::test_a_learner_goes_on_with_its_own_draws"),
    Mutation("agent/genie_training.py", 'self.generator.set_state(state["generator"])', 'state["generator"]',
             "agent/test_genie_resume.py::test_stopping_anywhere_changes_nothing"),
    Mutation("modules/storage.py", "if claimed not in {None, _digest(header, data)}:", "if False:",
             "modules/test_storage.py::test_changed_weights_are_refused_by_their_checksum"),
    Mutation("agent/agent.py", "candidates, iterations = self.candidates or usual.candidates, self.iterations or",
             "candidates, iterations = usual.candidates, self.iterations or",
             "agent/test_training.py::test_plans_made_while_collecting_may_be_cheaper"),
    # ---- context
    Mutation("agent/agent.py", "actor = Actor(config.actor, latent, actions, goals=goals, grid=perception.searched)",
             "actor = Actor(config.actor, latent, actions, goals=goals, grid=perception.grid)",
             "agent/test_screens.py::test_actor_critic_and_further_policies_read_every_place_of_a_screen"),
    Mutation("modules/predictors.py", "F.silu(self.thin(found)).flatten(1)",
             "F.silu(self.thin(found)).mean((-2, -1), keepdim=True).expand_as(self.thin(found)).flatten(1)",
             "modules/test_maps.py::test_heads_of_a_screen_know_where_and_those_of_a_map_do_not"),
    Mutation("modules/perception.py", 'return self.grid if self.config.latents == "map" else None', "return self.grid",
             "modules/test_maps.py::test_of_a_screen_actor_and_critic_read_every_place"),
    Mutation("modules/perception.py", "features = features * (1 + scale) + shift", "features = features + 0 * scale",
             "agent/test_context.py::test_predictions_depend_on_the_context_and_keep_it"),
    Mutation("modules/world_model.py", "kept = carry[0][..., self.context]", "kept = latent[..., self.context]",
             "agent/test_context.py::test_predictions_depend_on_the_context_and_keep_it"),
    Mutation("modules/perception.py", "observation[..., -self.context :] = (255",
             "observation[..., : self.context] = (255",
             "agent/test_context.py::test_the_configuration_has_the_last_word"),
    Mutation("envs/wired.py", "self.wiring) % space.n", "self.wiring + 1) % space.n",
             "envs/test_wired.py::test_actions_mean_what_the_context_tells"),
    Mutation("modules/content.py", "here + 1, torch.where(here < count, 0, here))", "here, here)",
             "modules/test_content.py::test_scrambling_exchanges_the_keys_of_filled_slots_only"),
    Mutation("modules/events.py", "chance[event] = count[which] ** -rarity", "chance[event] = count[which] ** rarity",
             "modules/test_memory.py::test_rare_kinds_of_events_are_drawn_more_often"),
    Mutation("modules/perception.py", "1 if configuration is None else configuration.views", "1",
             "modules/test_perception.py::test_views_are_shifted_by_two_pixels_and_averaged"),
    Mutation("modules/events.py", "np.where(final, places + 1, 1)", "1",
             "modules/test_memory.py::test_weighted_windows_are_those_of_the_whole_memory"),
    Mutation("envs/gym.py", "== np.arange(count)", ">= np.arange(count)",
             "envs/test_gym.py::test_minigrid_cells_are_one_hot"),
    Mutation("agent/criterion.py", "** correction", "** 0",
             "agent/test_criterion.py::test_events_count_as_often_as_they_come"),
    Mutation("agent/training.py", "if self.present is None or self.agent.config.schedule.round_reset:",
             "if True:",
             "agent/test_resume.py::test_rounds_go_on_with_the_episodes_under_way_where_asked_for"),
    Mutation("modules/critic.py", "TwoHot(config.bins, config.limit)", "TwoHot(config.bins)",
             "agent/test_learning.py::test_a_critic_tells_costs_up_to_its_limit"),
    Mutation("agent/modes.py", ".minimum(still)", "",
             "agent/test_modes.py::test_who_wanders_takes_up_to_so_many_random_steps_and_stops_before_an_ending"),
    Mutation("agent/agent.py", "torch.accelerator.current_accelerator(check_available=True)",
             "torch.accelerator.current_accelerator()",
             "agent/test_checkpoint.py::test_a_torch_built_for_what_is_not_here_runs_on_the_cpu"),
    # ---- going on from another run
    Mutation("agent/run.py", "before = 0 if origin is None or resume else adopt(agent, origin)", "before = 0",
             "agent/test_origin.py::test_the_networks_are_those_of_the_other_run"),
    Mutation("agent/run.py", "trainer.decisions = trainer.inherited = before", "trainer.decisions = 0",
             "agent/test_origin.py::test_decisions_count_on"),
    Mutation("modules/perception.py", "and not self.mean.any() and (self.scale == 1).all()", "",
             "agent/test_origin.py::test_inputs_are_not_measured_again"),
    # ---- one action for ever
    Mutation("agent/constant.py", "return int(np.argmax(returns))", "return int(np.argmin(returns))",
             "agent/test_constant.py::test_the_action_with_the_best_return_is_found_not_the_one_with_the_best_reward"),
    Mutation("agent/constant.py", "seed=seed, held_out=False", "seed=seed, held_out=True",
             "agent/test_constant.py::test_levels_of_training_choose"),
    Mutation("agent/comparison.py", "action = world.actions[constant] if world.actions else constant",
             "action = constant",
             "agent/test_constant.py::test_the_row_names_the_button_that_was_found_on_training_levels"),
    # ---- plans under way, and what dreams are told of outcomes
    Mutation("agent/interaction.py", "self.age[first] = commit", "pass",
             "agent/test_oracle.py::test_as_many_steps_of_a_plan_are_carried_out_as_the_task_says_but_never_beyond_an_ending"),
    Mutation("agent/interaction.py", "self.age[active] += 1", "self.age += 1",
             "agent/test_genie_planning.py::test_a_plan_is_carried_out_for_some_steps_where_its_environment_is_active"),
    Mutation("agent/genie_windows.py", "weights = known / times[", "weights = known / torch.ones_like(times)[",
             "agent/test_genie_training.py::test_steps_count_once_however_many_windows_hold_them"),
    Mutation("agent/genie_training.py", "read = torch.stack([told.codes, told.meant])",
             "read = torch.stack([told.codes, told.codes])",
             "agent/test_genie_training.py"
             "::test_what_a_button_does_where_nothing_was_seen_to_happen_is_told_by_what_was_meant"),
    Mutation("modules/genie/transformer.py", "@ k.transpose(-2, -1) * q.shape[-1] ** -0.5 +",
             "@ k.transpose(-2, -1) +",
             "modules/genie/test_networks.py"
             "::test_attention_spelled_out_is_torchs_with_its_gradients_and_stays_in_its_precision"),
    # ---- small figures before a picture that stands still
    Mutation("modules/genie/latent_action.py", "pooled = (weight * told).sum(2) / (weight.sum(2) + _STILL)",
             "pooled = told.mean(2)",
             "modules/genie/test_networks.py::test_steps_in_which_nothing_changes_are_told_alike_whatever_the_picture"),
    Mutation("modules/genie/tokenizer.py", "return 1 + self.config.changed * known", "return 1 + 0 * known",
             "modules/genie/test_networks.py::test_the_tokenizer_minds_most_what_changes"),
    Mutation("modules/genie/outcomes.py", "told = x.amax((-2, -1))", "told = patches.mean(-2)[..., :1].expand(-1, 16)",
             "modules/genie/test_networks.py::test_one_patch_among_many_is_heard_and_not_by_the_mean"),
    Mutation("modules/genie/files.py", '"pooling": "all"', '"pooling": "changed"',
             "modules/genie/test_sampling.py::test_a_world_of_the_first_format_goes_on_as_it_was"),
    Mutation("agent/evaluation.py", "left = lengths == steps", "left = lengths > steps",
             "agent/test_evaluation.py::test_episodes_are_left_after_so_many_steps_and_count_as_they_stand"),
    Mutation("agent/genie_data.py", "return Buttons(oracle, config.actions) if fewer else oracle", "return oracle",
             "agent/test_genie_data.py::test_the_oracle_plans_with_the_recorded_buttons_and_is_worth_filming"),
    # ---- videos from files, whole or not at all
    Mutation("modules/genie/containers.py", "if not kind:\n            return False",
             "if not kind:\n            return True",
             "modules/genie/test_reading.py::test_a_whole_video_is_read_and_one_that_was_cut_is_refused"),
    Mutation("modules/genie/containers.py", "0 if length == most else length", "length",
             "modules/genie/test_reading.py::test_a_whole_video_is_read_and_one_that_was_cut_is_refused"),
    Mutation("modules/genie/video.py", "shutil.rmtree(folder / part, ignore_errors=True)", "pass",
             "agent/test_genie_import.py::test_what_fails_leaves_nothing_and_the_second_try_succeeds"),
    Mutation("agent/genie_import.py", "if writer.longest < 2:", "if writer.longest < 1:",
             "agent/test_genie_import.py::test_a_split_in_which_no_frame_follows_another_is_refused"),
    Mutation("agent/genie_data.py", "PolicyBehaviour(who.policy, seen.action, seed)",
             "PolicyBehaviour(who.policy, seen.action, seed, sample=False)",
             "agent/test_genie_data.py::test_a_ppo_run_is_recorded_as_its_policy_draws"),
    Mutation("envs/genie.py", "if isinstance(prompt, str | Path):", "if isinstance(prompt, Path):",
             "envs/test_genie.py::test_a_picture_or_video_of_ones_own_begins_a_dream"),
    # ---- what came later
    Mutation("modules/events.py", "following[:, 1] += ended[:, t]", "following[:, 1] += ended[:, 0]",
             "modules/test_memory.py::test_what_came_after_is_what_a_slow_sum_says"),
    Mutation("modules/memory.py", "key = (self.changes, discount)", "key = (0, discount)",
             "modules/test_memory.py::test_what_came_after_goes_on_with_what_is_written"),
    Mutation("agent/criterion.py", "return masked_mean(loss, here * (1 - followed[..., 2]))",
             "return masked_mean(loss, here)",
             "agent/test_criterion.py::test_what_came_later_counts_where_it_is_known"),
    Mutation("agent/criterion.py", "logits = head(states).unflatten(-1, (2, -1))",
             "logits = head(states.detach()).unflatten(-1, (2, -1))",
             "agent/test_criterion.py::test_perception_keeps_what_matters_later"),
    Mutation("agent/genie_training.py", "return told.loss + updates.label_weight * naming,", "return told.loss,",
             "agent/test_genie_learning.py::test_a_few_labels_say_which_of_all_that_moves_is_the_agent"),
    Mutation("modules/genie/video.py", "np.maximum(np.arange(place - frames + 1, place + 1), first)",
             "np.maximum(np.arange(place - frames + 1, place + 1), 0)",
             "agent/test_genie_real.py::test_clones_see_as_many_frames_as_they_are_told"),
    Mutation("agent/genie_evaluation.py", '("copied similar", ssim(last, truth))',
             '("copied similar", psnr(last, truth))',
             "agent/test_genie_evaluation.py::test_the_copied_frame_is_measured_by_both_measures"),
    Mutation("agent/genie_evaluation.py", 'gain=_by_step(table["rollout"] - table["copied"])',
             'gain=_by_step(table["rollout"] - table["copied"].mean(0))',
             "agent/test_genie_evaluation.py::test_the_gain_is_paired_and_has_a_sign"),
    Mutation("agent/genie_evaluation.py", 'table["similar"] - table["copied similar"]',
             'table["copied similar"] - table["similar"]',
             "agent/test_genie_evaluation.py::test_the_gain_is_paired_and_has_a_sign"),
    Mutation("agent/genie_report.py", "1 if cell.low > 0 else -1 if cell.high < 0 else 0", "1 if cell.mean > 0 else -1",
             "agent/test_genie_evaluation.py::test_the_verdict_names_the_steps"),
    Mutation("agent/learning.py", 'check_shift("model_loss.shift", loss.shift, m.perception.shape)', "",
             "agent/test_augmentation.py::test_a_shift_that_leaves_nothing_of_an_observation_is_refused"),
    Mutation("modules/genie/transformer.py",
             "return self.query_norm(q.float()).to(v.dtype), self.key_norm(k.float()).to(v.dtype), v", "return q, k, v",
             "modules/genie/test_networks.py::test_queries_and_keys_are_normed_and_values_are_not"),
    Mutation("modules/genie/latent_action.py", "drawn = self.draw(before, quantised.vectors, seen)",
             "drawn = self.draw(before, quantised.vectors)",
             "modules/genie/test_networks.py::test_history_is_hidden_where_the_model_learns"),
    Mutation("modules/genie/dynamics.py", "self.predict(self.corrupt(tokens, generator), given, actions)",
             "self.predict(tokens, given, actions)",
             "modules/genie/test_networks.py::test_dynamics_learn_from_a_corrupted_past"),
    Mutation("agent/genie_planning.py", "code = self.codes[actions.flatten()]", "code = actions.flatten()",
             "agent/test_genie_planning.py::test_plans_are_made_of_the_codes_that_are_known"),
    Mutation("agent/genie_windows.py", "whole = ~rewards.isnan().any(1).numpy()",
             "whole = np.ones(len(both), np.bool_)",
             "agent/test_genie_training.py::test_outcomes_are_learned_from_the_clips_that_are_labelled"),
    Mutation("envs/genie.py", 'terminated = self._one_each("ending", told).astype(np.bool_)', "pass",
             "envs/test_genie.py::test_episodes_end_where_a_function_says_so"),
    # ---- in other colours and in a mirror
    Mutation("agent/augmentation.py", "mix = torch.randn(len(percept), 3, 3,", "mix = torch.randn(1, 3, 3,",
             "agent/test_augmentation.py::test_colours_are_mixed_alike_in_all_of_a_window_and_otherwise_in_the_next"),
    Mutation("agent/criterion.py", "random_colours(percept, config.colour, generator) if config.colour else", "",
             "agent/test_criterion.py::test_pixels_are_shifted_and_coloured_only_where_asked"),
    Mutation("agent/mirror.py", "turned[chosen] = mirror.action[taken[chosen]]", "turned[chosen] = taken[chosen]",
             "agent/test_mirror.py::test_what_was_only_done_to_the_right_is_foreseen_to_the_left"),
    Mutation("agent/mirror.py", "turned[chosen] = seen[chosen].flip(mirror.axis)", "turned[chosen] = seen[chosen]",
             "agent/test_mirror.py::test_what_was_only_done_to_the_right_is_foreseen_to_the_left"),
    Mutation("agent/mirror.py", "swap = {one: other, other: one}", "swap = {one: other}",
             "agent/test_mirror.py::test_buttons_of_procgen_turn_by_their_names"),
    Mutation("agent/training.py", "window = at_random(window, self.mirrors, self.generator)",
             "_ = at_random(window, self.mirrors, self.generator)",
             "agent/test_mirror.py::test_what_was_only_done_to_the_right_is_foreseen_to_the_left"),
    # ---- networks that begin anew
    Mutation("agent/training.py", "if self.learner.done == begun:", "if self.learner.done >= begun:",
             "agent/test_renewal.py::test_stopping_anywhere_changes_nothing"),
    Mutation("agent/learning.py", "optimiser.state.clear()", "optimiser.state.copy()",
             "agent/test_renewal.py::test_all_networks_begin_anew_and_what_hangs_on_them_too"),
    Mutation("agent/learning.py", "in (self.networks() | self.agent.networks()).items()",
             "in self.agent.networks().items()",
             "agent/test_renewal.py::test_all_networks_begin_anew_and_what_hangs_on_them_too"),
    Mutation("agent/learning.py", "return self.done - self.renewal, self.updates - self.renewal",
             "return self.done, self.updates",
             "agent/test_renewal.py::test_what_is_remembered_stays_and_is_learned_from_as_at_first"),
    # ---- acting as when it is evaluated while collecting
    Mutation("agent/training.py", "np.arange(count) >= count - round(schedule.exploiting * count)",
             "np.arange(count) >= round(schedule.exploiting * count)",
             "agent/test_training.py::test_a_share_of_the_environments_is_acted_in_as_when_the_agent_is_evaluated"),
    Mutation("agent/training.py", "return Divided(exploring, self.agent.begin(count, mode), exploiting)",
             "return Divided(exploring, self.agent.begin(count, mode, sample=True), exploiting)",
             "agent/test_training.py::test_a_share_of_the_environments_is_acted_in_as_when_the_agent_is_evaluated"),
    Mutation("agent/interaction.py", "other = self.second.act(observation, first, active & self.mask)",
             "other = self.second.act(observation, first, active)",
             "agent/test_training.py::test_environments_are_divided_in_every_way_there_is_to_act"),
    Mutation("agent/interaction.py", 'self.second.restore(part(state, "second"))', 'part(state, "second")',
             "agent/test_resume.py::test_other_worlds_go_on_as_well"),
    # ---- every frame of a hold
    Mutation("agent/frames.py", "np.cumsum(ended, axis=0) - ended == 0", "np.cumsum(ended, axis=0) == 0",
             "agent/test_frames.py::test_outcomes_are_those_of_as_many_frames_up_to_an_end"),
    Mutation("agent/frames.py", "felt = _across(one.rewards, two.rewards, offset)",
             "felt = _across(one.rewards, one.rewards, offset)",
             "agent/test_frames.py::test_outcomes_are_those_of_as_many_frames_up_to_an_end"),
    Mutation("agent/frames.py", "one.action if 2 * offset <= repeat else two.action", "one.action",
             "agent/test_frames.py::test_streams_hold_the_frames_of_their_offset"),
    Mutation("agent/training.py", "            self.frames.forget()", "            self.frames.state()",
             "agent/test_frames.py::test_a_new_stream_does_not_go_on_from_the_old_one"),
    Mutation("agent/training.py", 'self.frames.restore(part(state, "frames"))', 'part(state, "frames")',
             "agent/test_frames.py::test_stopping_anywhere_changes_nothing"),
    Mutation("envs/action_repeat.py", "if shown and frame < self.repeat - 1:", "if shown and frame:",
             "agent/test_frames.py::test_streams_hold_the_frames_of_their_offset"),
)  # fmt: skip


def copy(folder: Path) -> None:
    """Package and tests, laid out so that Python started there finds them first."""
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "forethought", folder / "forethought", ignore=leave)
    for name in ("agent", "planners", "modules", "envs"):
        shutil.copytree(ROOT / name, folder / "forethought" / name, ignore=leave)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", folder)


def exit_code(folder: Path, test: str) -> int:
    """pytest's exit code for one test of the copy, run in a process of its own (1: it failed)."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 99
    try:
        signal.alarm(SECONDS)
        os.chdir(folder)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        import pytest

        import forethought

        assert Path(forethought.__file__).is_relative_to(folder)
        code = int(pytest.main(["-x", "-p", "no:cacheprovider", f"tests/{test}"]))
    finally:
        os._exit(code)


def main(arguments: list[str]) -> int:
    import gymnasium
    import pytest
    import safetensors.torch
    import torch

    torch.set_num_threads(1)
    del gymnasium, pytest, safetensors  # imported once, for all the processes that are forked
    numbers = [int(argument) for argument in arguments if argument != "--control"] or range(len(MUTATIONS))
    missed = []
    with tempfile.TemporaryDirectory(prefix="mutations-") as name:
        folder = Path(name).resolve()
        copy(folder)
        if "--control" in arguments:
            tests = sorted({MUTATIONS[number].test for number in numbers})
            missed = [test for test in tests if exit_code(folder, test)]
            print(f"{len(tests)} tests, {len(missed)} fail though nothing was changed: {missed}")
            return bool(missed)
        for number in numbers:
            one = MUTATIONS[number]
            head, _, rest = one.file.partition("/")
            path = folder / "forethought" / (rest if head == "forethought" else one.file)
            whole = path.read_text()
            path.write_text(whole.replace(one.old, one.new))
            code = exit_code(folder, one.test)
            path.write_text(whole)
            print(f"{number:2} {'caught' if code == 1 else f'MISSED ({code})'}: {one.file}: {one.new}", flush=True)
            missed += [number] if code != 1 else []
    print(f"{len(numbers) - len(missed)} of {len(numbers)} mutations caught; missed: {missed or 'none'}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
