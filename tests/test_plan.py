"""What a recipe needs, against counting by hand and against the real thing."""

import json
import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from peaks import peak_of
from safetensors.torch import load_file
from test_showo import TINY, TINY_MAGVIT, TINY_PHI, write_checkpoint
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PhiConfig

from maskrl.errors import RecipeError
from maskrl.generators.showo.cost import measure
from maskrl.generators.showo.footprint import footprint
from maskrl.generators.showo.generator import Showo
from maskrl.generators.showo.network import ShowoNetwork, phi_config
from maskrl.grpo.unmask import Rule, unmask
from maskrl.grpo.update import collect, learn
from maskrl.recipe import read_recipe
from maskrl.rewards.clip import Clip
from maskrl.runtime.lora import adapt, adapt_network
from maskrl.sections import LoraConfig
from maskrl.training.plan import SAMPLE_BYTES, cost_of_judging, plan, plan_of
from maskrl.training.savings import cheaper
from maskrl.training.schedule import prompts_of
from maskrl.training.setup import set_up
from maskrl.training.state import trained_parameters
from maskrl.training.updating import make_update
from maskrl.types import GeneratorSpec, Pass, SamplerDefaults, Stream

FULL_SIZE = (
    'reducer={ name = "none" }',
    "generator.checkpoint=showlab/show-o-512x512",
    "generator.tokenizer=showlab/magvitv2",
    "reward.model=ViT-L-14",
    "reward.pretrained=openai",
    "grpo.group_size=6",
    "grpo.num_steps=50",
    "transition.name=p_theta1",
    "sampling.guidance_train=0",
    "training.prompts_per_update=1",
    "training.micro_batch=12",
    "training.dtype=bf16",
)


@cache
def generating(component, config, tokens):
    return component.cost(config, text_tokens=tokens)


def planned(recipe, text_tokens, processes):
    """Do as plan does, and count networks that have been counted before no second time."""
    cost = generating(recipe.generator.component, recipe.generator.config, text_tokens)
    return plan_of(recipe, cost, cost_of_judging(recipe), processes)


def test_what_was_counted_before_is_planned_as_what_is_counted_now():
    recipe = read_recipe("shapes_clip", (*SMALL, *LORA))
    made, again = planned(recipe, 8, 1), plan(recipe, 8, 1)
    assert replace(again, cost=made.cost) == made
    assert replace(again.cost, footprint=made.cost.footprint) == made.cost


@pytest.fixture
def folders(tmp_path):
    return write_checkpoint(tmp_path)


def config(folders):
    return Showo.Config(checkpoint=str(folders[0]), tokenizer=str(folders[1]))


def test_the_full_size_is_counted_without_a_hub():
    made = planned(read_recipe("shapes_clip", FULL_SIZE), text_tokens=20, processes=1)
    cost = made.cost
    assert cost.parameters == 1_448_176_770
    assert cost.frozen_parameters == 95_387_004
    layers, width, image, text = 24, 2048, 1026, 20
    linear = 2 * layers * (4 * width**2 + 8 * width**2) * image
    attention = 4 * layers * image * (image + text) * width
    last = (
        2 * (2 * width**2 + 8 * width**2) + 4 * (image + text) * width
    )  # of the last layer, all but keys and values
    assert cost.image_flops == pytest.approx(linear + attention - last * image, rel=1e-3)
    assert cost.position_flops == 2 * width * 8192 + last
    masked = sum(1024 - sum(made_counts(50)[:t]) for t in range(50))
    painted = 6 * (50 * cost.image_flops + masked * cost.position_flops)
    begun = cost.image_flops + 1024 * cost.position_flops  # of the first step five are as the sixth
    assert made.flops["rollout"] == pytest.approx(painted - 5 * begun + cost.prompt_flops)
    reading = 300 / 12 * cost.prompt_flops  # once a micro-batch, of which the first has all first steps
    assert made.flops["update"] == pytest.approx(3 * (painted - 5 * begun + reading), rel=1e-3)
    assert (made.images, made.pairs) == (6, 300)
    assert made.memory["weights"] == made.memory["gradients"] == 4 * cost.parameters
    assert made.memory["optimizer"] == 8 * cost.parameters
    assert cost.adapter_sizes["q_proj"] == cost.adapter_sizes["dense"] == 24 * 4096
    assert cost.adapter_sizes["fc1"] == cost.adapter_sizes["fc2"] == 24 * 10240


def test_steps_that_are_drawn_by_chance_are_planned_at_their_most_and_cost_their_mean():
    """Beside reducers that always take the first, which have most left to paint, and beside all steps."""
    recipes = [
        read_recipe("shapes_clip", [*SMALL, f"reducer={{ {reducer} }}"])
        for reducer in (
            "name = 'none'",
            "name = 'computational', steps = 2",
            "name = 'random', steps = 2",
        )
    ]
    joins = [planned(recipe, 20, 1) for recipe in recipes]
    cost = replace(joins[0].cost, joins_blank=False)
    every, first, chance = (plan_of(recipe, cost, cost_of_judging(recipe), 1) for recipe in recipes)
    assert joins[1].transient["update"] < joins[2].transient["update"] < chance.transient["update"]
    assert first.pairs == chance.pairs == every.pairs / 2
    assert chance.transient["update"] == pytest.approx(first.transient["update"])
    assert chance.flops["update"] == pytest.approx(every.flops["update"] / 2, rel=0.05)
    assert first.flops["update"] > 1.02 * chance.flops["update"]


def test_where_no_step_teaches_an_update_takes_nothing():
    """The values of the last step are the likeliest ones, not drawn: nothing is learnt from it."""
    reducer = "reducer={ name = 'computational', steps = 1, which = 'last' }"
    made = planned(
        read_recipe("shapes_clip", [*SMALL, "sampling.value_temperature_rule=maskgen", reducer]), 20, 1
    )
    assert (made.pairs, made.flops["update"], made.transient["update"]) == (0, 0, 0)
    assert made.peak > 0


def test_gradients_are_there_while_a_batch_is_learnt_from_and_not_while_the_next_is_painted():
    setup = set_up(read_recipe("shapes_clip", SMALL))
    make_update(setup, 0)
    assert all(p.grad is None for p in setup.learner.generator.module.parameters())
    made = planned(read_recipe("shapes_clip", SMALL), 20, 1)
    painting = replace(made, transient={**made.transient, "update": 0.0, "rollout": 1e12})
    held = sum(size for part, size in made.memory.items() if part != "gradients")
    assert painting.peak == held + 1e12
    learning = replace(made, transient={**made.transient, "update": 1e12})
    assert learning.peak == held + made.memory["gradients"] + 1e12


def made_counts(num_steps):
    from maskrl.grpo.schedule import unmask_counts

    return unmask_counts(1024, num_steps, "cosine")


# against the real thing, measured by PyTorch's own profiler and counter


SMALL = (
    "eval=",
    "training.device=cpu",
    "transition.name=p_theta1",
    "sampling.guidance_train=0",
    "training.prompts_per_update=1",
    "grpo.group_size=4",
    "grpo.num_steps=4",
    "training.micro_batch=8",
)
BF16, CHECKPOINTING = "training.dtype=bf16", "training.activation_checkpointing=true"
LORA = ("lora.rank=8", "lora.base_dtype=bf16")
SETTINGS = {
    "fp32": (),
    "fp32, checkpointing": (CHECKPOINTING,),
    "bf16": (BF16,),
    "bf16, checkpointing": (BF16, CHECKPOINTING),
    "bf16, checkpointing, parts": (BF16, CHECKPOINTING, "training.score_batch=2"),
    "adapters": (*LORA, BF16, CHECKPOINTING, "training.score_batch=2"),
    "guidance": ("sampling.guidance_train=1",),
    "revealed alone": ("transition.name=p_theta2",),
    "one pair": (CHECKPOINTING, "training.micro_batch=1"),
    "thin adapters": ("lora.rank=1",),
    "every proposal": ("transition.name=ar",),
    "the order": ("transition.name=plackett_luce",),
    "the integral": ("transition.name=exact",),
    "kept sets": ("transition={ name = 'p_theta1', threshold = 'kept_set' }",),
    "fewer steps": ("reducer={ name = 'unmasking', steps = 2 }",),
    "some steps": ("reducer={ name = 'computational', steps = 2 }",),
    "KL": ("grpo.kl_coef=0.1",),
    "KL, bf16, parts": ("grpo.kl_coef=0.1", BF16, "training.score_batch=2"),
    "KL of samples": ("grpo.kl_coef=0.1", "grpo.kl=k3"),
}
ALWAYS = {"fp32, checkpointing", "bf16, checkpointing, parts", "adapters", "guidance", "revealed alone", "KL"}


def some_of(names):
    """All of them: in every check those that are most unlike each other."""
    return [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in names]


def small(*changes):
    """A recipe of the tiny Show-o, everything of it, its prompts and how many tokens they have."""
    recipe = read_recipe("shapes_clip", [*SMALL, *changes])
    setup = set_up(recipe)
    prompts = prompts_of(0, setup.prompts, 1, Stream(0))
    return recipe, setup, prompts, len(setup.learner.generator.encode(prompts).texts[0])


def learn_from_nothing(setup, prompts):
    """A function that takes one optimizer step, and the bytes of the gradients that it makes."""
    learn(setup.learner, collect(setup.actor, prompts, 0))  # the optimizer's moments are there throughout
    trained = trained_parameters(setup.learner.generator).values()
    for parameter in trained:
        parameter.grad = None
    batch = collect(setup.actor, prompts, 1)
    return lambda: learn(setup.learner, batch), sum(4 * p.numel() for p in trained)


@pytest.mark.filterwarnings("ignore:.*before the profiling started")
@pytest.mark.parametrize("setting", some_of(SETTINGS))
def test_the_peak_of_an_update_is_the_planned_one(setting):
    recipe, setup, prompts, tokens = small(*SETTINGS[setting])
    step, gradients = learn_from_nothing(setup, prompts)
    measured = peak_of(step) - gradients
    foreseen = planned(recipe, tokens, 1).transient["update"]
    assert 0.9 * measured < foreseen < 1.15 * measured


@pytest.mark.parametrize("setting", ["fp32", "bf16", "adapters"])
def test_the_peak_of_a_rollout_is_the_planned_one(setting):
    recipe, setup, prompts, tokens = small(*SETTINGS[setting])
    measured = peak_of(lambda: collect(setup.actor, prompts, 0))
    transient = planned(recipe, tokens, 1).transient
    foreseen = max(transient["rollout"], transient["decode"])
    assert 0.9 * measured < foreseen < 1.1 * measured


def test_a_rollout_samples_from_a_portion_at_a_time_however_many_images_there_are():
    few, many = (
        planned(read_recipe("shapes_clip", (*FULL_SIZE, f"grpo.group_size={n}")), 20, 1) for n in (24, 48)
    )
    more = many.transient["rollout"] - few.transient["rollout"]
    assert (
        more < 24 * 1024 * 8192 * SAMPLE_BYTES / 2
    )  # what as many images would take that are sampled at once


@pytest.mark.parametrize("portion", [64, 256, 4 * 256])
def test_the_peak_of_a_step_that_samples_in_portions_is_the_planned_one(portion):
    """24 bytes for each logit of a portion, and next to nothing for the others."""
    logits, state = torch.randn(4 * 256, 512), torch.full((4, 256), 999)
    given = (logits, state, torch.rand(4, 2, 256), Rule(9, 1.0), 999)
    measured = peak_of(lambda: unmask(*given, portion=portion))
    assert measured == pytest.approx(SAMPLE_BYTES * portion * 512, rel=0.1, abs=2**18)


def test_the_peak_of_decoding_is_the_planned_one():
    recipe, setup, prompts, tokens = small()
    condition = setup.learner.generator.encode(prompts * 4)
    measured = peak_of(
        lambda: setup.learner.generator.decode(torch.zeros(4, 36, dtype=torch.long), condition)
    )
    cost = recipe.generator.component.cost(recipe.generator.config, text_tokens=tokens)
    assert 4 * cost.decode_bytes == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(
    "setting",
    some_of(["fp32", "fp32, checkpointing", "guidance", "one pair", "thin adapters", "revealed alone"]),
)
def test_the_flops_of_an_update_are_the_planned_ones(setting):
    recipe, setup, prompts, tokens = small(*SETTINGS[setting])
    batch = collect(setup.actor, prompts, 0)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        learn(setup.learner, batch)
    made = planned(recipe, tokens, 1)
    assert made.stages()["update"] == pytest.approx(counted.get_total_flops(), rel=0.04)


DEEP = phi_config(PhiConfig(**{**TINY_PHI.to_dict(), "num_hidden_layers": 5}), TINY)
SPEC = GeneratorSpec(16, 8, 8, (4, 4), (8, 8), SamplerDefaults(num_steps=4), ("fc1",))


@pytest.fixture(scope="module")
def deep_cost():
    return measure(SPEC, DEEP, TINY, TINY_MAGVIT, text_tokens=30)


@pytest.mark.parametrize(
    ("bf16", "targets", "texts"),
    [
        (False, [], 1),
        (True, ["q_proj", "fc1"], 1),
        pytest.param(False, ["4.self_attn.q_proj"], 1, marks=pytest.mark.slow),
        pytest.param(False, [], 8, marks=pytest.mark.slow),
    ],
)
def test_what_a_deep_network_takes_is_said_by_shallow_ones(deep_cost, bf16, targets, texts):
    lora = LoraConfig(rank=2, base_dtype="bf16")
    run = Pass(
        rows=8,
        masked=40,
        texts=texts,
        gradient=True,
        bf16=bf16,
        checkpointing=True,
        prepare=lambda network: adapt_network(network, targets, lora, 0) if targets else None,
    )
    whole = footprint(ShowoNetwork.unfilled(DEEP, TINY), SPEC.num_tokens, 30, run)
    assert deep_cost.footprint(run) == whole


def test_adapters_are_counted_as_they_are_made(folders):
    cost = Showo.cost(config(folders), text_tokens=5)
    generator = Showo(config(folders))
    adapt(generator, LoraConfig(rank=3), seed=0)
    made = sum(p.numel() for p in trained_parameters(generator).values())
    assert 3 * sum(cost.adapter_sizes.values()) == made


@pytest.mark.slow
def test_saving_memory_saves_memory():
    recipe = read_recipe("shapes_clip", SMALL)
    made = planned(recipe, 8, 1)
    peaks = [made.peak, *(plan_of(less, made.cost, made.judging, 1).peak for _, less in cheaper(recipe))]
    assert all(after <= 1.01 * before for before, after in pairwise(peaks))
    changes, smallest = list(cheaper(recipe))[-1]
    assert read_recipe("shapes_clip", [*SMALL, *changes]).model_dump() == smallest.model_dump()


@pytest.mark.slow
def test_the_full_size_fits_where_it_is_said_to_fit():
    evaluation = (
        "eval.one={ name = 'clip_score', prompts = 'shapes_geneval', batch = 6 }"  # as the paper's recipes
    )
    recipe = read_recipe("shapes_clip", [*FULL_SIZE, "eval=", evaluation])
    made = planned(recipe, 20, 1)
    (_, checkpointed), *_, (_, smallest) = cheaper(recipe)
    assert made.peak > 40 * 2**30  # the paper's setting, without any saving
    assert plan_of(checkpointed, made.cost, made.judging, 1).peak < 40 * 2**30
    assert plan_of(smallest, made.cost, made.judging, 1).peak < 8 * 2**30


def test_painting_ahead_takes_weights_of_its_own_and_a_rollout_beside_the_update():
    plain, ahead = (
        planned(read_recipe("shapes_clip", [*SMALL, f"training.max_staleness={n}"]), 8, 1) for n in (0, 1)
    )
    cost = plain.cost
    assert ahead.memory["painter"] == 4 * (cost.parameters + cost.frozen_parameters)
    assert ahead.transient == plain.transient
    learning = plain.transient["update"] + plain.memory["gradients"]
    painting = max(plain.transient["rollout"], plain.transient["decode"])
    held = sum(plain.memory.values()) - plain.memory["gradients"]
    assert plain.peak == held + max(learning, painting)
    assert ahead.peak == held + ahead.memory["painter"] + learning + painting


def test_a_reference_guidance_and_several_steps_cost_their_passes():
    plain = planned(read_recipe("shapes_clip", SMALL), 8, 1)
    dearer = ("grpo.kl_coef=0.1", "grpo.num_updates=2", "sampling.guidance_train=5")
    changed = planned(read_recipe("shapes_clip", [*SMALL, *dearer]), 8, 1)
    assert changed.flops["update"] == pytest.approx(plain.flops["update"] / 3 * (3 + 1) * 2 * 2)
    assert changed.flops["rollout"] == pytest.approx(2 * plain.flops["rollout"])


def test_credit_by_step_judges_an_image_as_often_as_it_has_steps():
    plain = planned(read_recipe("shapes_clip", SMALL), 8, 1)
    by_step = ("grpo.credit=step", "sampling.position_policy_train=random", "transition.name=p_theta2")
    changed = planned(read_recipe("shapes_clip", [*SMALL, *by_step]), 8, 1)
    steps = read_recipe("shapes_clip", SMALL).grpo.num_steps
    for name in ("decode", "reward"):
        assert changed.flops[name] == pytest.approx(steps * plain.flops[name])


def test_held_out_rewards_take_memory_always_and_time_now_and_then():
    plain = planned(read_recipe("shapes_clip", SMALL), 8, 1)
    watched = ("watch.rewards.gold.name=clip", "watch.rewards.gold.model=ViT-B-32", "watch.every=5")
    changed = planned(read_recipe("shapes_clip", [*SMALL, *watched]), 8, 1)
    parameters, flops = Clip.cost(Clip.Config(model="ViT-B-32"))
    assert changed.memory["reward"] - plain.memory["reward"] == 4 * parameters
    assert changed.flops["reward"] - plain.flops["reward"] == pytest.approx(4 * flops / 5)


def test_layers_that_adapters_do_not_find_are_named():
    with pytest.raises(RecipeError, match=r"lora.targets = \['nope'\]"):
        planned(read_recipe("shapes_clip", [*SMALL, 'lora.targets=["nope"]']), 8, 1)


def test_clip_is_counted_without_weights():
    parameters, flops = Clip.cost(Clip.Config(model="ViT-L-14", pretrained="openai"))
    assert parameters / 1e6 == pytest.approx(427.6, abs=0.1)
    assert 160e9 < flops < 190e9
    assert Clip.cost(Clip.Config(model="convnext_base"))[0] == 151_518_849
    tiny = Clip.Config(model="package:maskrl/shapes/weights/clip")
    stored = load_file("maskrl/shapes/weights/clip/open_clip_model.safetensors")
    learnt = [name for name in stored if "running" not in name and "num_batches" not in name]
    assert Clip.cost(tiny)[0] == sum(stored[name].numel() for name in learnt)


def test_the_command_prints_both_tables_and_what_would_fit(cli):
    changes = [part for change in SMALL[1:] for part in ("--set", change)]  # with its evaluation
    result = cli("plan", "--recipe", "shapes_clip", *changes, "--memory", 0.032)
    assert result.code == 0, result.err
    assert "1.07 M parameters, 1.07 M trained" in result.out
    assert "not counted" not in result.out
    for word in (
        "weights",
        "gradients",
        "during update",
        "peak",
        "rollout",
        "transitions",
        "TFLOP/s measured",
        "120 updates: ",
        "evaluations: 1440 images, ",
    ):
        assert word in result.out
    advice = re.search(r"more than 0.032 GiB; ([\d.]+) MiB with (--set .*)", result.out)
    assert advice is not None, result.out
    assert float(advice[1]) <= 0.032 * 1024
    followed = cli("plan", "--recipe", "shapes_clip", *changes, *advice[2].split(), "--memory", 0.032)
    assert "more than" not in followed.out


@pytest.mark.slow
def test_hours_are_those_of_a_device_that_is_named(cli):
    changes = [part for change in SMALL for part in ("--set", change)]
    changes += ["--set", "training.updates=1000000", "--set", "training.prompts_per_update=2"]
    found = [
        cli("plan", "--recipe", "shapes_clip", *changes, "--rate", 0.5, "--efficiency", 0.6, *processes)
        for processes in ((), ("--processes", 2))
    ]
    assert [result.code for result in found] == [0, 0]
    made = planned(read_recipe("shapes_clip", [*changes[1::2]]), 20, 1)
    hours = 1e6 * sum(made.stages().values()) / (0.6 * 0.5e12) / 3600
    assert f"1000000 updates: {hours:.3g} hours" in found[0].out
    assert f"1000000 updates: {hours / 2:.3g} hours on 2 devices, {hours:.3g} of one" in found[1].out
    assert "0.5 TFLOP/s as given; 60% of that are assumed" in found[0].out
    assert "evaluations" not in found[0].out  # this recipe has none


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("--set", "generator.checkpoint=somebody/unknown"),
            "sizes of 'somebody/unknown' are not known here",
        ),
        (("--processes", "3"), "does not divide among 3 processes"),
    ],
)
def test_a_plan_that_cannot_be_made_is_one_clear_line(cli, changes, message):
    result = cli("plan", "--recipe", "shapes_clip", *changes)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_a_component_that_does_not_say_its_cost_is_named(toy_recipe, cli):
    result = cli("plan", "--recipe", toy_recipe)
    assert result.code == 2
    assert "ToyGenerator does not say what it costs" in result.err


def test_a_reward_that_does_not_say_its_cost_is_named_and_left_out(cli):
    toy = Path(__file__).with_name("toy_run.py")
    told = cli("plan", "--recipe", "shapes_clip", "--set", f'reward={{ name = "{toy}:Red" }}')
    assert told.code == 0, told.err
    assert "not counted: Red, which does not say what it costs" in told.out


def test_images_must_be_square(folders):
    path = folders[0] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_vq_tokens": 8}))
    with pytest.raises(RecipeError, match=r"num_vq_tokens = 8 .*: no square number"):
        Showo.cost(config(folders), text_tokens=5)
    assert TINY_PHI.hidden_size == 16


def test_what_is_sharded_is_divided_among_the_processes_and_nothing_else_is():
    changes = ("grpo.kl_coef=0.1", "ema.decay=0.9", "training.prompts_per_update=8")
    whole = planned(read_recipe("shapes_clip", changes), 20, processes=4)
    part = planned(read_recipe("shapes_clip", [*changes, "parallel.strategy=shard"]), 20, processes=4)
    divided = {"weights", "gradients", "optimizer", "average", "reference"}
    assert divided < whole.memory.keys()
    for name, size in whole.memory.items():
        assert part.memory[name] == (size / 4 if name in divided else size)
    assert part.transient == whole.transient
