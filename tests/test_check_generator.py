"""Every promise of a generator, broken once: the contract check names it."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sound_generator import CODES, STEPS, TOKENS, Good, Texts
from torch import Tensor, nn
from toy_run import ToyGenerator

from maskrl.errors import PluginError, RecipeError
from maskrl.grpo.rollout import rollout
from maskrl.interfaces import MaskedGenerator
from maskrl.testing import check_generator
from maskrl.types import GeneratorSpec, Prompt, SamplerDefaults

NOISE = torch.Generator()


def build(**changes):
    kind = type("Mine", (Good,), {"__module__": __name__, **changes})
    return kind(kind.Config())


@pytest.mark.parametrize("good", [build, lambda: ToyGenerator(ToyGenerator.Config())])
def test_a_sound_generator_passes_and_is_left_as_it_was(good):
    generator = good()
    before = {name: value.clone() for name, value in generator.module.state_dict().items()}
    check_generator(generator)
    assert all(torch.equal(before[name], value) for name, value in generator.module.state_dict().items())


def test_a_network_in_bf16_may_hand_out_bf16_where_nothing_is_added():
    """Its rows differ by more than rounding of fp32, which is what the check is for: only the dtype is looked at."""
    generator = build(guide=lambda self, cond, uncond, w: Good.guide(self, cond.float(), uncond.float(), w))
    generator.module.bfloat16()
    with pytest.raises(PluginError) as error:
        check_generator(generator)
    assert "not in fp32" not in str(error.value)


def spec(**changes):
    return {"spec": replace(Good.spec, **changes)}


def costing(**changes):
    cost = replace(Good.cost(None, text_tokens=8), **changes)
    return {"cost": classmethod(lambda cls, config, *, text_tokens: cost)}


def built(then):
    def init(self, config):
        Good.__init__(self, config)
        then(self)

    return {"__init__": init}


def after(method, change):
    original = getattr(Good, method)
    return {method: lambda self, *given, **named: change(original(self, *given, **named))}


def before(method, change):
    original = getattr(Good, method)
    return {method: lambda self, *given, **named: original(self, *change(*given), **named)}


def guided(rule):
    return {"guide": lambda self, cond, uncond, w: rule(cond, uncond, w[:, None, None])}


def texts(change):
    return {"encode": lambda self, prompts: Texts(change(Good.encode(self, prompts).letters))}


def pad_with_letters(letters):
    return torch.where(letters == 0, 7, letters)  # as long as the longest, and read as a text


class First(Texts):
    def select(self, rows):
        return First(self.letters[:1].expand(len(rows), -1))


def prefilled(change):
    return {"prefill": lambda self, condition: change(condition)}


def erase(condition):
    kept = Texts(condition.letters.clone())
    condition.letters.zero_()
    return kept


def overwrite(tokens, *rest):
    tokens[:, 0] = (tokens[:, 0] + 1) % CODES
    return (tokens, *rest)


def blank(tokens, letters, t):
    return torch.full_like(tokens, CODES), letters, t


def step_of_the_first(tokens, letters, t):
    return tokens, letters, t[:1].expand_as(t)


def without_positions(self, tokens, condition, step, guidance, positions=None):
    return Good.logits(self, tokens, condition, step, guidance)


def by_column(self, tokens, condition, step, guidance, positions=None):
    """Column by column: as row by row where one row is asked for."""
    logits = Good.logits(self, tokens, condition, step, guidance)
    return logits if positions is None else logits.transpose(0, 1)[positions.T]


def overwrite_condition(tokens, condition, *rest):
    condition.letters.add_(1)
    return (tokens, condition, *rest)


def replace_masks(tokens, *rest):
    masked = tokens.clone()
    tokens[tokens == CODES] = 0
    return (masked, *rest)


def no_more_gradients(found):
    torch.set_grad_enabled(False)
    return found


def overwrite_step(tokens, condition, step, *rest):
    step.t.add_(1).remainder_(STEPS)
    return (tokens, condition, step, *rest)


def overwrite_positions(self, tokens, condition, step, guidance, positions=None):
    logits = Good.logits(self, tokens, condition, step, guidance, positions)
    if positions is not None:
        positions[:, 0].logical_not_()
    return logits


def repeat_the_first(logits):
    """Four rows at a time, of which the second time the first four come again; of many rows all are right."""
    return torch.cat([logits[:4], logits[:4]])[: len(logits)] if 4 < len(logits) <= 8 else logits


def three_steps(self, tokens, letters, t):
    return Good.network(self, tokens, letters, t) * torch.linspace(1.0, 1.2, STEPS)[t][:, None, None]


def cut_off(self):
    self.module.embed.register_forward_hook(lambda module, given, found: found.detach())


def twice_where_packed(self, tokens, condition, step, guidance, positions=None):
    logits = Good.logits(self, tokens, condition, step, guidance, positions)
    return logits if positions is None else 2 * logits - logits.detach()


def read(self, letters):
    """Long [L] -> Float [], a number of a text."""
    return self.module.text(letters[letters > 0]).sum()


def remember(self, condition):
    """Keep what was computed for a text, whatever becomes of the weights."""
    texts = [tuple(letters[letters > 0].tolist()) for letters in condition.letters]
    for text, letters in zip(texts, condition.letters, strict=True):
        self.__dict__.setdefault("seen", {}).setdefault(text, read(self, letters).detach())
    return Ready(condition.letters, torch.stack([self.seen[text] for text in texts]))


@dataclass(frozen=True)
class Ready(Texts):
    """Texts that have been read."""

    memory: Tensor

    def select(self, rows):
        return Ready(self.letters[rows], self.memory[rows])


def logits_of_memory(self, tokens, condition, step, guidance, positions=None):
    logits = Good.logits(self, tokens, condition, step, guidance)
    is_ready = isinstance(condition, Ready)
    memory = condition.memory if is_ready else torch.stack([read(self, text) for text in condition.letters])
    logits = logits + ((1 + guidance) * memory)[:, None, None] * torch.arange(float(CODES))
    return logits if positions is None else logits[positions]


@dataclass(frozen=True)
class Cached(Texts):
    """Texts with what was seen on the canvas when it was first looked at."""

    seen: dict

    def select(self, rows):
        return Cached(self.letters[rows], {name: canvas[rows] for name, canvas in self.seen.items()})


def logits_of_a_cache(self, tokens, condition, step, guidance, positions=None):
    """Half of the canvas is read once, and not again when more of it has been painted."""
    seen = condition.seen if isinstance(condition, Cached) else {}
    canvas = seen.setdefault("canvas", tokens.clone())
    logits = Good.logits(self, tokens, condition, step, guidance)
    logits = logits + Good.logits(self, canvas, condition, step, guidance)
    return logits if positions is None else logits[positions]


def save_fp16(self, folder):
    Path(folder).mkdir()
    save_file({k: v.half() for k, v in self.module.state_dict().items()}, Path(folder) / "model.safetensors")


def other_in_a_batch(images):
    return images if len(images) <= 4 else images.flip(0)


def save_halves(self, folder):
    Path(folder).mkdir()
    save_file({k: v * 0.5 for k, v in self.module.state_dict().items()}, Path(folder) / "model.safetensors")


def save_and_change(self, folder):
    Good.save(self, folder)
    with torch.no_grad():
        self.module.outer.bias.add_(1)


def save_beside(self, folder):
    Good.save(self, folder)
    (Path(folder).parent / "more").mkdir()


def stale(self, tokens, condition, step, guidance, positions=None):
    """What the text says is computed once for a condition, with the weights of that time."""
    if not hasattr(condition, "memory"):
        object.__setattr__(condition, "memory", self.module.outer.bias.detach().clone())
    logits = Good.logits(self, tokens, condition, step, guidance) + condition.memory.view(TOKENS, CODES)
    return logits if positions is None else logits[positions]


def forget(self):
    self.module.time.weight.data.zero_()


def refuse(*given, **named):
    raise ValueError("no")


FAULTS = {
    # module, frozen, spec, cost
    "training": (built(lambda self: self.module.train()), "in train"),
    "frozen in training": (built(lambda self: self.painter.train()), "in train"),
    "frozen parameters": (built(lambda self: self.module.requires_grad_(False)), "nothing can be trained"),
    "frozen is trained": (
        built(lambda self: setattr(self, "frozen", (self.painter, self.module))),
        "which is trained",
    ),
    "frozen unlisted": (built(lambda self: setattr(self, "frozen", ())), "its network 'painter' is not in"),
    "unlisted in a list": (built(lambda self: setattr(self, "more", [nn.Linear(1, 1)])), "'more' is not in"),
    "mask is a code": (spec(mask_id=0), "spec.mask_id = 0 is a code"),
    "grid": (spec(grid=(2, 2)), "does not hold 6 tokens"),
    "one code": (spec(num_codes=1), "fewer than two codes"),
    "steps": (spec(sampler=SamplerDefaults(num_steps=7)), "num_steps = 7"),
    "steps as a float": (
        spec(sampler=SamplerDefaults(num_steps=3.0)),
        "its 'spec.sampler.num_steps' is of type float",
    ),
    "schedule": (spec(sampler=SamplerDefaults(3, schedule="cosin")), "schedule"),
    "temperature": (
        spec(sampler=SamplerDefaults(3, temperature_rule="no")),
        "temperature_rule",
    ),
    "ranked by": (spec(sampler=SamplerDefaults(3, score="logp")), "score"),
    "guidance is none": (
        spec(sampler=SamplerDefaults(3, guidance=float("nan"))),
        "sampler.guidance|guidance_eval",
    ),
    "adapters": (spec(lora_targets=("nothing",)), "lora_targets names 'nothing'"),
    "no layers": (
        spec(lora_targets=("embed",)),
        "lora_targets names 'embed'; module has no such linear layer",
    ),
    "image size": (spec(image_size=(8, 8)), r"decode returned float32 \[3, 3, 8, 12\] instead"),
    "cost": (costing(parameters=1), "cost says 1 parameters"),
    "frozen cost": (costing(frozen_parameters=1), "cost says 1 frozen parameters"),
    "cost of another": (costing(spec=None), "another spec"),
    # encode, select, prefill
    "text ignored": (texts(torch.zeros_like), "do not depend on the text"),
    "padding": (texts(pad_with_letters), "depend on the other rows, or on their prompts"),
    "order of prompts": (
        texts(lambda letters: letters.flip(0)),
        "depend on the other rows, or on their prompts",
    ),
    "one condition": (
        {"encode": lambda self, prompts: First(Good.encode(self, prompts).letters)},
        "'select' picked",
    ),
    "encode raises": ({"encode": refuse}, "'Mine' raised ValueError: no"),
    "prefill changes": (
        prefilled(lambda condition: Texts(condition.letters.flip(0))),
        "after 'prefill' are others",
    ),
    "prefill twice": (
        prefilled(lambda condition: Texts(condition.letters[:, 1:])),
        "after 'prefill' are others",
    ),
    "prefill overwrites": (prefilled(erase), "'prefill' changed the condition"),
    "prefill cannot be picked": (prefilled(lambda condition: First(condition.letters)), "after 'prefill'"),
    "no prefill": (prefilled(lambda condition: None), "prefill returned NoneType, which is no Condition"),
    "stale prefill": (
        {"prefill": remember, "logits": logits_of_memory},
        "'prefill' after the weights moved gives the logits of the weights before",
    ),
    "a cache of the first canvas": (
        {"prefill": lambda self, condition: Cached(condition.letters, {}), "logits": logits_of_a_cache},
        "what a rollout revealed has another probability when the loss asks",
    ),
    "no condition": (
        {"encode": lambda self, prompts: None},
        "encode returned NoneType, which is no Condition",
    ),
    "no spec": ({"spec": None}, "its 'spec' is of type NoneType; wanted is GeneratorSpec"),
    "condition overwritten": (
        before("logits", overwrite_condition),
        "logits has noise, or changed its condition",
    ),
    "masks replaced": (before("logits", replace_masks), "logits changed the tokens"),
    "a bare tensor": (
        {"encode": lambda self, prompts: Good.encode(self, prompts).letters},
        "encode returned int64",
    ),
    "stale condition": ({"logits": stale}, "encoded before the weights moved"),
    # logits
    "canvas ignored": (before("network", blank), "the codes that are known"),
    "step of the first row": (before("network", step_of_the_first), "or steps"),
    "tokens overwritten": (before("logits", overwrite), "logits changed the tokens"),
    "mean of the batch": (after("network", lambda x: x - x.mean(dim=0)), "the other rows"),
    "noise": (after("network", lambda x: x + 1e-3 * torch.randn(1)), "global random numbers"),
    "seeded noise": (after("network", lambda x: x + torch.randn(1, generator=NOISE)), "logits has noise"),
    "not finite": (after("logits", lambda x: x / 0 * 0), "not finite"),
    "no gradient": (after("logits", lambda x: x.detach()), "no gradient reaches module at guidance 0.0"),
    "gradient of nothing": (
        after("logits", lambda x: x.detach() + 0 * x),
        "no gradient reaches module at guidance 0.0",
    ),
    "detached with guidance": (
        after("guide", lambda x: x.detach()),
        "no gradient reaches module at guidance 1.5",
    ),
    "grad mode": (after("logits", no_more_gradients), "it changed torch's grad mode from True to False"),
    "grad mode in encode": (
        after("encode", no_more_gradients),
        "it changed torch's grad mode from True to False",
    ),
    "fp16": (after("network", lambda x: x.half()), "logits of a network in fp32 are float16"),
    "bf16 of fp32": (after("logits", lambda x: x.bfloat16()), "logits of a network in fp32 are bfloat16"),
    "bf16 after guidance": (after("guide", lambda x: x.bfloat16()), "logits after guidance are bfloat16"),
    "fp16 after guidance": (after("guide", lambda x: x.half()), "logits after guidance are float16"),
    "positions ignored": ({"logits": without_positions}, "packed logits returned"),
    "positions by column": ({"logits": by_column}, "logits at 'positions' differ"),
    "shape": (after("logits", lambda x: x[..., 1:]), r"logits returned float32 \[3, 6, 3\]"),
    "a list": (after("logits", lambda x: x.tolist()), "logits returned list"),
    "step overwritten": (before("logits", overwrite_step), "logits changed the step"),
    "positions overwritten": ({"logits": overwrite_positions}, "logits changed the positions"),
    "rounded to bf16": (after("logits", lambda x: x.bfloat16().float()), "are rounded to bf16"),
    "chunks of four": (after("network", repeat_the_first), "are others in a batch of 7 rows"),
    "chunks of 32": (after("network", lambda x: x[torch.arange(len(x)) % 32]), "in a batch of 33 rows"),
    "a table of three steps": ({"network": three_steps}, "raised IndexError: index 5 is out of bounds"),
    "nothing at the last step": (
        {
            "network": lambda self, tokens, letters, t: (
                Good.network(self, tokens, letters, t) / (t - 5)[:, None, None]
            )
        },
        "logits at a step of 6 returned a number that is not finite",
    ),
    # the gradient
    "ten times too small": (
        after("logits", lambda x: 0.1 * x + 0.9 * x.detach()),
        "it tells 0.1 of a change",
    ),
    "embeddings cut off": (built(cut_off), "not that of the logits at guidance 0.0"),
    "null branch cut off": (
        {"guide": lambda self, cond, uncond, w: Good.guide(self, cond, uncond.detach(), w)},
        "not that of the logits at guidance 1.5",
    ),
    "twice where packed": ({"logits": twice_where_packed}, "at guidance 0.0: it tells 2 of a change"),
    # guidance
    "guidance ignored": (guided(lambda cond, uncond, w: cond), "what it subtracts depends on the text"),
    "guidance swapped": (guided(lambda cond, uncond, w: (1 + w) * uncond - w * cond), "depends on the text"),
    "guidance off by one": (
        guided(lambda cond, uncond, w: w * cond - (w - 1) * uncond),
        "depends on the text",
    ),
    "guidance turned": (guided(lambda cond, uncond, w: (1 - w) * cond + w * uncond), "depends on the text"),
    "guidance squared": (guided(lambda cond, uncond, w: (1 + w) * cond - w * w * uncond), "not linear"),
    "a fixed guidance": (guided(lambda cond, uncond, w: 2.5 * cond - 1.5 * uncond), "depends on the text"),
    # decode
    "pixels in [-1, 1]": (after("decode", lambda x: x * 2 - 1), "not in"),
    "gradient of pixels": (
        built(lambda self: self.painter.requires_grad_()),
        "a tensor with a gradient",
    ),
    "byte pixels": (after("decode", lambda x: (x * 255).byte()), "uint8"),
    "noise in pixels": (
        after("decode", lambda x: x * (1 - 0.1 * torch.rand(1, generator=NOISE))),
        "decode has noise",
    ),
    "global noise in pixels": (after("decode", lambda x: x * torch.rand(1)), "global random numbers"),
    "brightness of the batch": (after("decode", lambda x: x * x.mean()), "depend on the others"),
    "decode overwrites": (before("decode", overwrite), "decode changed the tokens"),
    "another picture in a batch": (after("decode", other_in_a_batch), "others in a larger batch"),
    "one picture": (after("decode", lambda x: x * 0), "do not depend on the codes"),
    # save and load
    "loaded weights ignored": ({"load": lambda self, folder: None}, "gives other logits when loaded"),
    "saved in half precision": ({"save": save_fp16}, "gives other logits when loaded"),
    "half the weights": ({"save": save_halves}, "gives other logits when loaded"),
    "save changes": ({"save": save_and_change}, "save changed the weights"),
    "save elsewhere": ({"save": save_beside}, "no folder, or beside it"),
    "save nothing": ({"save": lambda self, folder: None}, "save wrote no folder"),
    "no such setting": (
        {"saved_settings": MaskedGenerator.saved_settings},
        "saved_settings names 'checkpoint'",
    ),
    "settings of the base": (
        {"saved_settings": classmethod(lambda cls, folder: {"folder": None})},
        "when loaded",
    ),
    # activation checkpointing
    "another network": (
        {"checkpoint_activations": forget},
        "checkpoint_activations changes logits or gradients",
    ),
}


@pytest.mark.parametrize(("changes", "complaint"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_named(changes, complaint):
    with torch.random.fork_rng(devices=[]), pytest.raises(PluginError, match=complaint) as error:
        check_generator(build(**changes))
    assert "\n" not in str(error.value)


def refuse_guidance(self, tokens, condition, step, guidance, positions=None):
    if guidance.any():
        raise RecipeError("no guidance; set sampling.guidance_eval = 0")
    return Good.logits(self, tokens, condition, step, guidance, positions)


def few_steps(self, tokens, condition, step, guidance, positions=None):
    if step.num_steps > STEPS:
        raise RecipeError("at most three steps")
    return Good.logits(self, tokens, condition, step, guidance, positions)


class OneToken(Good):
    """Paints an image with a single token."""

    spec = GeneratorSpec(1, CODES, CODES, (1, 1), (8, 12), SamplerDefaults(num_steps=1, guidance=1.0))

    @classmethod
    def cost(cls, config, *, text_tokens):
        raise RecipeError("it does not say")

    def logits(self, tokens, condition, step, guidance, positions=None):
        logits = Good.logits(self, tokens.expand(-1, TOKENS), condition, step, guidance)[:, :1]
        return logits if positions is None else logits[positions]

    def decode(self, tokens, condition):
        return Good.decode(self, tokens.expand(-1, TOKENS), condition)


def zero(self):
    if self.config.folder is None:
        nn.init.zeros_(self.module.outer.weight)


SOUND = {
    "fp64 pixels": after("decode", lambda x: x.double()),
    "fp16 pixels": after("decode", lambda x: x.half()),
    "no guidance": {**spec(sampler=SamplerDefaults(num_steps=3)), "logits": refuse_guidance},
    "few steps": {"logits": few_steps},
    "a head that begins at zero": built(zero),
    "one token": {name: value for name, value in vars(OneToken).items() if not name.startswith("__")},
}


@pytest.mark.parametrize("changes", SOUND.values(), ids=SOUND)
def test_what_is_unusual_and_sound_passes(changes):
    check_generator(build(**changes))


def test_who_refuses_guidance_has_none_by_default():
    with pytest.raises(PluginError, match=r"spec.sampler.guidance = 1.0, but logits refuse any"):
        check_generator(build(logits=refuse_guidance))


def test_what_a_generator_cannot_is_no_fault():
    def cannot(*given, **named):
        raise RecipeError("cannot")

    check_generator(build(cost=cannot, checkpoint_activations=cannot))


def test_own_prompts_are_asked_about():
    asked = []

    def encode(self, prompts):
        asked.extend(prompt.text for prompt in prompts)
        return Good.encode(self, prompts)

    check_generator(build(encode=encode), [Prompt("one"), Prompt("another")])
    assert set(asked) == {"one", "another"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda painted, calls: replace(painted, tokens=painted.state[:, 0]), "a token of it is no code"),
        (lambda painted, calls: replace(painted, tokens=(painted.tokens + calls) % CODES), "another picture"),
    ],
)
def test_a_rollout_that_leaves_masks_or_differs_is_named(monkeypatch, change, complaint):
    """Unmasking is maskrl's own business: the fault is planted there."""
    calls = []

    def faulty(*given):
        calls.append(given)
        return change(rollout(*given), len(calls))

    monkeypatch.setattr("maskrl.testing.rollouts.rollout", faulty)
    with pytest.raises(PluginError, match=complaint):
        check_generator(build())
