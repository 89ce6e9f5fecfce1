"""aMUSEd, at tiny size in its published layout: it keeps the contract, is what diffusers' pipeline is, and trains."""

import json
import sys
import warnings

import pytest
import torch
from peaks import peak_of
from safetensors.torch import load_file, save_file
from toy import rowwise
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from maskrl.errors import RecipeError
from maskrl.flops import count_flops
from maskrl.footprint import Scored
from maskrl.generators.amused.cost import unfilled
from maskrl.generators.amused.generator import Amused
from maskrl.grpo.config import SamplingConfig, resolve
from maskrl.grpo.rollout import rollout
from maskrl.recipe import read_recipe
from maskrl.testing import check_generator
from maskrl.training.loop import train
from maskrl.training.plan import plan
from maskrl.types import Pass, Prompt, StepIndex, Stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import AmusedPipeline, AmusedScheduler, UVit2DModel, VQModel
    from diffusers.schedulers import scheduling_amused

PROMPTS = [Prompt("a b"), Prompt("c")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write random weights as they are published."""
    folder = tmp_path_factory.mktemp("amused")
    torch.manual_seed(0)
    UVit2DModel(
        hidden_size=32,
        use_bias=False,
        hidden_dropout=0.0,
        cond_embed_dim=16,
        micro_cond_encode_dim=8,
        micro_cond_embed_dim=40,
        encoder_hidden_size=16,
        vocab_size=36,
        codebook_size=32,
        in_channels=16,
        block_out_channels=16,
        num_res_blocks=1,
        downsample=True,
        upsample=True,
        block_num_heads=2,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_dropout=0.0,
        intermediate_size=32,
        sample_size=4,
    ).save_pretrained(folder / "transformer")
    VQModel(
        block_out_channels=[16, 16],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=8,
        layers_per_block=1,
        norm_num_groups=4,
        num_vq_embeddings=32,
        vq_embed_dim=8,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
        sample_size=8,
    ).save_pretrained(folder / "vqvae")
    AmusedScheduler(mask_token_id=35).save_pretrained(folder / "scheduler")
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "b</w>", "c</w>", "a", "b", "c"]
    made = folder / "tokenizer"
    made.mkdir()
    (made / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (made / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(made, model_max_length=6, pad_token="<|endoftext|>").save_pretrained(made)
    text = CLIPTextConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=6,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    CLIPTextModelWithProjection(text).save_pretrained(folder / "text_encoder")
    return folder


def amused(folder, **settings):
    return Amused(Amused.Config(checkpoint=str(folder), **settings))


def test_it_keeps_the_contract(folder):
    check_generator(amused(folder), PROMPTS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_it_is_what_the_published_pipeline_is(folder, scale, monkeypatch):
    """Logits of the first step, after guidance, and the picture of the codes that came out."""
    generator = amused(folder)
    parts = generator._parts
    scheduler = AmusedScheduler.from_pretrained(folder / "scheduler")
    seen = []
    step = AmusedScheduler.step

    def listening(self, model_output, timestep, sample, **more):
        seen.append((model_output, sample))
        return step(self, model_output, timestep, sample, **more)

    monkeypatch.setattr(AmusedScheduler, "step", listening)
    pipeline = AmusedPipeline(parts.vqvae, parts.tokenizer, parts.text_encoder, generator.module, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": 3, "guidance_scale": scale, "generator": torch.Generator().manual_seed(0)}
    prompts = [prompt.text for prompt in PROMPTS]
    codes = pipeline(prompts, output_type="latent", height=8, width=8, **given).images
    condition = generator.encode(PROMPTS)
    for model_output, sample in seen[:3]:
        with torch.no_grad():
            ours = generator.logits(
                sample.flatten(1), condition, StepIndex(torch.zeros(2), 3), rowwise(scale - 1, 2)
            )
        wanted = model_output.flatten(2).transpose(1, 2)
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert (seen[0][1] == generator.spec.mask_id).all()
    painted = parts.vqvae.decode(codes, force_not_quantize=True, shape=(2, 4, 4, 8)).sample.clip(0, 1)
    torch.testing.assert_close(generator.decode(codes.flatten(1), condition), painted)


class Seeded(Stream):
    """A stream whose noise is its seed's alone."""

    def generator(self):
        return torch.Generator().manual_seed(self.seed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("scale", "num_steps"), [(1.0, 12), (10.0, 5)])
def test_tokens_are_those_of_the_published_pipeline(folder, scale, num_steps, monkeypatch):
    """From the same noise; the pipeline's draws of codes are replaced by the inverse of the cumulated probabilities."""
    streams = [Seeded(seed) for seed in (5, 6)]
    noise = torch.stack([torch.rand((num_steps, 2, 16), generator=stream.generator()) for stream in streams])
    visited = []
    step = AmusedScheduler.step

    def listening(self, model_output, timestep, sample, **more):
        visited.append(sample.flatten(1))
        return step(self, model_output, timestep, sample, **more)

    def multinomial(p, number, generator):
        target = noise[:, len(visited) - 1, 0].reshape(-1, 1)
        return (p.cumsum(dim=1) <= target * p.sum(dim=1, keepdim=True)).sum(dim=1, keepdim=True)

    def gumbel(p, generator):
        return -(-noise[:, len(visited) - 1, 1].log()).log()

    monkeypatch.setattr(AmusedScheduler, "step", listening)
    monkeypatch.setattr(scheduling_amused, "gumbel_noise", gumbel)
    generator = amused(folder)
    parts = generator._parts
    scheduler = AmusedScheduler.from_pretrained(folder / "scheduler")
    pipeline = AmusedPipeline(parts.vqvae, parts.tokenizer, parts.text_encoder, generator.module, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": num_steps, "guidance_scale": scale}
    with monkeypatch.context() as patched:
        patched.setattr(torch, "multinomial", multinomial)
        prompts = [prompt.text for prompt in PROMPTS]
        codes = pipeline(prompts, output_type="latent", height=8, width=8, **given).images
    sampling = resolve(SamplingConfig(), generator.spec)
    trajectory = rollout(generator, generator.encode(PROMPTS), streams, num_steps, sampling, scale - 1)
    assert torch.equal(trajectory.state, torch.stack(visited, dim=1))
    assert torch.equal(trajectory.tokens, codes.flatten(1))


def test_less_is_kept_where_activations_are_computed_again(folder):
    def kept(generator):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            tokens = torch.full((2, 16), generator.spec.mask_id)
            generator.logits(tokens, generator.encode(PROMPTS), StepIndex(torch.zeros(2), 3), rowwise(0.0, 2))
        return sum(sizes)

    plain, again = amused(folder), amused(folder)
    again.checkpoint_activations()
    assert kept(again) < kept(plain) / 2
    assert again.module.state_dict().keys() == plain.module.state_dict().keys()


@pytest.mark.parametrize("adapters", [False, True], ids=["whole", "LoRA"])
def test_it_trains_is_resumed_evaluated_exported_and_sampled(folder, toy_recipe, tmp_path, cli, adapters):
    (tmp_path / "abc.txt").write_text("a b\nc\n")
    changes = [
        f"generator={{ name = 'amused', checkpoint = '{folder}' }}",
        "grpo.num_steps=3",
        "sampling.guidance_train=1.0",
        f"prompts.train={tmp_path / 'abc.txt'}",
        "training.activation_checkpointing=true",
        *(["lora={ rank = 2 }"] if adapters else []),
    ]
    recipe = read_recipe(toy_recipe, changes)
    run = tmp_path / "run"
    train(recipe, run, resume=False, display=False)
    weights = "diffusion_pytorch_model.safetensors"
    trained = load_file(run / "checkpoints" / "update_00002" / "generator" / weights)
    before = load_file(folder / "transformer" / weights)
    assert trained.keys() == before.keys()
    assert any((trained[name] != before[name]).any() for name in before)
    longer = read_recipe(toy_recipe, [*changes, "training.updates=3"])
    train(longer, run, resume=True, display=False)
    options = ("--images-per-prompt", 1, "--prompts", tmp_path / "abc.txt")
    done = cli("eval", "reward", "--run", run, *options, "--out", tmp_path / "judged")
    assert done.code == 0, done.err
    done = cli("export", run, "--to", tmp_path / "mine")
    assert done.code == 0, done.err
    exported = load_file(tmp_path / "mine" / weights)
    last = load_file(run / "checkpoints" / "update_00003" / "generator" / weights)
    assert all(torch.equal(exported[name], last[name]) for name in before)
    for name in ("a", "b"):
        done = cli("sample", "a b", "--run", run, "--num", 2, "--out", tmp_path / f"{name}.png")
        assert done.code == 0, done.err
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_checkpoint_that_is_not_whole_is_a_line(folder, tmp_path, monkeypatch):
    generator = amused(folder)
    generator.save(str(tmp_path / "mine"))
    assert amused(folder, transformer=str(tmp_path / "mine")).spec == generator.spec
    file = tmp_path / "mine" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if "mlm_layer.conv2" not in name}, file)
    with pytest.raises(RecipeError, match=r"mine' lacks weights, .*mlm_layer\.conv2"):
        amused(folder, transformer=str(tmp_path / "mine"))
    with pytest.raises(RecipeError, match="no folder and no hub id"):
        amused(tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="text_encoder' holds no CLIPTextModelWithProjection"):
        amused(tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RecipeError, match=r"pip install 'maskrl\[amused\]'"):
        amused(folder)


def test_a_long_prompt_is_cut_and_said(folder):
    with pytest.warns(UserWarning, match="aMUSEd reads 6 tokens"):
        amused(folder).encode([Prompt("a b c a b c a b c")])


# what it costs


@pytest.mark.parametrize(
    ("checkpoint", "parameters", "entries"),
    [("amused-256", 603_537_664, 474), ("amused-512", 608_257_792, 478)],
)
def test_published_sizes_are_those_of_the_published_files(checkpoint, parameters, entries):
    """Of 2.41, 2.43, 0.585 and 0.495 GB in fp32."""
    parts = unfilled(f"amused/{checkpoint}", None)
    networks = (parts.transformer, parts.vqvae, parts.text_encoder)
    held = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert held == [parameters, 146_244_675, 123_650_304]
    assert [round(4 * n / 1e9, 2) for n in held] == [round(4 * parameters / 1e9, 2), 0.58, 0.49]
    assert len(parts.transformer.state_dict()) == entries


def trains(generator, rows):
    """A function that runs rows of images forward and backward, half of their codes asked for; gradients are there."""
    condition = generator.encode(PROMPTS).select(torch.arange(rows) % 2)
    tokens = torch.full((rows, 16), 35)
    asked = (torch.arange(16) < 8).expand(rows, 16)
    step, guidance = StepIndex(torch.zeros(rows, dtype=torch.long), 4), torch.zeros(rows)

    def run():
        Scored.apply(generator.logits(tokens, condition, step, guidance, asked)).backward()

    run()
    return run


@pytest.mark.filterwarnings("ignore:.*before the profiling started")
@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
def test_the_peak_and_the_flops_of_a_pass_are_the_planned_ones(folder, again):
    rows, generator = 64, amused(folder)
    cost = Amused.cost(generator.config, text_tokens=6)
    if again:
        generator.checkpoint_activations()
    run = trains(generator, rows)
    measured = peak_of(run)
    planned = cost.footprint(Pass(rows, 8 * rows, 2, True, False, again, lambda network: None))
    assert planned.peak == pytest.approx(measured, rel=0.15)
    counted = count_flops(run) / rows
    assert 3 * cost.image_flops + again * cost.again_flops == pytest.approx(counted, rel=0.1)


@pytest.mark.filterwarnings("ignore:.*before the profiling started")
def test_the_peak_of_decoding_is_the_planned_one(folder):
    generator = amused(folder)
    condition = generator.encode([PROMPTS[0]] * 64)
    measured = peak_of(lambda: generator.decode(torch.zeros(64, 16, dtype=torch.long), condition))
    cost = Amused.cost(generator.config, text_tokens=6)
    assert 64 * cost.decode_bytes == pytest.approx(measured, rel=0.15)


def test_unknown_sizes_are_named(folder):
    with pytest.raises(
        RecipeError, match="the sizes of 'some/body' are not known here: give a folder, or amused/"
    ):
        Amused.cost(Amused.Config(checkpoint="some/body"), text_tokens=6)


@pytest.mark.slow
def test_the_recipe_is_planned_without_a_hub():
    made = plan(read_recipe("amused_256_clip"), text_tokens=20, processes=1)
    assert made.trained == 603_537_664
    assert made.memory["weights"] == 4 * made.trained
    assert 10 * 2**30 < made.peak < 80 * 2**30
