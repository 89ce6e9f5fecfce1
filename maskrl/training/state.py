"""What a resumed run needs to continue exactly: things with a state, each by its name, that a checkpoint walks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from maskrl.asking import asking, refused
from maskrl.errors import TrainingError
from maskrl.grpo import answers
from maskrl.interfaces import GroupFilter, MaskedGenerator
from maskrl.runtime.checkpoint import Checkpoint
from maskrl.shards import divided_as
from maskrl.training.schedule import LearningRate


@dataclass
class Progress:
    """How far a run is: updates made, rows of metrics written before and their sha256, seconds spent in updates."""

    update: int = 0
    rows: int = 0
    rows_sha256: str | None = None
    seconds: float = 0.0


# earlier versions wrote the recipe's digest beside them
COUNTERS = {*(field.name for field in fields(Progress)), "recipe"}


class HasState(Protocol):
    """Something that changes as a run goes on, and goes on from a saved state: in torch's words."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state by name: tensors, and whatever JSON holds."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned; tensors come on the CPU.

        Raises:
            TrainingError: it is the state of something else.
        """


class Weights:
    """The trained parameters of a generator."""

    def __init__(self, generator: MaskedGenerator) -> None:
        self._parameters = trained_parameters(generator)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the parameters, by name."""
        return dict(self._parameters)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put the parameters back, to the last bit.

        Raises:
            TrainingError: they are those of another network.
        """
        copy_into(self._parameters, state)


@torch.no_grad()
def copy_into(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy saved tensors into those of the same names.

    Raises:
        TrainingError: they are those of another network.
    """
    saved = {name: tensor.shape for name, tensor in state.items()}
    built = {name: tensor.shape for name, tensor in tensors.items()}
    different = sorted(name for name in saved | built if saved.get(name) != built.get(name))
    if different:
        raise TrainingError(
            f"it does not fit the recipe's generator: {different[0]!r} is {saved.get(different[0])} there and"
            f" {built.get(different[0])} here; was the base model changed?"
        )
    for name, tensor in tensors.items():
        tensor.copy_(divided_as(state[name], tensor))


class Moments:
    """What an optimizer remembers of each trained parameter; called ``MOMENT/PARAMETER``."""

    def __init__(self, generator: MaskedGenerator, optimizer: torch.optim.Optimizer) -> None:
        self._parameters, self._optimizer = trained_parameters(generator), optimizer

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments; bitsandbytes counts steps in an int."""
        return {
            f"{moment}/{name}": torch.as_tensor(value)
            for name, parameter in self._parameters.items()
            for moment, value in self._optimizer.state.get(parameter, {}).items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put the moments back; the learning rate stays as it is."""
        moments: dict[int, dict[str, Tensor | int]] = {}
        places = self._places()
        for key, tensor in state.items():
            moment, name = key.split("/", 1)
            is_count = tensor.dtype == torch.int64 and tensor.ndim == 0
            parameter = self._parameters[name]
            if tensor.shape == parameter.shape:
                tensor = divided_as(tensor, parameter)
            moments.setdefault(places[name], {})[moment] = int(tensor) if is_count else tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})

    def _places(self) -> dict[str, int]:
        """Return the number by which the optimizer's state dict knows each parameter: group after group."""
        numbered = enumerate(p for group in self._optimizer.param_groups for p in group["params"])
        places = {id(parameter): place for place, parameter in numbered}
        return {name: places[id(parameter)] for name, parameter in self._parameters.items()}


class History:
    """What a filter has seen."""

    def __init__(self, group_filter: GroupFilter) -> None:
        self._filter = group_filter

    def state_dict(self) -> dict[str, Any]:
        """Ask the filter."""
        return answers.filter_state(self._filter)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hand it to the filter."""
        with asking(self._filter):
            self._filter.load_state_dict(state)


def trained_parameters(generator: MaskedGenerator) -> dict[str, nn.Parameter]:
    """Return what training changes, by name.

    Raises:
        PluginError: it is nothing.
    """
    named = generator.module.named_parameters()
    found = {name: parameter for name, parameter in named if parameter.requires_grad}
    if not found:
        raise refused(generator, "no parameter of module asks for a gradient: nothing can be trained")
    return found


def capture(things: Mapping[str, HasState], progress: Progress) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's tensors, called ``NAME/...``, and its JSON state: the counters, and by NAME the rest."""
    tensors: dict[str, Tensor] = {}
    state = asdict(progress)
    for name, thing in things.items():
        saved = thing.state_dict()
        found = {key: value for key, value in saved.items() if isinstance(value, Tensor)}
        tensors |= {f"{name}/{key}": value for key, value in found.items()}
        if not found or len(found) < len(saved):
            state[name] = {key: value for key, value in saved.items() if key not in found}
    return tensors, state


def read_progress(checkpoint: Checkpoint) -> Progress:
    """Return the counters of a checkpoint; one of before rows were hashed has no ``rows_sha256``."""
    state = checkpoint.state
    return Progress(state["update"], state["rows"], state.get("rows_sha256"), state["seconds"])


def restore(checkpoint: Checkpoint, things: Mapping[str, HasState], learning_rate: LearningRate) -> None:
    """Hand everything its state; the learning rate has none, it is a function of the update's number.

    Raises:
        TrainingError: the checkpoint lacks the state of something, has that of something else, or was trained from
            another generator.
    """
    saved = _by_name(checkpoint)
    where = f"checkpoint {str(checkpoint.folder)!r}"
    for name in sorted(saved.keys() - things.keys()):
        raise TrainingError(
            f"{where} holds the state of {name!r}, which this run does not have; resume it with the version of maskrl"
            " that wrote it"
        )
    for name in sorted(name for name in things if name not in saved and things[name].state_dict()):
        raise TrainingError(
            f"{where} does not hold the state of {name!r}, which this run has; resume it with the version of maskrl"
            " that wrote it"
        )
    for name, thing in things.items():
        try:
            thing.load_state_dict(saved.get(name, {}))
        except TrainingError as error:
            raise TrainingError(f"{where}: {error}") from error
    learning_rate.continue_from(read_progress(checkpoint).update)


def _by_name(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """Sort what a checkpoint holds by whose it is; the counters are nobody's."""
    saved: dict[str, dict[str, Any]] = {
        name: dict(state) for name, state in checkpoint.state.items() if name not in COUNTERS
    }
    for key, tensor in checkpoint.tensors.items():
        name, _, rest = key.partition("/")
        saved.setdefault(name, {})[rest] = tensor
    return saved
