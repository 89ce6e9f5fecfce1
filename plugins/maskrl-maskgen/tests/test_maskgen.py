"""MaskGen and TA-TiTok beside the public code at small sizes: numbers, files, and what a generator promises."""

import hashlib
import json
import shutil
import signal
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from maskrl_maskgen import MaskGen
from maskrl_maskgen.cost import counted, sizes_of
from maskrl_maskgen.generator import make_spec
from maskrl_maskgen.network import MaskGenNetwork
from maskrl_maskgen.sizes import Generator, GeneratorFile, TokenizerFile, Vq
from maskrl_maskgen.tatitok import TaTiTok
from safetensors.torch import load_file, save_file

from maskrl.cli import main
from maskrl.errors import RecipeError
from maskrl.grpo import rollout, unmask
from maskrl.grpo.config import SamplingConfig, resolve
from maskrl.grpo.policy import check_score
from maskrl.grpo.positions import gumbel
from maskrl.grpo.schedule import unmask_counts
from maskrl.recipe import read_recipe
from maskrl.testing import check_generator
from maskrl.types import Prompt, SamplerDefaults, StepIndex, Stream

REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))
TEXTS = [Prompt(text) for text in REFERENCE["text"]["texts"]]
CONFIG = json.loads(json.dumps(REFERENCE["config"]))
CONFIG["model"]["vq_model"]["vit_dec_model_size"] = REFERENCE["decoder"]
SETTINGS = {"generator": CONFIG, "tokenizer": CONFIG}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, formula):
    """The checkpoints of the reference as they are published, and its CLIP in open_clip's layout."""
    folder = tmp_path_factory.mktemp("maskgen")
    clip = {"model_cfg": REFERENCE["clip"], "preprocess_cfg": {}}
    files = {"generator": ("config", "model"), "tokenizer": ("config", "model")}
    files["clip"] = ("open_clip_config", "open_clip_model")
    for part, (config, weights) in files.items():
        (folder / part).mkdir()
        (folder / part / f"{config}.json").write_text(json.dumps(SETTINGS.get(part, clip)), encoding="utf-8")
        made = formula(REFERENCE["shapes"][part])
        made = {name: gain(name, tensor) * tensor for name, tensor in made.items()}
        save_file(made, folder / part / f"{weights}.safetensors")
    return folder


def gain(name, tensor):
    return REFERENCE["gains"].get(name, REFERENCE["gain_of_matrices"] if tensor.ndim > 1 else 1)


def build(folder, **settings):
    parts = {"checkpoint": "generator", "tokenizer": "tokenizer", "text_model": "clip"}
    return MaskGen(MaskGen.Config(**{key: str(folder / part) for key, part in parts.items()} | settings))


@pytest.fixture(scope="module")
def generator(folder):
    return build(folder)


@pytest.fixture(scope="module")
def condition(generator):
    with pytest.warns(UserWarning, match="MaskGen reads 77 tokens of a prompt"):
        return generator.encode(TEXTS)


def close(found, wanted):
    """To 1e-5 of the largest number."""
    wanted = torch.tensor(wanted).view(found.shape)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.abs().max())))


def test_texts_are_read_as_by_the_public_code(condition):
    """Short, with capitals and signs, empty, and cut."""
    reference, places = REFERENCE["text"], REFERENCE["text"]["places"]
    close(condition.memory[:4, places], reference["memory"])
    close(condition.final[:4, places], reference["final"])
    close(condition.pooled[:4], reference["pooled"])
    assert torch.equal(condition.pooled[4], condition.pooled[2])  # the null branch is the empty text


def at(rows, num_steps=4):
    return StepIndex(torch.zeros(rows, dtype=torch.long), num_steps)


def test_logits_are_those_of_the_public_code(generator, condition):
    tokens, none = torch.tensor(REFERENCE["tokens"]), torch.zeros(4, dtype=torch.float64)
    with torch.no_grad():
        logits = generator.logits(tokens, condition, at(4), none)
        masked = tokens == generator.spec.mask_id
        packed = generator.logits(tokens, condition, at(4), none, positions=masked)
    close(logits, REFERENCE["logits"])
    torch.testing.assert_close(packed, logits[masked], rtol=0, atol=1e-5)


def test_pixels_are_those_of_the_public_code(generator, condition):
    codes = torch.tensor(REFERENCE["codes"])
    pixels = generator.decode(codes, condition.select(torch.tensor([0, 1])))
    close(pixels, REFERENCE["pixels"])
    assert float(((pixels > 0) & (pixels < 1)).float().mean()) > 0.2
    others = generator.decode(codes, condition.select(torch.tensor([1, 0])))
    assert not torch.equal(pixels, others)  # the text is painted too


def uniform(name, *shape, noise):
    return ((noise(name, *shape) + 1) / 2).clamp(1e-6, 1 - 1e-6).float()


@pytest.mark.parametrize("case", REFERENCE["sampler"], ids=lambda case: f"{case['num_steps']} steps")
def test_tokens_are_those_of_the_public_sampler_from_the_same_noise(
    generator, condition, case, noise, monkeypatch
):
    """Proposals by the maximum of log p and noise, as there, in the place of ours by one number a position."""
    num_steps, spec = case["num_steps"], generator.spec
    states = torch.tensor(case["states"])
    at_step = iter(range(num_steps))

    def proposals(p, _):
        t = next(at_step)
        drawn = uniform(f"value {num_steps} {t}", 2, spec.num_tokens, spec.num_codes, noise=noise)
        return (p.double().log() + gumbel(drawn)[states[t] == spec.mask_id]).argmax(dim=-1)

    places = [uniform(f"place {num_steps} {t}", 2, spec.num_tokens, noise=noise) for t in range(num_steps)]
    places_BT2N = torch.stack(places, dim=1)[:, :, None].expand(-1, -1, 2, -1)
    monkeypatch.setattr(unmask, "_inverse_cdf", proposals)
    monkeypatch.setattr(rollout, "_noise", lambda *shape: places_BT2N)
    record = rollout.rollout(
        generator,
        condition.select(torch.tensor([0, 1])),
        [Stream(0), Stream(1)],
        num_steps,
        resolve(SamplingConfig(), spec),
        case["guidance"],
    )
    assert torch.equal(record.state.transpose(0, 1), states[:-1])
    assert torch.equal(record.tokens, states[-1])


@pytest.mark.parametrize("case", REFERENCE["counts"], ids=lambda case: f"{case['num_steps']} steps")
def test_as_many_are_revealed_as_by_the_public_sampler(case):
    assert unmask_counts(case["num_tokens"], case["num_steps"], "arccos") == case["revealed"]


def test_the_sampler_is_the_published_one(generator):
    assert generator.spec.sampler == SamplerDefaults(
        num_steps=16,
        schedule="arccos",
        temperature_rule="maskgen",
        tau_init=2.0,
        score="logit",
        guidance=12.0,
        guidance_rule="cosine",
        value_temperature_rule="maskgen",
        value_temperature=2.0,
    )
    assert generator._aesthetic == 6.5


def shapes_of(module):
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


def digest(shapes):
    return hashlib.sha256(
        "".join(f"{key} {shape}\n" for key, shape in sorted(shapes.items())).encode()
    ).hexdigest()


@pytest.mark.parametrize("name", ["l", "xl"])
def test_weights_at_published_size_have_the_public_names_and_shapes(name):
    published = REFERENCE["published"][name]
    vq = PUBLISHED_VQ | {"vit_dec_model_size": "large"}
    sizes = {"decoder_embed_dim": published["width"], "decoder_depth": published["depth"]}
    network = MaskGenNetwork.unfilled(Vq(**vq), Generator(**sizes, **PUBLISHED_GENERATOR))
    shapes = shapes_of(network)
    shapes["lm_head.weight"] = shapes["embeddings.weight"]
    assert (len(shapes), digest(shapes)) == (published["entries"], published["sha256"])
    held = sum(p.numel() for p in network.parameters())
    assert held == published["parameters"] == {"l": 604_311_552, "xl": 1_176_611_840}[name]


PUBLISHED_VQ = {
    **{"is_legacy": False, "finetune_decoder": False, "codebook_size": 8192, "token_size": 64},
    **{"num_latent_tokens": 128, "vit_dec_patch_size": 16},
}
PUBLISHED_GENERATOR = {
    **{"decoder_num_heads": 16, "micro_condition": True, "micro_condition_embed_dim": 256},
    "condition_num_classes": 1000,
}


def test_the_decoder_at_published_size_has_the_public_names_and_shapes():
    """Without the encoder, 86 of the 391 million parameters."""
    published = REFERENCE["published"]["tokenizer"]
    tatitok = TaTiTok.unfilled(Vq(**PUBLISHED_VQ, vit_dec_model_size="large"), 256)
    shapes = shapes_of(tatitok)
    assert (len(shapes), digest(shapes)) == (published["decoder_entries"], published["sha256"])
    held = sum(p.numel() for p in tatitok.parameters())
    assert (held, published["parameters"]) == (published["decoder_parameters"], 391_046_292)


# the contract


def test_contract(folder):
    check_generator(build(folder), TEXTS[:2])


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install the package for a test: its entry points, that is."""
    info = tmp_path / "site" / "maskrl_maskgen-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: maskrl-maskgen\nVersion: 0.1.0\n")
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    points = tomllib.loads(text)["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{n} = {t}\n" for n, t in p.items()) for group, p in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.fixture
def cli(capsys):
    """Run a command of maskrl in this process: its exit code, and what it printed."""

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out + err

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


def test_it_is_checked_from_the_command_line(folder, installed, cli, tmp_path):
    code, said = cli("plugins", "check", "maskgen")
    assert (code, "ok      generators maskrl-maskgen/maskgen: imports" in said) == (0, True), said
    defaults = "".join(
        f"        {key}: str = {str(folder / part)!r}\n"
        for key, part in (("checkpoint", "generator"), ("tokenizer", "tokenizer"), ("text_model", "clip"))
    )
    (tmp_path / "tiny.py").write_text(
        "from maskrl_maskgen import MaskGen\n\n\nclass Tiny(MaskGen):\n"
        f"    class Config(MaskGen.Config):\n{defaults}\n    paths = ()\n"
    )
    code, said = cli("plugins", "check", f"{tmp_path / 'tiny.py'}:Tiny")
    assert (code, "keeps its contract" in said) == (0, True), said


RECIPE = """
[generator]
name = "maskgen"
checkpoint = "{folder}/generator"
tokenizer = "{folder}/tokenizer"
text_model = "{folder}/clip"
[transition]
name = "ar"
[reward]
name = "red.py:Red"
[filter]
name = "keep_all"
[reducer]
name = "none"
[grpo]
group_size = 2
num_steps = 3
[prompts]
train = "prompts.txt"
[training]
updates = 2
prompts_per_update = 2
micro_batch = 8
learning_rate = 0.01
device = "cpu"
[eval.reward]
prompts = "prompts.txt"
images_per_prompt = 1
[tracking]
tensorboard = false
"""
RED = """
from maskrl.interfaces import RewardModel


class Red(RewardModel):
    def score(self, images, prompts):
        return images[:, 0].mean(dim=(1, 2))
"""


@pytest.fixture
def recipe(folder, installed, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red circle\ntwo blue squares\n")
    (tmp_path / "red.py").write_text(RED)
    (tmp_path / "tiny.toml").write_text(RECIPE.format(folder=folder))
    return tmp_path / "tiny.toml"


@pytest.mark.parametrize("lora", [(), ("--set", "lora.rank=2")], ids=["whole", "lora"])
def test_it_trains_is_resumed_evaluated_and_exported(folder, recipe, tmp_path, cli, lora):
    run = tmp_path / "run"
    train = ("train", "--recipe", recipe, "--run", run, *lora, "--set", "sampling.guidance_train=1.0")
    assert cli(*train)[0] == 0
    code, said = cli(*train, "--resume", "--set", "training.updates=3")
    assert code == 0, said
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines if "grad_norm" in line] == [1, 2, 3]
    assert all(line["ratio_min"] == line["ratio_max"] == 1 for line in lines if "grad_norm" in line)
    assert any(line["grad_norm"] > 0 for line in lines if "grad_norm" in line)
    code, said = cli("eval", "reward", "--run", run, "--out", tmp_path / "out")
    assert (code, "Reward Red" in said) == (0, True), said
    code, said = cli("export", run, "--to", tmp_path / "mine")
    assert code == 0, said
    trained, before = (
        load_file(where / "model.safetensors") for where in (tmp_path / "mine", folder / "generator")
    )
    assert trained.keys() == before.keys()
    changed = {name for name in before if (trained[name] != before[name]).any()}
    assert {"blocks.1.attn.to_q.weight"} <= changed
    assert ("embeddings.weight" in changed) == (not lora)
    assert build(folder, checkpoint=str(tmp_path / "mine")).spec == build(folder).spec


@pytest.mark.parametrize("transition", ["p_theta1", "plackett_luce", "exact"])
def test_probabilities_of_another_score_are_refused_in_one_line(recipe, cli, transition):
    code, said = cli("check", "on-policy", "--recipe", recipe, "--set", f"transition.name={transition}")
    assert (code, 'sampling has score = "logit"' in said, said.count("\n")) == (2, True, 1), said


def test_it_is_on_policy_at_all_steps_but_the_greedy_one(recipe, cli):
    code, said = cli("check", "on-policy", "--recipe", recipe, "--images", 2)
    assert (code, [line.split()[0] for line in said.splitlines()]) == (0, ["step", "0", "1", "on"]), said


def test_the_recipe_of_the_package_is_whole(installed):
    recipe = read_recipe(str(files("maskrl_maskgen") / "recipes" / "maskgen_l_clip.toml"))
    assert recipe.generator.component is MaskGen
    sampling = resolve(recipe.sampling, make_spec(*published_sizes()), MaskGen)
    assert (sampling.guidance_eval, recipe.grpo.num_steps) == (12.0, 16)
    check_score(recipe.transition.build(), sampling)


def published_sizes():
    model = {"vq_model": PUBLISHED_VQ | {"vit_dec_model_size": "large"}}
    sizes = {"decoder_embed_dim": 1024, "decoder_depth": 16, **PUBLISHED_GENERATOR}
    tokenizer = TokenizerFile(model=model, dataset={"preprocessing": {"crop_size": 256}})
    return GeneratorFile(model=model | {"maskgen": sizes}).model, tokenizer


# files


def changed(folder, tmp_path, part, change):
    """A copy of a part of the checkpoint, with other settings."""
    copy = shutil.copytree(folder / part, tmp_path / part)
    settings = json.loads((copy / "config.json").read_text())
    change(settings["model"])
    (copy / "config.json").write_text(json.dumps(settings))
    return str(copy)


@pytest.mark.parametrize(
    ("part", "key", "change", "message"),
    [
        (
            "generator",
            "maskgen",
            {"micro_condition": False},
            r"config\.json' .*model\.maskgen\.micro_condition",
        ),
        ("generator", "maskgen", {"weight_tying": False}, r"model\.maskgen\.weight_tying"),
        ("generator", "maskgen", {"decoder_depth": 4}, r"missing \(blocks\.2"),
        ("generator", "vq_model", {"quantize_mode": "vae"}, r"model\.vq_model\.quantize_mode"),
        ("tokenizer", "vq_model", {"is_legacy": True}, r"model\.vq_model\.is_legacy"),
        (
            "tokenizer",
            "vq_model",
            {"text_context_length": 76},
            r"of another shape .*text_guidance_positional",
        ),
    ],
)
def test_a_checkpoint_of_something_else_is_a_line(folder, tmp_path, part, key, change, message):
    copy = changed(folder, tmp_path, part, lambda model: model[key].update(change))
    setting = {"generator": "checkpoint", "tokenizer": "tokenizer"}[part]
    with pytest.raises(RecipeError, match=message) as caught:
        build(folder, **{setting: copy})
    assert "\n" not in str(caught.value)


def test_parts_that_do_not_belong_together_are_a_line(folder):
    model = SETTINGS["generator"]["model"]
    other = json.loads(json.dumps(SETTINGS["tokenizer"]))
    other["model"]["vq_model"]["codebook_size"] = 64
    sizes, tokenizer = GeneratorFile(model=model).model, TokenizerFile(**other)
    with pytest.raises(
        RecipeError, match=r"makes 16 of 32 codes, .* paints 16 of 64, .* do not belong together"
    ):
        make_spec(sizes, tokenizer)
    with pytest.raises(
        RecipeError, match=r"has layers of 96, vectors of 96 and texts of 16 tokens; .* 24, 24 and 77"
    ):
        build(folder, text_model="package:maskrl/shapes/weights/clip")


def test_the_head_may_be_in_the_file_by_either_name_or_both(folder, tmp_path):
    tensors = load_file(folder / "generator" / "model.safetensors")
    table = tensors["embeddings.weight"]
    copy = Path(changed(folder, tmp_path, "generator", dict))
    (copy / "model.safetensors").unlink()
    others = {name: tensor for name, tensor in tensors.items() if name != "embeddings.weight"}
    for kept in (tensors | {"lm_head.weight": table}, others | {"lm_head.weight": table}):
        torch.save(kept, copy / "pytorch_model.bin")
        assert torch.equal(build(folder, checkpoint=str(copy)).module.embeddings.weight, table)
    torch.save(kept | {"embeddings.weight": table + 1}, copy / "pytorch_model.bin")
    with pytest.raises(RecipeError, match=r"lm_head\.weight and embeddings\.weight differ"):
        build(folder, checkpoint=str(copy))


@pytest.mark.filterwarnings("ignore:.*before the profiling started")
@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
def test_the_peak_and_the_flops_of_a_pass_are_the_planned_ones(folder, planned_and_measured, again):
    (planned, measured), (flops, counted) = planned_and_measured(build(folder), Prompt("a"), 64, again)
    assert planned == pytest.approx(measured, rel=0.15)
    assert flops == pytest.approx(counted, rel=0.1)


def test_the_published_sizes_are_known_without_a_hub():
    for name, parameters in (("l", 604_311_552), ("xl", 1_176_611_840)):
        sizes, tokenizer = sizes_of(
            f"turkeyju/generator_maskgen_vq_{name}", "turkeyju/tokenizer_tatitok_bl128_vq"
        )
        parts = counted(sizes, tokenizer, "ViT-L-14-336", make_spec(sizes, tokenizer))
        networks = (parts.build(), parts.decoder, *parts.readers)
        held = [sum(p.numel() for p in network.parameters()) for network in networks]
        assert held == [parameters, 304_954_196, 123_650_305]  # the text half, and a temperature


def test_sizes_that_are_not_known_are_named(folder):
    with pytest.raises(
        RecipeError, match="the sizes of 'some/body' are not known here: give a folder, or turkeyju"
    ):
        type(build(folder)).cost(
            build(folder).config.model_copy(update={"checkpoint": "some/body"}), text_tokens=8
        )
