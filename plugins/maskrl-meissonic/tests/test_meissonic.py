"""Meissonic beside the public code at small sizes, its files, what it promises, and a run from the command line."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from maskrl_meissonic import Meissonic, layers
from maskrl_meissonic.cost import unfilled
from maskrl_meissonic.network import Sizes, Transformer
from meissonic_folder import write_folder
from safetensors.torch import load_file, save_file

from maskrl.cli import main
from maskrl.errors import RecipeError
from maskrl.grpo.config import SamplingConfig, resolve
from maskrl.grpo.policy import check_score
from maskrl.grpo.rollout import rollout
from maskrl.grpo.schedule import unmask_counts
from maskrl.grpo.temperature import temperatures
from maskrl.recipe import read_recipe
from maskrl.testing import check_generator
from maskrl.types import Prompt, StepIndex, Stream

REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))
PROMPTS = [Prompt("a b"), Prompt("c")]
WHOLE = {"downsample": False, "upsample": False}


def build(folder, **settings):
    return Meissonic(Meissonic.Config(checkpoint=str(folder), **{"resolution": 8, **settings}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, formula):
    """A Meissonic of 4 x 4 codes."""
    return write_folder(tmp_path_factory.mktemp("meissonic"), formula)


class Seeded(Stream):
    """A stream whose noise is its seed's alone."""

    def generator(self):
        return torch.Generator().manual_seed(self.seed)


@pytest.fixture(scope="module", params=REFERENCE["cases"], ids=lambda case: case["name"])
def compared(request, tmp_path_factory, formula):
    """A case of the public code, and ours of the same weights."""
    case = request.param
    made = write_folder(tmp_path_factory.mktemp("reference"), formula, levels=8, length=77, **case["change"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(layers, "frequencies", recorded_frequencies)
        yield case, build(made, resolution=case["resolution"], negative_prompt=case["negative"])


# Where the processor that the public code ran on did not round to the nearest: the recorded logits of the first steps
# say so, as a last bit times 63,000 is another angle. Found by trying both neighbours of each.
UP, DOWN = [13, 44, 93, 95, 98, 121], [100]


def recorded_frequencies(number, device):
    """The frequencies as they were when the numbers of reference.json were taken."""
    assert number == 128
    exponents = -math.log(10_000) * torch.arange(number, dtype=torch.float32) / number
    nearest = exponents.double().exp().float()
    for places, towards in ((UP, 2.0), (DOWN, 0.0)):
        nearest[places] = nearest[places].nextafter(torch.tensor(towards))
    return nearest.to(device)


def test_frequencies_are_the_recorded_ones_but_for_the_last_bit():
    found, recorded = (of(128, torch.device("cpu")) for of in (layers.frequencies, recorded_frequencies))
    torch.testing.assert_close(found, recorded, rtol=2.5e-7, atol=0)


def state(case, step):
    """The codes before a step."""
    tokens, revealed_at = torch.tensor(case["tokens"]), torch.tensor(case["revealed_at"])
    return torch.where(revealed_at >= step, 19, tokens)


def test_logits_are_those_of_the_public_pipeline(compared):
    """Rounding grows with the weights of the two branches."""
    case, generator = compared
    scale = case["guidance_scale"]
    condition = generator.encode([Prompt(text) for text in case["texts"]])
    wanted = torch.zeros(2, generator.spec.num_tokens, dtype=torch.bool)
    wanted[:, case["positions"]] = True
    for public in case["logits"]:
        step = StepIndex(torch.full((2,), public["step"]), case["num_steps"])
        weights = torch.full((2,), scale - 1, dtype=torch.float64)
        with torch.no_grad():
            found = generator.logits(state(case, public["step"]), condition, step, weights, wanted)
        apart = (found - torch.tensor(public["values"]).flatten(0, 1)).abs().max()
        assert apart < 1e-5 * (2 * scale - 1), f"step {public['step']}"


def test_sampling_visits_the_states_of_the_public_pipeline(compared):
    case, generator = compared
    streams = [Seeded(case["seed"] + image) for image in range(2)]
    assert torch.rand(1, generator=streams[0].generator()).item() == case["first"], "torch's noise changed"
    trajectory = rollout(
        generator,
        generator.encode([Prompt(text) for text in case["texts"]]),
        streams,
        case["num_steps"],
        resolve(SamplingConfig(), generator.spec),
        case["guidance_scale"] - 1,
    )
    assert trajectory.tokens.tolist() == case["tokens"]
    revealed_at = (trajectory.state == generator.spec.mask_id).sum(dim=1) - 1
    assert revealed_at.tolist() == case["revealed_at"]


@pytest.mark.parametrize("case", REFERENCE["counts"], ids=lambda c: f"{c['num_steps']}-{c['num_tokens']}")
def test_counts_and_temperatures_are_those_of_the_public_scheduler(folder, case):
    sampler = build(folder).spec.sampler
    assert unmask_counts(case["num_tokens"], case["num_steps"], sampler.schedule) == case["revealed"]
    found = temperatures(case["num_steps"], sampler.temperature_rule, sampler.tau_init)
    assert found == pytest.approx(case["temperatures"], abs=1e-6)


def test_names_and_shapes_of_the_weights_are_the_public_ones():
    with torch.device("meta"):
        network = Transformer(Sizes.model_validate(REFERENCE["published"]))
    found = {}
    for name, tensor in network.state_dict().items():
        family = re.sub(r"^((?:single_)?transformer_blocks)\.\d+\.", r"\1.*.", name)
        found.setdefault(family, []).append(list(tensor.shape))
    assert {name: [len(shapes), shapes[0]] for name, shapes in found.items()} == REFERENCE["keys"]
    assert all(shape == shapes[0] for shapes in found.values() for shape in shapes)
    assert len(network.state_dict()) == REFERENCE["num_keys"] == 867
    assert sum(p.numel() for p in network.parameters()) == REFERENCE["num_parameters"] == 1_006_946_304


@pytest.mark.parametrize("change", [{}, WHOLE], ids=["halved", "whole"])
def test_it_keeps_the_contract(tmp_path, formula, change):
    check_generator(build(write_folder(tmp_path, formula, **change), negative_prompt="b c"), PROMPTS)


def test_the_time_and_the_negative_prompt_matter(folder):
    generator, other = build(folder), build(folder, negative_prompt="b c")
    tokens = torch.full((1, 16), generator.spec.mask_id)

    def logits(of, t, num_steps, weight):
        step = StepIndex(torch.tensor([t]), num_steps)
        weights = torch.tensor([weight], dtype=torch.float64)
        with torch.no_grad():
            return of.logits(tokens, of.encode(PROMPTS[:1]), step, weights)

    first = logits(generator, 0, 4, 0.0)
    assert torch.equal(first, logits(generator, 4, 8, 0.0)), "as many steps are left"
    assert not torch.equal(first, logits(generator, 1, 4, 0.0))
    assert torch.equal(first, logits(other, 0, 4, 0.0))
    assert not torch.equal(logits(generator, 0, 4, 2.0), logits(other, 0, 4, 2.0))


def test_a_score_of_its_own_is_refused_by_what_needs_log_p(folder):
    from maskrl.transitions.p_theta1 import PTheta1

    spec = build(folder).spec
    transition = PTheta1(PTheta1.Config())
    check_score(transition, resolve(SamplingConfig(), spec))
    with pytest.raises(
        RecipeError, match="takes for granted that the proposals of the highest log p"
    ) as caught:
        check_score(transition, resolve(SamplingConfig(score="max_prob"), spec))
    assert "\n" not in str(caught.value)


def test_what_is_saved_is_what_is_published(folder, tmp_path):
    generator = build(folder)
    generator.save(str(tmp_path / "mine"))
    published = folder / "transformer"
    assert json.loads((tmp_path / "mine" / "config.json").read_text()) == json.loads(
        (published / "config.json").read_text()
    )
    mine, theirs = (
        load_file(where / "diffusion_pytorch_model.safetensors") for where in (tmp_path / "mine", published)
    )
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooled_projection_dim": 24}, "pooled_projection_dim = 24 is not the width 32"),
        ({"axes_dims_rope": [4, 6, 8]}, "are not attention_head_dim = 16"),
        ({"upsample": False}, "downsample without upsample"),
        ({"guidance_embeds": True}, "guidance_embeds"),
        ({"num_layers": "many"}, "num_layers"),
        ({"num_layers": 1}, "unknown"),
    ],
)
def test_a_transformer_that_is_another_is_refused_in_one_line(folder, tmp_path, change, message):
    mine = shutil.copytree(folder / "transformer", tmp_path / "mine")
    settings = json.loads((mine / "config.json").read_text())
    (mine / "config.json").write_text(json.dumps({**settings, **change}))
    with pytest.raises(RecipeError, match=message) as caught:
        build(folder, transformer=str(mine))
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_refused_in_one_line(folder, tmp_path):
    mine = shutil.copytree(folder / "transformer", tmp_path / "mine")
    weights = mine / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor for name, tensor in tensors.items() if name != "mlm_layer.conv2.weight"}, weights)
    for settings, message in (
        ({"transformer": str(mine)}, r"1 missing \(mlm_layer\.conv2\.weight\)"),
        ({"transformer": str(tmp_path)}, "is missing; a checkpoint folder needs it"),
        ({"text_encoder": str(mine)}, "holds no CLIPTextModelWithProjection"),
        ({"text_encoder": str(tmp_path / "nowhere")}, "no folder and no hub id"),
        ({"resolution": 10}, "a position of this checkpoint is 4 pixels wide"),
    ):
        with pytest.raises(RecipeError, match=message) as caught:
            build(folder, **settings)
        assert "\n" not in str(caught.value)
    assert build(folder, text_encoder=str(folder / "text_encoder")).spec == build(folder).spec


REWARD = """
from maskrl.component import ComponentConfig
from maskrl.interfaces import RewardModel
class Red(RewardModel):
    modules = ()
    def score(self, images, prompts):
        return images[:, 0].mean(dim=(1, 2))
"""
RECIPE = """
[generator]
name = "meissonic"
checkpoint = "{folder}"
resolution = 8
negative_prompt = "c"
[transition]
name = "p_theta2"
[reward]
name = "red.py:Red"
[filter]
name = "keep_all"
[reducer]
name = "none"
[grpo]
group_size = 4
num_steps = 3
[sampling]
guidance_train = 1.0
[prompts]
train = "abc.txt"
[training]
updates = 2
prompts_per_update = 2
learning_rate = 0.01
device = "cpu"
activation_checkpointing = true
[tracking]
tensorboard = false
[eval.reward]
prompts = "abc.txt"
images_per_prompt = 1
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Install the package for one test, and run commands of maskrl."""
    info = tmp_path / "site" / "maskrl_meissonic-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: maskrl-meissonic\nVersion: 0.1.0\n")
    entry = "[maskrl.generators.v1]\nmeissonic = maskrl_meissonic:Meissonic\n"
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(info.parent))

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert not end.value.code, err
        return out

    return run


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adapters", [False, True], ids=["whole", "LoRA"])
def test_it_trains_is_resumed_evaluated_and_exported(folder, tmp_path, command, adapters):
    (tmp_path / "red.py").write_text(REWARD)
    (tmp_path / "abc.txt").write_text("a b\nc\n")
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(RECIPE.format(folder=folder) + ("[lora]\nrank = 2\n" if adapters else ""))
    command("train", "--recipe", recipe, "--run", run)
    command("train", "--recipe", recipe, "--run", run, "--resume", "--set", "training.updates=3")
    assert (run / "checkpoints" / "update_00003").is_dir()
    assert "reward" in command("eval", "reward", "--run", run, "--out", tmp_path / "judged")
    command("export", run, "--to", tmp_path / "mine")
    weights = load_file(next((tmp_path / "mine").rglob("*.safetensors")))
    before = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    if adapters:
        assert weights
    else:
        assert weights.keys() == before.keys()
        assert any((weights[name] != before[name]).any() for name in before)
    options = ("--recipe", recipe, "--num", 2, "--checkpoint")
    for name, source in (("a", tmp_path / "mine"), ("b", run / "checkpoints" / "update_00003")):
        command("sample", "a b", *options, source, "--out", tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_it_is_listed_and_checked_by_its_name(command):
    assert "maskrl_meissonic:Meissonic" in command("plugins", "list")
    assert "ok      generators maskrl-meissonic/meissonic" in command("plugins", "check", "meissonic")


def test_its_recipe_is_valid(command):
    recipe = read_recipe("package:maskrl_meissonic/recipes/meissonic_clip.toml")
    assert recipe.generator.component is Meissonic
    with pytest.raises(RecipeError, match=r"holds no 'recipes/other\.toml'"):
        read_recipe("package:maskrl_meissonic/recipes/other.toml")


@pytest.mark.filterwarnings("ignore:.*before the profiling started")
@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
def test_the_peak_and_the_flops_of_a_pass_are_the_planned_ones(folder, planned_and_measured, again):
    (planned, measured), (flops, counted) = planned_and_measured(build(folder), PROMPTS[0], 64, again)
    assert planned == pytest.approx(measured, rel=0.15)
    assert flops == pytest.approx(counted, rel=0.1)


def test_the_published_sizes_are_known_without_a_hub():
    parts = unfilled("MeissonFlow/Meissonic", None, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K")
    networks = (parts.transformer, parts.vqvae, parts.text_encoder)
    held = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert held == [1_006_946_304, 146_244_675, 354_032_640]


def test_sizes_that_are_not_known_are_named(folder):
    with pytest.raises(
        RecipeError, match="the sizes of 'some/body' are not known here: give a folder, or MeissonFlow"
    ):
        type(build(folder)).cost(
            build(folder).config.model_copy(update={"checkpoint": "some/body"}), text_tokens=8
        )
