"""What a generator promises."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from maskrl.asking import asking
from maskrl.errors import RecipeError
from maskrl.grpo.answers import kind
from maskrl.grpo.config import SamplingConfig, resolve
from maskrl.interfaces import MaskedGenerator
from maskrl.testing.classes import check_class
from maskrl.testing.promises import NOISE, PROMPTS, apart, quiet, require, require_close, require_floats
from maskrl.testing.promises import require_listed as listed
from maskrl.testing.scene import WEIGHT, Scene
from maskrl.testing.weights import check_checkpointing, check_save
from maskrl.types import GeneratorSpec, Prompt


def check_generator(component: MaskedGenerator, prompts: Sequence[Prompt] = PROMPTS) -> None:
    """Check every promise but ``compile_layers``: spec, conditions, logits, guidance, decoding, saving and loading.

    Args:
        component: on any device, in fp32.
        prompts: two at least, of different texts and lengths.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.MaskedGenerator`.
    """
    check_class(type(component))
    with asking(component):
        _check_networks(component)
        _check_spec(component, component.spec)
        _check_cost(component)
        scene = Scene(component, prompts)
        for guidance in (0.0, WEIGHT):
            _check_logits(scene, guidance)
            _check_gradient(scene, guidance)
        _check_guidance(scene)
        _check_rows(scene)
        _check_inputs(scene)
        _check_conditions(scene)
        _check_decode(scene)
        check_save(scene)
        check_checkpointing(scene)
        _check_networks(component)


def _check_networks(component: MaskedGenerator) -> None:
    for network in (component.module, *component.frozen):
        training = any(part.training for part in network.modules())
        require(component, not training, "a network is in train(): dropout would falsify the ratio")
    trained = [p for p in component.module.parameters() if p.requires_grad]
    require(component, bool(trained), "no parameter of module asks for a gradient: nothing can be trained")
    frozen = {id(p) for network in component.frozen for p in network.parameters()}
    shared = any(id(p) in frozen for p in trained)
    require(component, not shared, "'frozen' holds parameters of module, which is trained")
    listed(component, "'module' or 'frozen'", [component.module, *component.frozen])


def _check_spec(component: MaskedGenerator, spec: GeneratorSpec) -> None:
    many = spec.num_tokens >= 1 and spec.num_codes >= 2
    require(component, many, "spec has no tokens, or fewer than two codes")
    require(component, not 0 <= spec.mask_id < spec.num_codes, f"spec.mask_id = {spec.mask_id} is a code")
    fits = spec.grid is None or math.prod(spec.grid) == spec.num_tokens
    require(component, fits, f"spec.grid = {spec.grid} does not hold {spec.num_tokens} tokens")
    steps = spec.sampler.num_steps
    fits = 1 <= steps <= spec.num_tokens
    require(component, fits, f"spec.sampler.num_steps = {steps} is not in 1..num_tokens")
    resolve(SamplingConfig(), spec, component)  # the names of its sampler are known ones
    layers = [name for name, part in component.module.named_modules() if isinstance(part, nn.Linear)]
    for target in spec.lora_targets:
        known = any(name == target or name.endswith(f".{target}") for name in layers)
        require(component, known, f"spec.lora_targets names {target!r}; module has no such linear layer")


def _check_cost(component: MaskedGenerator) -> None:
    try:
        cost = type(component).cost(component.config, text_tokens=8)
    except RecipeError:  # it does not say
        return
    held = sum(p.numel() for p in component.module.parameters())
    numbers = f"cost says {cost.parameters} parameters, module has {held}"
    require(component, cost.parameters == held, numbers)
    held = sum(p.numel() for network in component.frozen for p in network.parameters())
    numbers = f"cost says {cost.frozen_parameters} frozen parameters, 'frozen' has {held}"
    require(component, cost.frozen_parameters == held, numbers)
    require(component, cost.spec == component.spec, "cost has another spec")


def _check_logits(scene: Scene, guidance: float) -> None:
    """Shapes, precision, packing, and that a row depends neither on the others nor on their prompts."""
    component, spec = scene.component, scene.component.spec
    given = scene.tokens.clone()
    with quiet(component, "logits"):
        full = scene.logits(guidance)
    require_floats(component, "logits", full, (scene.size, spec.num_tokens, spec.num_codes), None)
    precise = full.dtype in (torch.float32, torch.float64)
    asked = "after guidance" if guidance else "of a network in fp32"
    coarse = not guidance and full.dtype == torch.bfloat16 and scene.is_bf16
    require(component, precise or coarse, f"logits {asked} are {kind(full)}, not in fp32")
    require(component, torch.equal(scene.tokens, given), "logits changed the tokens")
    require_close(component, full, scene.logits(guidance), "logits has noise", NOISE)
    for positions in (scene.masked, scene.some):
        packed = scene.logits(guidance, positions=positions)
        shape = (int(positions.sum()), spec.num_codes)
        require_floats(component, "packed logits", packed, shape, full.dtype)
        require_close(component, packed, full[positions], "logits at 'positions' differ from the full ones")
    for row in range(scene.size):
        alone = scene.alone(row, guidance)
        complaint = "the logits of a row depend on the other rows, or on their prompts or steps"
        require_close(component, full[row : row + 1], alone, complaint)


def _check_gradient(scene: Scene, guidance: float) -> None:
    component = scene.component
    packed = scene.logits(guidance, positions=scene.masked)
    require(component, packed.requires_grad, f"no gradient reaches module at guidance {guidance}: cut off")
    weights = [p for p in component.module.parameters() if p.requires_grad]
    grads = torch.autograd.grad(packed.logsumexp(-1).sum(), weights, allow_unused=True)
    moved = any(bool(gradient.any()) for gradient in grads if gradient is not None)
    require(component, moved, f"no gradient reaches module at guidance {guidance}")


@torch.no_grad()
def _check_guidance(scene: Scene) -> None:
    """What is left of (1 + w) * cond - w * uncond without the first summand is the same whatever the prompt."""
    component, rows = scene.component, range(1, scene.size)
    same_canvas = scene.on_one_canvas()
    conditional = same_canvas.logits(0.0).double()
    effect = max(apart(conditional[0], conditional[row]) for row in rows)
    require(component, effect > 0, "the logits do not depend on the text")
    found = []
    for weight in (WEIGHT, 2 * WEIGHT):
        guided = same_canvas.logits(weight).double()
        found.append(((1 + weight) * conditional - guided) / weight)
    rounding = max(0.1 * effect, NOISE * float(conditional.abs().max()))
    for null in found:
        spread = max(apart(null[0], null[row]) for row in rows)
        complaint = "guidance is not (1 + w) * cond - w * uncond: what it subtracts depends on the text"
        require(component, spread <= rounding, f"{complaint} (by {spread:.2g} of {effect:.2g})")
    require(component, apart(*found) <= rounding, "guidance is not linear in w")


@torch.no_grad()
def _check_rows(scene: Scene) -> None:
    """Every row has the guidance of its own weight, also 0."""
    weights = [WEIGHT * (row % 3) for row in range(scene.size)]
    mixed = scene.logits(torch.tensor(weights, dtype=torch.float64))
    for row, weight in enumerate(weights):
        complaint = "guidance is one weight for each row, and a row has another one's"
        require_close(scene.component, mixed[row], scene.logits(weight)[row], complaint)


@torch.no_grad()
def _check_inputs(scene: Scene) -> None:
    """Codes that are known tell something about those that are not."""
    before = scene.logits(0.0, positions=scene.masked)
    other = scene.with_other_codes().logits(0.0, positions=scene.masked)
    require(scene.component, apart(before, other) > 0, "the logits do not depend on the codes that are known")


@torch.no_grad()
def _check_conditions(scene: Scene) -> None:
    """Rows of a condition can be picked and repeated, before and after ``prefill``, which changes no logits."""
    component, rows = scene.component, torch.tensor([scene.size - 1, 0, 0])
    picked = scene.pick(rows)
    full = scene.logits(WEIGHT)
    complaint = "rows that 'select' picked or repeated have other logits"
    require_close(component, full[rows.to(full.device)], picked.logits(WEIGHT), complaint)
    with quiet(component, "prefill"):
        filled = component.prefill(scene.condition)
    require_close(
        component, full, scene.logits(WEIGHT), "'prefill' changed the condition it was given", NOISE
    )
    for condition in (filled, component.prefill(filled)):
        ready = scene.given(condition)
        require_close(component, full, ready.logits(WEIGHT), "logits after 'prefill' are others")
        again = ready.pick(rows).logits(WEIGHT)
        require_close(component, full[rows.to(full.device)], again, f"after 'prefill', {complaint}")


def _check_decode(scene: Scene) -> None:
    component, spec = scene.component, scene.component.spec
    tokens, condition = scene.codes(), scene.condition
    given = tokens.clone()
    with quiet(component, "decode"):
        images = component.decode(tokens, condition)
    shape = (scene.size, 3, *spec.image_size)
    require_floats(component, "decode", images, shape, torch.float32)
    require(component, not images.requires_grad, "decode returned a tensor with a gradient")
    low, high = float(images.min()), float(images.max())
    require(component, low >= 0 and high <= 1, f"decode returned pixels in [{low}, {high}], not in [0, 1]")
    require(component, torch.equal(tokens, given), "decode changed the tokens")
    require_close(component, images, component.decode(tokens, condition), "decode has noise", NOISE)
    one = condition.select(torch.tensor([0]))
    alone = component.decode(tokens[:1], one)
    require_close(component, images[:1], alone, "the pixels of an image depend on the others")
    other = component.decode((tokens[:1] + 1) % spec.num_codes, one)
    require(component, apart(alone, other) > 0, "the pixels do not depend on the codes")
