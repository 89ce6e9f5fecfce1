"""What saves memory changes no result: adapters, recomputation, 8-bit moments, offloading, compiled layers."""

import warnings

import pytest
import torch
from safetensors.torch import load_file
from test_showo import write_checkpoint
from test_training import RECIPE, comparable
from toy import PROMPTS, gradients, rowwise, toy, toy_halves
from toy_run import ToyGenerator

from maskrl.errors import RecipeError, TrainingError
from maskrl.generators.showo.generator import Showo
from maskrl.grpo.update import collect, learn
from maskrl.recipe import read_recipe
from maskrl.runtime.autocast import Autocast
from maskrl.runtime.lora import Unadapted, adapt
from maskrl.runtime.offload import OffloadedDecoder, OffloadedReward
from maskrl.sections import LoraConfig, TrainingConfig
from maskrl.training.loop import train
from maskrl.training.setup import build_optimizer
from maskrl.training.state import trained_parameters
from maskrl.transitions.ar import Ar
from maskrl.transitions.p_theta1 import PTheta1
from maskrl.types import Prompt, StepIndex

TRANSITIONS = [Ar(Ar.Config()), PTheta1(PTheta1.Config())]
STEP = StepIndex(torch.zeros(3, dtype=torch.long), 4)
TEXTS = [Prompt("a b"), Prompt("c"), Prompt("a b")]


@pytest.fixture
def showo(tmp_path):
    checkpoint, tokenizer = write_checkpoint(tmp_path)
    return Showo(Showo.Config(checkpoint=str(checkpoint), tokenizer=str(tokenizer)))


def tokens():
    return torch.randint(0, 9, (3, 9), generator=torch.Generator().manual_seed(0))


def logits_and_gradient(generator, asked=None):
    """Logits of three rows, everywhere or where asked, and every gradient of a sum over them."""
    generator.module.zero_grad()
    found = generator.logits(tokens(), generator.encode(TEXTS), STEP, rowwise(0.0, len(TEXTS)), asked)
    found.float().logsumexp(-1).square().sum().backward()
    named = trained_parameters(generator).items()
    return found.detach(), {name: p.grad.clone() for name, p in named if p.grad is not None}


# recomputation


@pytest.mark.parametrize("transition", TRANSITIONS)
@pytest.mark.parametrize("score_batch", [1, 3])
@pytest.mark.parametrize("kl", [0.0, 0.5])
def test_scoring_some_pairs_at_a_time_changes_no_gradient(transition, score_batch, kl):
    found = []
    for size in (12, score_batch):
        halves = toy_halves(
            transition=transition,
            reference=toy(seed=1),
            config={"kl_coef": kl},
            micro_batch=12,
            score_batch=size,
        )
        metrics = learn(halves.learner, collect(halves.actor, PROMPTS, 0))
        assert metrics["ratio_min"] == metrics["ratio_max"] == 1
        found.append((gradients(halves.generator), metrics["kl"]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=1e-14)
    assert found[0][1] == pytest.approx(found[1][1])


def kept_for_backward(run):
    """Count the numbers that autograd keeps."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        run()
    return sum(kept)


def test_scoring_some_pairs_at_a_time_keeps_less():
    generator = toy(num_tokens=16, num_codes=512)
    sizes = []
    for score_batch in (100, 1):
        halves = toy_halves(generator, micro_batch=100, score_batch=score_batch)
        batch = collect(halves.actor, PROMPTS, 0)
        sizes.append(kept_for_backward(lambda halves=halves, batch=batch: learn(halves.learner, batch)))
    assert sizes[1] < 0.6 * sizes[0]


def test_activation_checkpointing_changes_nothing_and_keeps_less(showo):
    plain, gradient = logits_and_gradient(showo)
    kept = kept_for_backward(lambda: logits_and_gradient(showo))
    showo.checkpoint_activations()
    again, recomputed = logits_and_gradient(showo)
    assert torch.equal(plain, again)
    assert gradient.keys() == recomputed.keys()
    for name, value in gradient.items():
        assert torch.equal(value, recomputed[name]), name
    assert kept_for_backward(lambda: logits_and_gradient(showo)) < 0.7 * kept


@pytest.mark.slow
@pytest.mark.parametrize("asked", [None, tokens() == tokens()[:, :1]], ids=["everywhere", "few"])
def test_compiled_layers_compute_the_same(showo, asked):
    plain, gradient = logits_and_gradient(showo, asked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        showo.compile_layers()
        again, compiled = logits_and_gradient(showo, asked)
    assert torch.allclose(plain, again, atol=1e-5)
    for name, value in gradient.items():
        assert torch.allclose(value, compiled[name], atol=1e-4), name


# adapters


def test_adapters_begin_as_no_change_and_are_all_that_trains(showo):
    plain, _ = logits_and_gradient(showo)
    adapt(showo, LoraConfig(rank=4), seed=0)
    adapted, gradient = logits_and_gradient(showo)
    assert torch.equal(plain, adapted)
    assert gradient
    assert all("lora_" in name for name in gradient)
    layers = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in gradient}
    assert layers == set(showo.spec.lora_targets)


def test_the_seed_decides_the_adapters(tmp_path):
    found = []
    for number, seed in enumerate((0, 0, 1)):
        (tmp_path / str(number)).mkdir()
        checkpoint, tokenizer = write_checkpoint(tmp_path / str(number))
        generator = Showo(Showo.Config(checkpoint=str(checkpoint), tokenizer=str(tokenizer)))
        adapt(generator, LoraConfig(rank=4), seed)
        found.append(torch.cat([p.flatten() for p in trained_parameters(generator).values()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def moved(showo, **settings):
    """Adapters that are no longer without effect."""
    adapt(showo, LoraConfig(rank=4, **settings), seed=0)
    with torch.no_grad():
        for parameter in trained_parameters(showo).values():
            parameter.add_(0.1)
    return showo


def test_the_reference_is_the_network_without_adapters(showo):
    plain, _ = logits_and_gradient(showo)
    moved(showo)
    adapted, before = logits_and_gradient(showo)
    assert (adapted - plain).abs().max() > 1e-3
    reference = Unadapted(showo)
    condition = reference.prefill(reference.encode(TEXTS))
    assert torch.allclose(
        reference.logits(tokens(), condition, STEP, rowwise(0.0, len(tokens()))), plain, atol=1e-6
    )
    again, after = logits_and_gradient(showo)
    assert torch.equal(adapted, again)
    assert before.keys() == after.keys()


def test_what_adapters_learnt_is_saved_in_the_published_layout(showo, tmp_path):
    names = showo.module.state_dict().keys()
    expected, _ = logits_and_gradient(moved(showo))
    showo.save(str(tmp_path / "saved"))
    tokenizer = showo.config.tokenizer
    assert load_file(tmp_path / "saved" / "pytorch_model.safetensors").keys() == names
    loaded = Showo(Showo.Config(checkpoint=str(tmp_path / "saved"), tokenizer=tokenizer))
    found, _ = logits_and_gradient(loaded)
    assert torch.allclose(found, expected, atol=1e-5)
    again, _ = logits_and_gradient(showo)
    assert torch.equal(again, expected)  # saving has changed nothing


def test_frozen_weights_may_be_kept_in_bf16(showo):
    plain, _ = logits_and_gradient(showo)
    angles = showo.module.showo.model.rotary_emb.inv_freq.clone()
    adapt(showo, LoraConfig(rank=4, base_dtype="bf16"), seed=0)
    dtypes = {p.requires_grad: p.dtype for p in showo.module.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    assert torch.equal(showo.module.showo.model.rotary_emb.inv_freq, angles)
    found, gradient = logits_and_gradient(Autocast(showo))
    assert torch.allclose(found.float(), plain, atol=0.05)
    assert all(value.dtype == torch.float32 for value in gradient.values())


def test_layers_that_are_not_there_are_named(showo):
    with pytest.raises(RecipeError, match=r"lora.targets = \['qq_proj'\]"):
        adapt(showo, LoraConfig(targets=("qq_proj",)), seed=0)
    generator = ToyGenerator(ToyGenerator.Config())
    with pytest.raises(RecipeError, match="names no layers for adapters"):
        adapt(generator, LoraConfig(), seed=0)


# whole runs


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {i}" for i in range(7)))
    return tmp_path


def run(folder, name, *changes, resume=False):
    settings = ["eval=", *changes]
    recipe = read_recipe(folder / "recipe.toml", settings)
    return train(recipe, folder / name, resume=resume, display=False)


ADAPTERS = ('lora={rank=2, targets=["body.0", "body.2"]}', "grpo.kl_coef=0.1")


@pytest.mark.parametrize(
    "changes",
    [
        ADAPTERS,
        ("training.optimizer=adamw_8bit",),
        ("training.offload=true",),
        ("training.decay=matrices", "training.weight_decay=0.1"),
    ],
)
def test_such_a_run_resumes_exactly(folder, changes):
    run(folder, "whole", *changes)
    run(folder, "cut", *changes)
    last = folder / "cut/checkpoints/update_00005"
    for file in sorted(last.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    last.rmdir()
    run(folder, "cut", *changes, resume=True)
    assert comparable(folder / "cut") == comparable(folder / "whole")


def test_an_offloaded_run_is_the_same_run(folder):
    run(folder, "plain")
    run(folder, "offloaded", "training.offload=true", "training.score_batch=2")
    rows = zip(comparable(folder / "plain"), comparable(folder / "offloaded"), strict=True)
    for plain, offloaded in rows:
        numbers = {key: value for key, value in plain.items() if isinstance(value, float)}
        assert {key: offloaded[key] for key in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-5)


def test_eight_bits_hold_the_moments():
    weights = torch.nn.Parameter(torch.randn(64, 128, generator=torch.Generator().manual_seed(0)))
    config = TrainingConfig(updates=1, prompts_per_update=1, learning_rate=0.01, optimizer="adamw_8bit")
    optimizer = build_optimizer([weights], config)
    before = weights.detach().clone()
    weights.square().sum().backward()
    optimizer.step()
    kinds = {v.dtype for v in optimizer.state[weights].values() if torch.is_tensor(v) and v.numel() > 1000}
    assert kinds == {torch.uint8}
    assert torch.allclose(weights, before - 0.01 * before.sign(), atol=1e-3)


class Visited(torch.nn.Module):
    """Records where it was sent."""

    def __init__(self):
        super().__init__()
        self.places = []

    def to(self, place):
        self.places.append(str(place))
        return self


def test_offloaded_networks_visit_the_device_only_when_called(folder):
    halves = toy_halves()
    decoder, judge = Visited(), Visited()
    halves.generator.frozen = (decoder,)
    halves.actor.reward.modules = (judge,)
    device = torch.device("meta")
    generator, reward = (
        OffloadedDecoder(halves.generator, device),
        OffloadedReward(halves.actor.reward, device),
    )
    condition = generator.encode(PROMPTS[:1])
    generator.logits(torch.full((1, 6), 4), condition, StepIndex(torch.zeros(1), 3), rowwise(0.0))
    assert decoder.places == []
    images = generator.decode(torch.zeros(1, 6, dtype=torch.long), condition)
    assert decoder.places == ["meta", "cpu"]
    assert torch.equal(reward.score(images, PROMPTS[:1]), halves.actor.reward.score(images, PROMPTS[:1]))
    assert judge.places == ["meta", "cpu"]


@pytest.mark.parametrize("key", ["activation_checkpointing", "compile"])
def test_a_network_that_cannot_says_so(folder, key):
    with pytest.raises(RecipeError, match=f"training.{key} = true, but ToyGenerator has no"):
        run(folder, "no", f"training.{key}=true")


def test_a_full_device_is_one_clear_line(folder):
    text = (folder / "recipe.toml").read_text().replace(":Red", ":Huge")
    (folder / "recipe.toml").write_text(text)
    with pytest.raises(
        TrainingError, match=r"update 0: .* out of memory \(tried to allocate 9 GiB\); lower"
    ) as error:
        run(folder, "huge")
    assert "\n" not in str(error.value)
