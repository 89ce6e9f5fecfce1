"""The first half of an update: paint groups of images, judge them, draw again what the filter rejects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from maskrl.errors import TrainingError
from maskrl.grpo import answers
from maskrl.grpo.actor import Actor
from maskrl.grpo.advantage import advantages
from maskrl.grpo.batch import Batch
from maskrl.grpo.credit import step_advantages
from maskrl.grpo.diversity import mean_square_difference, step_change, token_diversity
from maskrl.grpo.logp import asked, log_probs
from maskrl.grpo.order import in_passes
from maskrl.grpo.policy import by_chance
from maskrl.grpo.processes import on_any, pad_to_equal_count
from maskrl.grpo.reward_scorer import RewardScorer, check_finite
from maskrl.grpo.rollout import join, rollout
from maskrl.grpo.terms import join_terms, reward_name, weights_of_columns
from maskrl.grpo.values import values
from maskrl.grpo.version import version
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.types import Prompt, Trajectory


@dataclass(frozen=True)
class Group:
    """The G images of one prompt: Trajectory of G rows, Float [G, 3, H, W], Float [G], and Float [G] of each term.

    ``change`` is of the steps that painted, Float [G, T], whatever steps are scored.
    """

    trajectory: Trajectory
    change: Tensor
    images: Tensor
    rewards: Tensor
    terms: dict[str, Tensor]


@torch.no_grad()
def collect(actor: Actor, prompts: Sequence[Prompt], update: int) -> Batch:
    """Paint and judge ``group_size`` images of each of this process's P prompts; every process has as many.

    Groups that the filter rejects are drawn again, same prompt and new noise, on all processes together,
    at most ``max_resamples`` times; then they are left out of the loss.

    Raises:
        TrainingError: a reward that is not finite, or weights that moved meanwhile.
        PluginError: a component's answer is none.
        RecipeError: more steps than tokens, or terms of which the reward does not say what each counts.

    Source: Sec. 3.3, "Vanishing Samples".
    """
    config = actor.algorithm.config
    actor.generator.module.eval()  # dropout would falsify the ratio
    painted_by = version(actor.generator.module)
    painter = _Painter(actor, prompts, update)
    local = slice(actor.process.rank * len(prompts), (actor.process.rank + 1) * len(prompts))
    keep_S = torch.zeros(actor.process.world_size * len(prompts), dtype=torch.bool)
    groups: dict[int, Group] = {}
    num_drawn = 0
    for attempt in range(config.max_resamples + 1):
        pending_S = ~keep_S
        for i, group in painter.draw(pad_to_equal_count(pending_S, actor.process), attempt).items():
            if pending_S[local][i]:
                groups[i] = group
        rewards_SG = actor.process.gather(torch.stack([groups[i].rewards for i in range(len(prompts))])).cpu()
        keep_S[pending_S] = answers.keep(actor.filter, rewards_SG[pending_S])
        num_drawn += int(pending_S.sum())
        if keep_S.all():
            break
    _check_still(actor, painted_by, update)
    drawn = [groups[i] for i in range(len(prompts))]
    trajectory = join([group.trajectory for group in drawn])
    images = torch.cat([group.images for group in drawn])
    columns = _columns(actor, drawn)
    columns_SGR = torch.stack(list(columns.values()), dim=-1).cpu()
    weights_R = (  # asked of the reward only where columns are standardised
        weights_of_columns(actor.reward, list(columns), columns_SGR, rewards_SG)
        if config.advantage_of == "terms"
        else torch.ones(len(columns))
    )
    adv_SG = advantages(rewards_SG, columns_SGR, weights_R, keep_S, config)
    started = perf_counter()
    step_adv = _step_advantages(actor, painter, trajectory, rewards_SG, keep_S)
    painter.seconds_reward += perf_counter() - started
    steps, weights = _train_steps(actor, drawn, update)
    return Batch(
        update=update,
        version=painted_by,
        prompts=prompts,
        condition=painter.condition,
        trajectory=trajectory,
        images=images,
        rewards=rewards_SG[local],
        reward_columns=columns_SGR[local],
        reward_names=tuple(columns),
        keep=keep_S[local],
        adv=adv_SG[local],
        step_adv=step_adv,
        steps=steps,
        weights=weights,
        old_logp=_old_logp(actor, painter.condition, trajectory, steps),
        metrics=_reward_metrics(rewards_SG, keep_S, num_drawn)
        | answers.metrics(actor.filter)
        | (_term_metrics(columns) if drawn[0].terms else {})
        | _rollout_metrics(actor, trajectory, images)
        | {"seconds_rollout": painter.seconds_rollout, "seconds_reward": painter.seconds_reward},
    )


def _step_advantages(
    actor: Actor, painter: _Painter, trajectory: Trajectory, rewards: Tensor, keep: Tensor
) -> Tensor | None:
    """Return those of this process's P groups, Float [P, G, T]; None where each step has that of its image."""
    config, num_groups = actor.algorithm.config, len(painter.prompts)
    if config.credit == "image":
        return None
    rows = torch.arange(num_groups, device=trajectory.tokens.device).repeat_interleave(config.group_size)
    prompts = [prompt for prompt in painter.prompts for _ in range(config.group_size)]
    values_BT = values(actor, painter.condition.select(rows), trajectory, prompts, painter.update)
    values_SGT = actor.process.gather(values_BT.view(num_groups, config.group_size, -1)).cpu()
    first = actor.process.rank * num_groups
    return step_advantages(values_SGT, rewards, keep, config)[first : first + num_groups].to(rewards.dtype)


def _train_steps(actor: Actor, groups: Sequence[Group], update: int) -> tuple[Tensor, Tensor]:
    """Choose the steps that teach, the same on all processes, none of them greedy: Long [k], Float [k]."""
    change_T = actor.process.gather(torch.cat([group.change for group in groups])).mean(dim=0).cpu()
    num_steps = groups[0].trajectory.num_steps
    stream = actor.stream.child("steps", update)
    is_of_these = len(change_T) == num_steps  # an estimator may score fewer steps than were painted, or more
    chosen = answers.train_steps(actor.reducer, num_steps, stream, change_T if is_of_these else None)
    teach_k = by_chance(chosen[0], num_steps, actor.algorithm.sampling)
    return chosen[0][teach_k], chosen[1][teach_k]


def _check_still(actor: Actor, painted_by: int, update: int) -> None:
    """Refuse images that were begun by some weights and finished by others: they are nobody's policy."""
    moved = version(actor.generator.module) != painted_by
    if on_any(actor.process, moved, next(actor.generator.module.parameters()).device):
        raise TrainingError(
            f"update {update}: the weights of the actor moved while it was painting; give it weights of its own, and"
            " set them between two calls of collect"
        )


def _columns(actor: Actor, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Gather what the rewards are made of, by name: Float [S, G] each; where there are no terms, the rewards."""
    terms = join_terms(actor.reward, [group.terms for group in groups])
    columns = terms or {reward_name(actor.reward): torch.cat([group.rewards for group in groups])}
    return {name: actor.process.gather(values_B.view(len(groups), -1)) for name, values_B in columns.items()}


def _old_logp(actor: Actor, condition: Condition, trajectory: Trajectory, steps: Tensor) -> Tensor | None:
    """Score the steps that teach, Long [k], under the weights that painted: Float [B, k]; None: not asked for."""
    if not (actor.record_logp and len(steps)):
        return None
    device, size = trajectory.state.device, actor.portions.record_batch or actor.portions.rollout_batch
    image_K, column_K = in_passes(trajectory.num_images, steps, actor.algorithm.config.group_size)
    rows_K, steps_K = image_K.to(device), steps[column_K].to(device)
    found = []
    for rows, at in zip(rows_K.split(size), steps_K.split(size), strict=True):
        prompts = condition.select(rows // actor.algorithm.config.group_size)
        taken = asked(actor.algorithm, trajectory.transitions(rows, at))
        found.append(log_probs(actor.generator, actor.algorithm, prompts, taken, size)[1])
    logp_K = torch.cat(found)
    return logp_K.new_empty(trajectory.num_images, len(steps)).index_put(
        (rows_K, column_K.to(device)), logp_K
    )


def encode(generator: MaskedGenerator, prompts: Sequence[Prompt]) -> Condition:
    """Encode P prompts, each different one once: a condition of P rows."""
    first = [prompts.index(prompt) for prompt in prompts]
    unique = sorted(set(first))
    device = next(generator.module.parameters()).device
    rows = torch.tensor([unique.index(i) for i in first], device=device)
    return answers.encode(generator, [prompts[i] for i in unique]).select(rows)


class _Painter:
    """Draws the groups of one update, and times it."""

    def __init__(self, actor: Actor, prompts: Sequence[Prompt], update: int) -> None:
        self.actor, self.prompts, self.update = actor, prompts, update
        # the place of a group in the global batch, not in the prompt file: a prompt may come twice
        self._slots = range(len(prompts) * actor.process.rank, len(prompts) * (actor.process.rank + 1))
        self.condition = encode(actor.generator, prompts)
        self._prefilled = answers.prefill(actor.generator, self.condition)
        self.num_steps = answers.rollout_steps(
            actor.reducer, actor.algorithm.config.steps(actor.generator.spec)
        )
        self.seconds_rollout = self.seconds_reward = 0.0

    def draw(self, groups: Sequence[int], attempt: int) -> dict[int, Group]:
        """Paint and judge some of the P groups."""
        actor, size = self.actor, self.actor.algorithm.config.group_size
        prompts = [self.prompts[i] for i in groups for _ in range(size)]
        scorer = RewardScorer(
            actor.reward, prompts, actor.portions.reward_batch, actor.portions.overlap_reward
        )
        started = perf_counter()
        trajectory, images = self._paint(groups, attempt, scorer)
        painted = perf_counter()
        rewards_B, terms = scorer.scores()
        for name, values_B in {
            **terms,
            reward_name(actor.reward): rewards_B,
        }.items():  # a sum says less than its terms
            check_finite(name, values_B, prompts, f"update {self.update}")
        self.seconds_rollout += painted - started
        self.seconds_reward += perf_counter() - painted
        drawn = {}
        for i, rows in zip(groups, torch.split(torch.arange(len(images)), size), strict=True):
            stream = actor.stream.child("scored", self.update, attempt, self._slots[i])
            painted_G = trajectory.select(rows)
            scored = answers.scored(actor.algorithm.transition, painted_G, stream)
            terms_G = {name: values_B.to(images.device)[rows] for name, values_B in terms.items()}
            change_GT = step_change(painted_G.proposals)
            rewards_G = rewards_B.to(images.device)[rows]
            drawn[i] = Group(scored, change_GT, images[rows], rewards_G, terms_G)
        return drawn

    def _paint(self, groups: Sequence[int], attempt: int, scorer: RewardScorer) -> tuple[Trajectory, Tensor]:
        actor, device = self.actor, next(self.actor.generator.module.parameters()).device
        jobs = [(i, image) for i in groups for image in range(actor.algorithm.config.group_size)]
        trajectories, images = [], []
        for start in range(0, len(jobs), actor.portions.rollout_batch):
            chunk = jobs[start : start + actor.portions.rollout_batch]
            condition = self._prefilled.select(torch.tensor([i for i, _ in chunk], device=device))
            streams = [
                actor.stream.child("rollout", self.update, attempt, self._slots[i], image)
                for i, image in chunk
            ]
            guidance = actor.algorithm.sampling.guidance_train
            settings = (
                self.num_steps,
                actor.algorithm.sampling.in_training,
                guidance,
                actor.algorithm.transition.needs_sets,
                actor.algorithm.config.credit == "step",
            )
            trajectories.append(rollout(actor.generator, condition, streams, *settings))
            images.append(answers.decode(actor.generator, trajectories[-1].tokens, condition))
            scorer.add(images[-1])
        return join(trajectories), torch.cat(images)


def _reward_metrics(rewards: Tensor, keep: Tensor, num_drawn: int) -> dict[str, float]:
    """Mean, mean std within a group, and the fates of groups, over all processes; of the groups drawn last."""
    return {
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std(dim=1, correction=0).mean()),
        "kept_fraction": float(keep.double().mean()),
        "resample_rate": 1 - len(keep) / num_drawn,
    }


def _term_metrics(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean of each term of a reward, Float [S, G] each, and its std over all images, of the groups drawn last."""
    metrics = {}
    for name, values_SG in columns.items():
        metrics[f"reward_{name}_mean"] = float(values_SG.flatten().mean())
        metrics[f"reward_{name}_std"] = float(values_SG.flatten().std(correction=0))
    return metrics


def _rollout_metrics(actor: Actor, trajectory: Trajectory, images: Tensor) -> dict[str, float]:
    """Mean entropy of the proposals, diversity within groups, and the share of floored remasked positions.

    Floored are those that only noise could remask.
    """
    size = actor.algorithm.config.group_size
    remasked = (trajectory.state == trajectory.mask_id) & (trajectory.reveal_rank < 0)
    counts = torch.stack([trajectory.floored.sum(), remasked.sum(), torch.ones_like(remasked.sum())]).double()
    means = torch.stack(
        [
            trajectory.entropy.double().mean(),
            token_diversity(trajectory.tokens, size),
            mean_square_difference(images, size),
        ]
    )
    floored, candidates, processes, nats, tokens, pixels = actor.process.sum(
        torch.cat([counts, means])
    ).tolist()
    return {
        "entropy": nats / processes,
        "diversity_tokens": tokens / processes,
        "diversity_pixels": math.sqrt(pixels / processes),
        "floored_fraction": floored / max(candidates, 1),
    }
