"""Low-rank adapters: a few trained matrices beside frozen weights, through peft.

Source: Hu et al. 2021 (arXiv 2106.09685).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from maskrl.errors import RecipeError, TrainingError
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.runtime.checkpoint import PARAMETER, load
from maskrl.runtime.wrapper import Wrapper
from maskrl.sections import LoraConfig
from maskrl.shards import whole
from maskrl.types import StepIndex

if TYPE_CHECKING:
    from peft import LoraConfig as PeftConfig

ADAPTER = "default"  # peft's name of the only adapter


def adapt(generator: MaskedGenerator, config: LoraConfig, seed: int) -> None:
    """Freeze a generator's network and put adapters beside some of its layers, which begin as no change at all.

    The network's ``state_dict`` becomes that of the merged network: whatever saves it writes the layout it knows.

    Raises:
        RecipeError: peft is missing, or the network has no such layers.
    """
    targets = list(config.targets or generator.spec.lora_targets)
    if not targets:
        raise RecipeError(
            f"{type(generator).__name__} names no layers for adapters; say lora.targets = [...]"
        )
    adapt_network(generator.module, targets, config, seed)


def adapt_as_trained(
    generator: MaskedGenerator, config: LoraConfig, seed: int, checkpoint: Path, whose: str = PARAMETER
) -> None:
    """Adapt a generator as a run did, with what its adapters had learnt: to the last bit what was trained.

    Merged into the weights, adapters are rounded, and in bf16 most of what they have learnt goes. ``whose`` tells the
    adapters from their average.

    Raises:
        RecipeError: as :func:`adapt`.
        TrainingError: the checkpoint is damaged, or holds no such adapters.
    """
    adapt(generator, config, seed)
    saved = load(checkpoint).tensors
    for name, parameter in generator.module.named_parameters():
        if parameter.requires_grad:
            found = saved.get(f"{whose}/{name}")
            if found is None or found.shape != parameter.shape:
                raise TrainingError(f"checkpoint {str(checkpoint)!r} has no adapter {name!r} of this recipe")
            parameter.data.copy_(found)


def digest(module: nn.Module) -> str | None:
    """Return the sha256 of a network's adapters, and of how they are added; None of a network without."""
    adapters = [(name, p) for name, p in module.named_parameters() if f".{ADAPTER}." in name]
    if not adapters:
        return None
    found = hashlib.sha256()
    for name, layer in _adapted(module):
        found.update(f"{name} {layer.scaling[ADAPTER]} {layer.get_base_layer().weight.dtype}\n".encode())
    for name, parameter in adapters:
        found.update(f"{name}\n".encode() + whole(parameter.detach()).cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def adapt_network(module: nn.Module, targets: list[str], config: LoraConfig, seed: int) -> None:
    """Do what :func:`adapt` does to a network, beside layers of these names.

    Raises:
        RecipeError: peft is missing, or the network has no such layers, or one is not linear.
    """
    settings = settings_of(config, targets)
    kept_in(module, config.base_dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the same adapters on every process
        inject(module, settings, f"lora.targets = {targets}")
    module.register_state_dict_post_hook(_merge)


def peft_package() -> Any:
    """Return peft, which is an extra, and slow to import.

    Raises:
        RecipeError: it is missing.
    """
    try:
        import peft
    except ModuleNotFoundError as error:
        raise RecipeError("[lora] needs the package 'peft': pip install 'maskrl[lora]'") from error
    return peft


def settings_of(config: LoraConfig, targets: list[str]) -> PeftConfig:
    """Return a recipe's adapters, beside layers of these names, as peft is told of them.

    Raises:
        RecipeError: peft is missing.
    """
    alpha = config.alpha or config.rank
    settings: PeftConfig = peft_package().LoraConfig(r=config.rank, lora_alpha=alpha, target_modules=targets)
    return settings


def kept_in(module: nn.Module, dtype: Literal["fp32", "bf16"]) -> None:
    """Freeze a network, its weights in a dtype."""
    module.requires_grad_(False)
    if dtype == "bf16":
        for parameter in module.parameters():  # not the buffers: rotary angles would be wrong
            parameter.data = parameter.data.to(torch.bfloat16)


def inject(module: nn.Module, settings: PeftConfig, what: str) -> None:
    """Put adapters, in fp32, beside the linear layers that their settings name.

    Raises:
        RecipeError: the network has no such layers, or one is not linear; ``what`` says who named them.
    """
    try:
        peft_package().inject_adapter_in_model(settings, module)
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise RecipeError(f"{what}: the network of this generator has no such layers ({reason})") from error
    for name, layer in _adapted(module):
        if not isinstance(layer.get_base_layer(), nn.Linear):
            raise RecipeError(f"{what}: {name!r} is no linear layer; name linear layers alone")
        for part in (layer.lora_A, layer.lora_B):
            part.float()
    module.eval()


def _adapted(module: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, LoraLayer))


def _merge(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """Write every adapted layer as the plain layer that does the same, in fp32."""
    for name, layer in _adapted(module):
        here = f"{prefix}{name}."
        weight = state.pop(f"{here}base_layer.weight").float()
        if f"{here}base_layer.bias" in state:
            state[f"{here}bias"] = state.pop(f"{here}base_layer.bias")
        for part in ("lora_A", "lora_B"):
            state.pop(f"{here}{part}.{ADAPTER}.weight")
        state[f"{here}weight"] = weight + layer.get_delta_weight(ADAPTER).detach().float()


@contextmanager
def adapters_off(module: nn.Module) -> Iterator[None]:
    """Run a network as it was before :func:`adapt`."""
    layers = [layer for _, layer in _adapted(module)]
    try:
        for layer in layers:
            layer.enable_adapters(enabled=False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)


class Unadapted(Wrapper):
    """The generator without its adapters: the reference policy, at no cost in memory."""

    def prefill(self, condition: Condition) -> Condition:
        """As the inner generator, without adapters."""
        with adapters_off(self.module):
            return self.inner.prefill(condition)

    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """As the inner generator, without adapters."""
        with adapters_off(self.module):
            return self.inner.logits(tokens, condition, step, guidance, positions)
