"""What a generator promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from maskrl.asking import asking
from maskrl.attributes import check_attributes
from maskrl.errors import RecipeError
from maskrl.grpo import answers
from maskrl.grpo.answers import kind
from maskrl.interfaces import MaskedGenerator
from maskrl.testing.classes import check_class
from maskrl.testing.gradients import check_gradient
from maskrl.testing.promises import NOISE, PROMPTS, apart, quiet, require, require_close, require_floats
from maskrl.testing.promises import require_listed as listed
from maskrl.testing.rollouts import check_rollout
from maskrl.testing.scene import Scene
from maskrl.testing.spec import check_cost, check_spec
from maskrl.testing.weights import awake, check_checkpointing, check_save, trained
from maskrl.types import Prompt

BATCHES = (7, 33)  # rows: more than prompts, and no multiple of what a generator may take at a time


def check_generator(component: MaskedGenerator, prompts: Sequence[Prompt] = PROMPTS) -> None:
    """Check every promise but ``compile_layers``: spec, conditions, logits, guidance, rollouts, decoding, saving.

    Args:
        component: on any device, in fp32.
        prompts: two at least, of different texts and lengths.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.MaskedGenerator`.
    """
    check_class(type(component))
    check_attributes(component)
    with asking(component):
        _check_networks(component)
        check_spec(component)
        check_cost(component)
        scene = _scene(component, prompts)
        with awake(component.module):
            for guidance in sorted({0.0, scene.weight}):
                _check_given(scene, guidance)
                _check_logits(scene, guidance)
                check_gradient(scene, guidance)
            if scene.weight:
                _check_guidance(scene)
                _check_rows(scene)
            _check_inputs(scene)
            _check_conditions(scene)
            _check_batches(scene)
            _check_num_steps(scene)
            for guidance in sorted({0.0, scene.weight}):
                check_rollout(scene, guidance)
        _check_decode(scene)
        check_save(scene)
        check_checkpointing(scene)
        _check_networks(component)


def _scene(component: MaskedGenerator, prompts: Sequence[Prompt]) -> Scene:
    """Show the prompts, with guidance unless the generator refuses any."""
    scene = Scene(component, prompts)
    try:
        with quiet(component, "logits"):
            Scene(component, prompts).logits(scene.weight)
    except RecipeError:
        default = component.spec.sampler.guidance
        require(component, default == 0, f"spec.sampler.guidance = {default}, but logits refuse any guidance")
        return replace(scene, weight=0.0)
    return scene


def _check_networks(component: MaskedGenerator) -> None:
    for network in (component.module, *component.frozen):
        training = any(part.training for part in network.modules())
        require(component, not training, "a network is in train(): dropout would falsify the ratio")
    weights = trained(component.module)
    require(component, bool(weights), "no parameter of module asks for a gradient: nothing can be trained")
    frozen = {id(p) for network in component.frozen for p in network.parameters()}
    shared = any(id(p) in frozen for p in weights)
    require(component, not shared, "'frozen' holds parameters of module, which is trained")
    listed(component, "'module' or 'frozen'", [component.module, *component.frozen])


@torch.no_grad()
def _check_given(scene: Scene, guidance: float) -> None:
    """What is handed in stays as it is: the reference policy is handed the same."""
    step, positions, weights = scene.step, scene.some, scene.weights(guidance).clone()
    given = {"tokens": scene.tokens, "step": step.t, "positions": positions, "guidance": weights}
    before = {name: tensor.clone() for name, tensor in given.items()}
    scene.component.logits(scene.tokens, scene.condition, step, weights, positions=positions)
    for name, tensor in given.items():
        require(scene.component, torch.equal(tensor, before[name]), f"logits changed the {name}")


def _check_logits(scene: Scene, guidance: float) -> None:
    """Shapes, precision, packing, and that a row depends neither on the others nor on their prompts."""
    component, spec = scene.component, scene.component.spec
    with quiet(component, "logits"):
        full = scene.logits(guidance)
    require_floats(component, "logits", full, (scene.size, spec.num_tokens, spec.num_codes), None)
    precise = full.dtype in (torch.float32, torch.float64)
    asked = "after guidance" if guidance else "of a network in fp32"
    coarse = not guidance and full.dtype == torch.bfloat16 and scene.is_bf16
    require(component, precise or coarse, f"logits {asked} are {kind(full)}, not in fp32")
    rounded = not scene.is_bf16 and torch.equal(full.bfloat16().to(full.dtype), full)
    require(component, not rounded, f"logits {asked} are rounded to bf16")
    require_close(
        component, full, scene.logits(guidance), "logits has noise, or changed its condition", NOISE
    )
    for positions in (scene.masked, scene.some):
        packed = scene.logits(guidance, positions=positions)
        shape = (int(positions.sum()), spec.num_codes)
        require_floats(component, "packed logits", packed, shape, full.dtype)
        require_close(component, packed, full[positions], "logits at 'positions' differ from the full ones")
    for row in range(scene.size):
        alone = scene.alone(row, guidance)
        complaint = "the logits of a row depend on the other rows, or on their prompts or steps"
        require_close(component, full[row : row + 1], alone, complaint)


@torch.no_grad()
def _check_guidance(scene: Scene) -> None:
    """What is left of (1 + w) * cond - w * uncond without the first summand is the same whatever the prompt."""
    component, rows = scene.component, range(1, scene.size)
    same_canvas = scene.on_one_canvas()
    conditional = same_canvas.logits(0.0).double()
    effect = max(apart(conditional[0], conditional[row]) for row in rows)
    require(component, effect > 0, "the logits do not depend on the text")
    found = []
    for weight in (scene.weight, 2 * scene.weight):
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
    weights = [scene.weight * (row % 3) for row in range(scene.size)]
    mixed = scene.logits(torch.tensor(weights, dtype=torch.float64))
    for row, weight in enumerate(weights):
        complaint = "guidance is one weight for each row, and a row has another one's"
        require_close(scene.component, mixed[row], scene.logits(weight)[row], complaint)


@torch.no_grad()
def _check_inputs(scene: Scene) -> None:
    """Codes that are known tell something about those that are not."""
    if scene.masked.all():  # of a single token none is known
        return
    before = scene.logits(0.0, positions=scene.masked)
    other = scene.with_other_codes().logits(0.0, positions=scene.masked)
    require(scene.component, apart(before, other) > 0, "the logits do not depend on the codes that are known")


@torch.no_grad()
def _check_conditions(scene: Scene) -> None:
    """Rows of a condition can be picked and repeated, before and after ``prefill``, which changes no logits."""
    component, rows = scene.component, torch.tensor([scene.size - 1, 0, 0])
    picked = scene.pick(rows)
    full = scene.logits(scene.weight)
    complaint = "rows that 'select' picked or repeated have other logits"
    require_close(component, full[rows.to(full.device)], picked.logits(scene.weight), complaint)
    with quiet(component, "prefill"):
        filled = answers.prefill(component, scene.condition)
    require_close(
        component, full, scene.logits(scene.weight), "'prefill' changed the condition it was given", NOISE
    )
    for condition in (filled, component.prefill(filled)):
        ready = scene.given(condition)
        require_close(component, full, ready.logits(scene.weight), "logits after 'prefill' are others")
        again = ready.pick(rows).logits(scene.weight)
        require_close(component, full[rows.to(full.device)], again, f"after 'prefill', {complaint}")


@torch.no_grad()
def _check_batches(scene: Scene) -> None:
    """A row of a large batch has the logits that it has in a small one."""
    full = scene.logits(scene.weight)
    for size in BATCHES:
        rows = torch.arange(size) % scene.size
        many = scene.pick(rows)
        found = many.logits(scene.weight, positions=many.some)
        complaint = f"the logits of a row are others in a batch of {size} rows"
        require_close(scene.component, full[rows.to(full.device)][many.some], found, complaint)


@torch.no_grad()
def _check_num_steps(scene: Scene) -> None:
    """A recipe may choose any number of steps up to N; a generator that cannot take one says so by a RecipeError."""
    for steps in (1, scene.component.spec.num_tokens):
        try:
            found = scene.in_steps(steps).logits(scene.weight, positions=scene.masked)
        except RecipeError:
            continue
        shape = (int(scene.masked.sum()), scene.component.spec.num_codes)
        require_floats(scene.component, f"logits at a step of {steps}", found, shape, None)


def _check_decode(scene: Scene) -> None:
    component, spec = scene.component, scene.component.spec
    tokens, condition = scene.codes(), scene.condition
    with quiet(component, "decode"):
        raw = component.decode(tokens.clone(), condition)
    gradient = isinstance(raw, torch.Tensor) and raw.requires_grad
    require(component, not gradient, "decode returned a tensor with a gradient")
    images = answers.decode(component, tokens, condition)
    require_close(component, images, answers.decode(component, tokens, condition), "decode has noise", NOISE)
    one = condition.select(torch.tensor([0]))
    alone = answers.decode(component, tokens[:1], one)
    require_close(component, images[:1], alone, "the pixels of an image depend on the others")
    rows = torch.arange(BATCHES[0], device=tokens.device) % scene.size
    many = answers.decode(component, tokens[rows], condition.select(rows))
    require_close(component, images[rows], many, "the pixels of an image are others in a larger batch")
    other = answers.decode(component, (tokens[:1] + 1) % spec.num_codes, one)
    require(component, apart(alone, other) > 0, "the pixels do not depend on the codes")
