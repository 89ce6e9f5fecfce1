"""What a recipe needs, against counting by hand and against the real thing."""

import json
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from test_showo import TINY_PHI, write_checkpoint

from maskrl.errors import RecipeError
from maskrl.generators.showo.generator import Showo
from maskrl.recipe import LoraConfig, read_recipe
from maskrl.rewards.clip import Clip
from maskrl.runtime.lora import adapt
from maskrl.training.plan import cheaper, plan
from maskrl.training.state import trained_parameters
from maskrl.types import Prompt

FULL_SIZE = (
    "generator.checkpoint=showlab/show-o-512x512",
    "generator.tokenizer=showlab/magvitv2",
    "reward.model=ViT-L-14",
    "reward.pretrained=openai",
    "grpo.group_size=6",
    "grpo.num_steps=50",
    "sampling.guidance_train=0",
    "training.prompts_per_update=1",
    "training.micro_batch=12",
    "training.dtype=bf16",
)


@pytest.fixture
def folders(tmp_path):
    return write_checkpoint(tmp_path)


def config(folders):
    return Showo.Config(checkpoint=str(folders[0]), tokenizer=str(folders[1]))


def test_the_full_size_is_counted_without_a_hub():
    made = plan(read_recipe("shapes_clip", FULL_SIZE), text_tokens=20, processes=1)
    cost = made.cost
    assert cost.parameters == 1_448_176_770
    assert cost.frozen_parameters == 95_387_004
    layers, width, image, text = 24, 2048, 1026, 20
    linear = 2 * layers * (4 * width**2 + 8 * width**2) * image
    attention = 4 * layers * image * (image + text) * width
    assert cost.image_flops == pytest.approx(linear + attention, rel=1e-3)
    assert cost.position_flops == 2 * width * 8192
    masked = sum(1024 - sum(made_counts(50)[:t]) for t in range(50))
    rollout = 6 * (50 * cost.image_flops + masked * cost.position_flops) + cost.prompt_flops
    assert made.flops["rollout"] == pytest.approx(rollout)
    assert made.flops["update"] == pytest.approx(3 * (rollout - cost.prompt_flops))
    assert (made.images, made.pairs) == (6, 300)
    assert made.memory["weights"] == made.memory["gradients"] == 4 * cost.parameters
    assert made.memory["optimizer"] == 8 * cost.parameters
    assert cost.adapter_sizes["q_proj"] == cost.adapter_sizes["dense"] == 24 * 4096
    assert cost.adapter_sizes["fc1"] == cost.adapter_sizes["fc2"] == 24 * 10240


def made_counts(num_steps):
    from maskrl.grpo.schedule import unmask_counts

    return unmask_counts(1024, num_steps, "cosine")


def kept(generator, images):
    """Bytes that autograd keeps of some images of one text, in a real forward pass."""
    own = {p.untyped_storage().data_ptr() for p in generator.module.parameters()}
    storages = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    condition = generator.prefill(generator.encode([Prompt("a b")])).select(
        torch.zeros(images, dtype=torch.long)
    )
    ids = torch.zeros(images, 11, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = generator.module.look(ids, [images], condition.memory.select(torch.tensor([0])), start=7)
    assert hidden.requires_grad
    return sum(storages.values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_autograd_keeps_is_what_it_is_said_to_keep(folders, checkpointing):
    cost = Showo.cost(config(folders), bf16=False, checkpointing=checkpointing, text_tokens=5)
    generator = Showo(config(folders))
    if checkpointing:
        generator.module.gradient_checkpointing_enable()
    assert kept(generator, 3) - kept(generator, 2) == pytest.approx(cost.pair_bytes, rel=0.02)
    assert cost.parameters == sum(p.numel() for p in generator.module.parameters())
    assert cost.spec == generator.spec


def test_adapters_are_counted_as_they_are_made(folders):
    cost = Showo.cost(config(folders), bf16=False, checkpointing=False, text_tokens=5)
    generator = Showo(config(folders))
    adapt(generator, LoraConfig(rank=3), seed=0)
    made = sum(p.numel() for p in trained_parameters(generator).values())
    assert 3 * sum(cost.adapter_sizes.values()) == made


def test_saving_memory_saves_memory():
    recipe = read_recipe("shapes_clip", FULL_SIZE)
    peaks = [plan(recipe, 20, 1).peak, *(plan(less, 20, 1).peak for _, less in cheaper(recipe))]
    assert all(after <= before for before, after in pairwise(peaks))
    assert peaks[0] > 40 * 2**30  # the paper's setting, without any saving
    assert peaks[1] < 40 * 2**30  # with activation checkpointing
    changes, smallest = list(cheaper(recipe))[-1]
    assert plan(smallest, 20, 1).peak < 8 * 2**30
    assert read_recipe("shapes_clip", [*FULL_SIZE, *changes]).model_dump() == smallest.model_dump()


def test_a_reference_guidance_and_several_steps_cost_their_passes():
    plain = plan(read_recipe("shapes_clip", FULL_SIZE), 20, 1).flops
    dearer = ("grpo.kl_coef=0.1", "grpo.num_updates=2", "sampling.guidance_train=5")
    changed = plan(read_recipe("shapes_clip", [*FULL_SIZE, *dearer]), 20, 1).flops
    assert changed["update"] == pytest.approx(plain["update"] / 3 * (3 + 1) * 2 * 2)
    assert changed["rollout"] == pytest.approx(2 * plain["rollout"])


def test_held_out_rewards_take_memory_always_and_time_now_and_then():
    plain = plan(read_recipe("shapes_clip", FULL_SIZE), 20, 1)
    watched = ("watch.rewards.gold.name=clip", "watch.rewards.gold.model=ViT-B-32", "watch.every=5")
    changed = plan(read_recipe("shapes_clip", [*FULL_SIZE, *watched]), 20, 1)
    parameters, flops = Clip.cost(Clip.Config(model="ViT-B-32"))
    assert changed.memory["reward"] - plain.memory["reward"] == 4 * parameters
    assert changed.flops["reward"] - plain.flops["reward"] == pytest.approx(6 * flops / 5)


def test_clip_is_counted_without_weights():
    parameters, flops = Clip.cost(Clip.Config(model="ViT-L-14", pretrained="openai"))
    assert parameters / 1e6 == pytest.approx(427.6, abs=0.1)
    assert 160e9 < flops < 190e9
    tiny = Clip.Config(model="package:maskrl/shapes/weights/clip")
    stored = load_file("maskrl/shapes/weights/clip/open_clip_model.safetensors")
    learnt = [name for name in stored if "running" not in name and "num_batches" not in name]
    assert Clip.cost(tiny)[0] == sum(stored[name].numel() for name in learnt)


def test_the_command_prints_both_tables_and_what_would_fit(cli):
    result = cli(
        "plan", "--recipe", "shapes_clip", *(part for s in FULL_SIZE for part in ("--set", s)), "--memory", 40
    )
    assert result.code == 0, result.err
    assert "1448.18 M parameters, 1448.18 M trained" in result.out
    for word in (
        "weights",
        "gradients",
        "during update",
        "peak",
        "rollout",
        "transitions",
        "TFLOP/s measured",
    ):
        assert word in result.out
    assert "more than 40 GiB" in result.out
    assert "--set training.activation_checkpointing=true" in result.out


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


def test_images_must_be_square(folders):
    path = folders[0] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_vq_tokens": 8}))
    with pytest.raises(RecipeError, match=r"num_vq_tokens = 8 .*: no square number"):
        Showo.cost(config(folders), bf16=False, checkpointing=False, text_tokens=5)
    assert TINY_PHI.hidden_size == 16
