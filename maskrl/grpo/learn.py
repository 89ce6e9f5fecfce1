"""The second half of an update: score the transitions under the current weights, and step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from maskrl.asking import asking_all
from maskrl.errors import TrainingError
from maskrl.grpo.batch import Batch
from maskrl.grpo.casts import casting_once
from maskrl.grpo.collect import encode
from maskrl.grpo.in_order import in_order
from maskrl.grpo.learner import Learner
from maskrl.grpo.logp import asked, log_probs
from maskrl.grpo.objective import KL, clipped, ratio, surrogate
from maskrl.grpo.order import in_passes
from maskrl.grpo.painted import check_gap, is_comparable, policy_gap
from maskrl.grpo.policy import policy_logits
from maskrl.grpo.processes import on_any, pad_to_equal_count
from maskrl.grpo.version import version
from maskrl.interfaces import Condition
from maskrl.shards import are_parts, part, whole


@dataclass(frozen=True)
class Pairs:
    """The (image, step) pairs of one process: Long [K] each, Float [K] each.

    ``columns`` says which of the batch's ``steps`` each has. ``kept`` is 0 for those that are run only to keep step
    with the other processes, else 1. ``prompts``, the row of the condition that each has, is on the CPU, so that
    choosing texts waits for no device.
    """

    prompts: Tensor
    rows: Tensor
    steps: Tensor
    columns: Tensor
    kept: Tensor
    weights: Tensor
    adv: Tensor


@dataclass(frozen=True)
class Scores:
    """What one pass measured of each pair, detached, Float [K]; ``loss`` is before the mean over images.

    ``gap`` is :func:`maskrl.grpo.painted.policy_gap`, 0 where weights have moved since.
    """

    logp: Tensor
    ratio: Tensor
    clipped: Tensor
    kl: Tensor
    loss: Tensor
    gap: Tensor


def learn(learner: Learner, batch: Batch) -> dict[str, float]:
    """Take ``num_updates`` optimizer steps, each with the loss over all pairs of the batch.

    Where the policy's weights are still those that painted, the first pass is itself the old policy: no weight moves
    before its last micro-batch. So its log-probabilities, measured with the shapes of the later passes, are old_logp;
    its ratio is exactly 1. Where they are others, old_logp is what the actor recorded.

    Returns:
        Metrics of the last pass, over all processes. ``loss`` is about 0 at ratio 1 by construction: there,
        only its gradient informs. ``skipped`` is 1 if the filter kept no group, or the reducer took greedy steps
        alone; then no weight moves. Of a batch with recorded log-probabilities ``drift`` and ``drift_kl`` say how far
        the policy had moved since it was painted.

    Raises:
        TrainingError: a loss or a gradient that is not finite: the weights are then still sound; weights that are
            not; or other weights than those that painted, and nothing recorded.

    Source: eqs. 10-11.
    """
    started, config = perf_counter(), learner.algorithm.config
    learner.generator.module.eval()  # dropout would falsify the ratio
    keep_S = learner.process.gather(batch.keep.to(batch.trajectory.state.device)).cpu()
    num_images = int(keep_S.sum()) * config.group_size if len(batch.steps) else 0
    pairs = _pairs(batch, pad_to_equal_count(keep_S, learner.process), config.group_size)
    base = learner.reference if config.kl_coef and num_images else None
    reference = encode(base, batch.prompts) if base else None
    old_logp = _recorded(learner, batch, pairs) if num_images else None
    metrics, drift = dict(NOTHING_LEARNT), dict(NO_DRIFT)
    for number in range(config.num_updates if num_images else 0):
        learner.optimizer.zero_grad(set_to_none=True)
        with casting_once(pairs.rows.device), in_order(pairs.rows.device):
            scores = _accumulate(learner, batch, pairs, old_logp, reference, num_images)
        if number == 0 and batch.old_logp is not None:
            drift = _drift(learner, pairs, scores)
        old_logp = scores.logp if old_logp is None else old_logp
        summary = _summary(learner, pairs, scores, num_images)
        summary["policy_gap"] = max(summary["policy_gap"], metrics["policy_gap"])  # of the first pass
        check_gap(summary["policy_gap"], learner.generator, learner.algorithm)
        metrics = summary | {"grad_norm": _step(learner, batch.update)}
    metrics["learning_rate"] = float(learner.optimizer.param_groups[0]["lr"])
    if learner.lr_scheduler is not None:
        learner.lr_scheduler.step()
    metrics |= {"seconds_update": perf_counter() - started, "skipped": float(num_images == 0)}
    return metrics if batch.old_logp is None else metrics | drift


NOTHING_LEARNT = {
    "loss": 0.0,
    "ratio_min": 1.0,
    "ratio_max": 1.0,
    "ratio_mean": 1.0,
    "clip_fraction": 0.0,
    "kl": 0.0,
    "policy_gap": 0.0,
    "grad_norm": 0.0,
}
NO_DRIFT = {"drift": 0.0, "drift_kl": 0.0}


def _recorded(learner: Learner, batch: Batch, pairs: Pairs) -> Tensor | None:
    """Return the log-probabilities of pairs under the weights that painted, Float [K]; None where they are these."""
    differs = version(learner.generator.module) != batch.version
    if not on_any(learner.process, differs, pairs.rows.device):
        return None
    if batch.old_logp is None:
        raise TrainingError(
            f"update {batch.update}: the batch was painted by other weights than those that learn, and carries no"
            " log-probabilities; collect with record_logp = True, or learn before the weights move"
        )
    return batch.old_logp[pairs.rows, pairs.columns]


def _pairs(batch: Batch, groups: list[int], group_size: int) -> Pairs:
    """List every trained step of every image of some groups, as :func:`in_passes` orders them."""
    device = batch.trajectory.state.device
    images_b = torch.tensor([i * group_size + g for i in groups for g in range(group_size)], dtype=torch.long)
    image_K, column_K = in_passes(len(images_b), batch.steps, group_size)
    rows_K, steps_K = images_b[image_K], batch.steps[column_K]
    kept_K = batch.keep[rows_K // group_size].float()
    adv_K = (
        batch.adv.flatten()[rows_K]
        if batch.step_adv is None
        else batch.step_adv.flatten(0, 1)[rows_K, steps_K]
    )
    return Pairs(
        prompts=rows_K // group_size,
        rows=rows_K.to(device),
        steps=steps_K.to(device),
        columns=column_K.to(device),
        kept=kept_K.to(device),
        weights=(batch.weights[column_K] * kept_K).to(device),
        adv=adv_K.to(device),
    )


def _some(pairs: Pairs, first: int, count: int) -> Pairs:
    return Pairs(**{name: values[first : first + count] for name, values in vars(pairs).items()})


def _accumulate(
    learner: Learner,
    batch: Batch,
    pairs: Pairs,
    old_logp: Tensor | None,
    reference: Condition | None,
    num_images: int,
) -> Scores:
    """Run every pair forward and backward, micro-batch by micro-batch; no weight moves.

    The loss is summed over steps and divided by the number of images kept on all processes: a mean over
    images, never a mean of the micro-batches' means.
    """
    table: list[Scores] = []
    config = learner.algorithm.config
    bounds = (config.eps_low, config.eps_high, config.dual_clip or math.inf)
    for first in range(0, len(pairs.rows), learner.micro_batch):
        micro = _some(pairs, first, learner.micro_batch)
        logp_K, kl_K, gap_K = _forward(learner, batch, micro, reference, is_first=old_logp is None)
        ratio_K = ratio(
            logp_K, logp_K.detach() if old_logp is None else old_logp[first : first + learner.micro_batch]
        )
        gain_K = surrogate(ratio_K, micro.adv, *bounds)
        loss_K = -micro.weights * (gain_K - config.kl_coef * kl_K)
        flat_K = clipped(ratio_K, micro.adv, *bounds).float()
        table.append(Scores(*(x.detach() for x in (logp_K, ratio_K, flat_K, kl_K, loss_K, gap_K))))
        with asking_all(learner.generator, learner.algorithm.transition):
            (loss_K.sum() / num_images).backward()
    scores = Scores(**{name: torch.cat([getattr(row, name) for row in table]) for name in vars(table[0])})
    _check(learner, batch, pairs, scores.loss)
    return scores


def _forward(
    learner: Learner, batch: Batch, micro: Pairs, reference: Condition | None, is_first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Score some pairs: log-probability, KL to the reference, and the gap to the painter, Float [K] each.

    The KL is 0 without a reference, the gap where weights have moved, or where it would compare unlike things.
    """
    config, generator = learner.algorithm.config, learner.generator
    transition = asked(learner.algorithm, batch.trajectory.transitions(micro.rows, micro.steps))
    condition = batch.condition.select(micro.prompts)
    logits_MV, logp_K = log_probs(generator, learner.algorithm, condition, transition, learner.score_batch)
    nothing_K = torch.zeros_like(logp_K)
    gap_K = policy_gap(logits_MV, transition) if is_first and is_comparable(learner.algorithm) else nothing_K
    if reference is None or learner.reference is None:
        return logp_K, nothing_K, gap_K
    sampling = learner.algorithm.sampling
    inputs = (transition.step, sampling, sampling.guidance_loss, transition.places)
    with torch.no_grad():
        base_MV = policy_logits(learner.reference, transition.state, reference.select(micro.prompts), *inputs)
    return logp_K, KL[config.kl](logits_MV, base_MV, transition), gap_K


def _check(learner: Learner, batch: Batch, pairs: Pairs, loss: Tensor) -> None:
    """Stop before a loss that is not finite reaches the weights; once a pass, for it waits for the device."""
    if loss.isfinite().all():
        return
    wrong = int((~loss.isfinite()).nonzero()[0])
    micro = _some(pairs, wrong - wrong % learner.micro_batch, learner.micro_batch)
    prompt = batch.prompts[int(pairs.prompts[wrong])]
    found = f"the loss of {type(learner.algorithm.transition).__name__!r} is {float(loss[wrong])}"
    is_sharded = are_parts(learner.generator.module.parameters())  # others would not run along
    if not is_sharded and _are_logits_wrong(learner, batch, micro):
        found = f"the logits of {type(learner.generator.unwrapped()).__name__!r} are not finite"
    raise TrainingError(
        f"update {batch.update}: {found} for {prompt.text!r} at step {int(pairs.steps[wrong])};"
        " if earlier updates were sound, lower the learning rate"
    )


@torch.no_grad()
def _are_logits_wrong(learner: Learner, batch: Batch, micro: Pairs) -> bool:
    """Tell whether the logits were no distribution already, whatever was made of them."""
    taken = asked(learner.algorithm, batch.trajectory.transitions(micro.rows, micro.steps))
    condition = batch.condition.select(micro.prompts)
    logits_MV, _ = log_probs(learner.generator, learner.algorithm, condition, taken, learner.score_batch)
    return not logits_MV.float().logsumexp(dim=-1).isfinite().all()


def _step(learner: Learner, update: int) -> float:
    """Add up the processes' gradients, clip, and move the weights; return the gradient's norm before the clip."""
    params = [p for group in learner.optimizer.param_groups for p in group["params"]]
    learner.process.sum_gradients(params)
    norm = float(whole(torch.nn.utils.clip_grad_norm_(params, learner.max_grad_norm)))
    if not norm < torch.inf:
        raise TrainingError(
            f"update {update}: the gradient of {type(learner.generator).__name__!r} has norm {norm};"
            " if earlier updates were sound, lower the learning rate"
        )
    learner.optimizer.step()
    _check_weights(learner, params, update)
    return norm


def _check_weights(learner: Learner, params: list[Tensor], update: int) -> None:
    """Stop where a step has left weights that are not finite; they are then nothing to save."""
    norms = torch.stack(torch._foreach_norm([part(p.detach()) for p in params], torch.inf))
    is_wrong = ~norms.isfinite()
    if are_parts(params):  # of which each process sees its own
        is_wrong = learner.process.sum(is_wrong.float()) > 0
    if not is_wrong.any():
        return
    named = {id(parameter): name for name, parameter in learner.generator.module.named_parameters()}
    wrong = params[int(is_wrong.nonzero()[0])]
    raise TrainingError(
        f"update {update}: the step has left weights that are not finite in {named.get(id(wrong), 'a parameter')!r}"
        f" (learning rate {learner.optimizer.param_groups[0]['lr']:g}); lower the learning rate, or the weight decay"
    )


def _drift(learner: Learner, pairs: Pairs, scores: Scores) -> dict[str, float]:
    """Measure how far the policy is from the one that painted, nats a step: mean |log ratio|, and a KL.

    KL(painter || policy) is estimated from what was painted: the mean of ratio - 1 - log ratio.
    """
    table = learner.process.gather(torch.stack([pairs.kept.double(), scores.ratio.double()], dim=1))
    ratio_K = table[table[:, 0] > 0][:, 1]
    log_K = ratio_K.log()
    return {"drift": float(log_K.abs().mean()), "drift_kl": float((ratio_K - 1 - log_K).mean())}


def _summary(learner: Learner, pairs: Pairs, scores: Scores, num_images: int) -> dict[str, float]:
    """Gather one pass over all processes; what was run only to keep step does not count."""
    columns = (pairs.kept, scores.ratio, scores.clipped, scores.kl, scores.loss, scores.gap)
    table = learner.process.gather(torch.stack([column.double() for column in columns], dim=1))
    _, ratio_K, clipped_K, kl_K, loss_K, gap_K = table[table[:, 0] > 0].unbind(dim=1)
    return {
        "loss": float(loss_K.sum()) / num_images,
        "ratio_min": float(ratio_K.min()),
        "ratio_max": float(ratio_K.max()),
        "ratio_mean": float(ratio_K.mean()),
        "clip_fraction": float(clipped_K.mean()),
        "kl": float(kl_K.mean()),
        "policy_gap": float(gap_K.max()),
    }
