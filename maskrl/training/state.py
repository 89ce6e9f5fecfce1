"""What a resumed run needs to continue exactly, and how it is put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskrl.asking import asking
from maskrl.errors import TrainingError
from maskrl.grpo import answers
from maskrl.grpo.actor import Actor
from maskrl.grpo.learner import Learner
from maskrl.interfaces import MaskedGenerator
from maskrl.runtime.checkpoint import Checkpoint
from maskrl.training.schedule import LearningRate


@dataclass
class Progress:
    """How far a run is: updates made, rows of metrics written before and their sha256, seconds spent in updates."""

    update: int = 0
    rows: int = 0
    rows_sha256: str | None = None
    seconds: float = 0.0


def trained_parameters(generator: MaskedGenerator) -> dict[str, nn.Parameter]:
    """Return what training changes, by name."""
    named = generator.module.named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def capture(actor: Actor, learner: Learner, progress: Progress) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the JSON state of a checkpoint.

    Args:
        actor: its filter.
        learner: weights and optimizer.
        progress: the counters.
    """
    parameters = trained_parameters(learner.generator)
    tensors: dict[str, Tensor] = {f"parameter/{name}": parameter for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in learner.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = torch.as_tensor(value)  # bitsandbytes counts steps in an int
    state = {
        "update": progress.update,
        "rows": progress.rows,
        "rows_sha256": progress.rows_sha256,
        "seconds": progress.seconds,
        "filter": answers.filter_state(actor.filter),
    }
    return tensors, state


def read_progress(checkpoint: Checkpoint) -> Progress:
    """Return the counters of a checkpoint; one of before rows were hashed has no ``rows_sha256``."""
    state = checkpoint.state
    return Progress(state["update"], state["rows"], state.get("rows_sha256"), state["seconds"])


@torch.no_grad()
def restore(checkpoint: Checkpoint, actor: Actor, learner: Learner, learning_rate: LearningRate) -> None:
    """Put weights, moments, learning rate and the filter's history back, to the last bit.

    Raises:
        TrainingError: the recipe's generator is not the one the checkpoint was trained from.
    """
    parameters = trained_parameters(learner.generator)
    saved = {
        key.removeprefix("parameter/"): tensor
        for key, tensor in checkpoint.tensors.items()
        if key.startswith("parameter/")
    }
    _check_same(
        {n: t.shape for n, t in saved.items()}, {n: p.shape for n, p in parameters.items()}, checkpoint
    )
    for name, parameter in parameters.items():
        parameter.copy_(saved[name])
    moments: dict[int, dict[str, Tensor | int]] = {}
    places = _places(parameters, learner.optimizer)
    for key, tensor in checkpoint.tensors.items():
        if key.startswith("optimizer/"):
            _, moment, name = key.split("/", 2)
            is_count = tensor.dtype == torch.int64 and tensor.ndim == 0
            moments.setdefault(places[name], {})[moment] = int(tensor) if is_count else tensor
    groups = learner.optimizer.state_dict()["param_groups"]
    learner.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    learning_rate.continue_from(checkpoint.state["update"])
    with asking(actor.filter):
        actor.filter.load_state_dict(checkpoint.state["filter"])


def _places(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Return the number by which an optimizer's state dict knows each parameter: group after group."""
    numbered = enumerate(p for group in optimizer.param_groups for p in group["params"])
    places = {id(parameter): place for place, parameter in numbered}
    return {name: places[id(parameter)] for name, parameter in parameters.items()}


def _check_same(saved: dict[str, torch.Size], built: dict[str, torch.Size], checkpoint: Checkpoint) -> None:
    different = sorted(name for name in saved | built if saved.get(name) != built.get(name))
    if different:
        raise TrainingError(
            f"checkpoint {str(checkpoint.folder)!r} does not fit the recipe's generator: {different[0]!r} is "
            f"{saved.get(different[0])} there and {built.get(different[0])} here; was the base model changed?"
        )
