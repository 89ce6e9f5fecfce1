"""ImageReward beside the package image-reward, and files that do not do."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from image_reward_formula import picture, weight
from PIL import Image

from maskrl.errors import RecipeError
from maskrl.rewards import image_reward_checkpoint
from maskrl.rewards.blip import ImageRewardNetwork, Sizes, published_name
from maskrl.rewards.image_reward import ImageReward, prepare
from maskrl.rewards.image_reward_checkpoint import load_network, load_tokenizer, save_network
from maskrl.shapes.captions import EVALUATION_PREFIX
from maskrl.shapes.faults import near_miss, random_caption
from maskrl.shapes.world import COLORS, paint
from maskrl.testing import check_reward
from maskrl.types import Prompt

REFERENCE = json.loads(
    Path(__file__).with_name("fixtures").joinpath("image_reward_reference.json").read_text(encoding="utf-8")
)
TINY = REFERENCE["tiny"]
SHORT, LONG = Prompt(TINY["prompts"][0]), Prompt(TINY["prompts"][7])  # LONG is cut


def empty(sizes):
    with init_empty_weights():
        return ImageRewardNetwork(sizes).eval()


def tensors(sizes):
    """What a published file holds: some of it is for other uses of BLIP."""
    own = {published_name(name): tuple(tensor.shape) for name, tensor in empty(sizes).state_dict().items()}
    unused = {
        "blip.text_encoder.embeddings.position_ids": (1, sizes.max_position_embeddings),
        "blip.vision_proj.weight": (256, sizes.vision.hidden_size),
        "blip.text_proj.bias": (256,),
    }
    return {name: weight(name, shape) for name, shape in (own | unused).items()}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder in the published layout, of the fixture's sizes and weights."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(tensors(Sizes(**TINY["sizes"])), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(TINY["sizes"] | {"model_type": "bert"}))
    (folder / "vocab.txt").write_text("\n".join(TINY["vocabulary"]) + "\n")
    return folder


def reward(folder, **settings):
    return ImageReward(ImageReward.Config(weights=str(folder), **settings))


@pytest.fixture(scope="module")
def judge(published):
    """The reward; it has said already that it cuts texts."""
    made = reward(published)
    with pytest.warns(UserWarning, match="ImageReward reads 35 tokens .*: 'a red circle and"):
        made.score(torch.zeros(2, 3, 8, 8), [SHORT, LONG])
    return made


def image(name, height, width):
    return torch.from_numpy(picture(name, height, width)).permute(2, 0, 1)[None].float() / 255


IMAGES = [image(*described) for described in TINY["images"]]
PROMPTS = [Prompt(text) for text in TINY["prompts"]]


def all_scores(judge):
    """Float [prompts, images]."""
    rows = [judge.score(image.expand(len(PROMPTS), -1, -1, -1), PROMPTS) for image in IMAGES]
    return torch.stack(rows, dim=1)


# beside the package


def test_scores_are_the_packages(judge):
    expected = torch.tensor(TINY["scores"])
    assert expected.std() > 1
    assert (all_scores(judge) - expected).abs().max() < REFERENCE["tolerance"]


def test_a_prepared_image_is_the_packages_to_the_last_bit():
    for image, expected in zip(IMAGES, TINY["pixels"], strict=True):
        prepared = prepare(image, TINY["sizes"]["vision"]["image_size"])
        mean, std = (torch.tensor(of)[:, None, None] for of in (REFERENCE["mean"], REFERENCE["std"]))
        levels = (prepared[0] * std + mean) * 255
        torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
        assert hashlib.sha256(levels.round().to(torch.uint8).numpy().tobytes()).hexdigest() == expected


def test_tokens_are_the_packages(judge):
    ids, mask = judge._tokenize(TINY["prompts"])
    assert ids.shape == mask.shape == (len(PROMPTS), 35)
    kept = [row[:length].tolist() for row, length in zip(ids, mask.sum(dim=1), strict=True)]
    assert kept == TINY["tokens"]


def test_names_and_shapes_at_full_size_are_the_packages():
    shapes = {published_name(name): tuple(t.shape) for name, t in empty(Sizes()).state_dict().items()}
    listing = "\n".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))
    assert len(shapes) == REFERENCE["full"]["tensors"]
    assert hashlib.sha256(listing.encode()).hexdigest() == REFERENCE["full"]["names_sha256"]


# as a reward


def test_it_keeps_to_the_interface(judge):
    check_reward(judge)
    check_reward(judge, image_size=(48, 80))


def test_an_image_alone_scores_as_in_a_batch(judge):
    images = torch.cat([image("batch", 40, 40), image("of four", 40, 40)]).repeat(2, 1, 1, 1)
    prompts = [SHORT, LONG, PROMPTS[3], PROMPTS[4]]
    together = judge.score(images, prompts)
    alone = torch.cat([judge.score(images[i : i + 1], prompts[i : i + 1]) for i in range(4)])
    assert (together - alone).abs().max() < 1e-4  # of scores that differ by 1; rounding is 1e-6
    assert torch.equal(together, judge.score(images, prompts))


def test_a_cut_text_is_said_once_and_scores_as_what_was_read(judge, recwarn):
    first, second = (Prompt(TINY["prompts"][i]) for i in (8, 9))  # 33 words, which fit, and 34
    scores = judge.score(IMAGES[0].expand(2, -1, -1, -1), [first, second])
    assert scores[0] == scores[1]
    assert not recwarn.list


def test_bf16_scores_are_near_and_fp32_all_the_same(published, judge):
    half = reward(published, dtype="bf16")
    with pytest.warns(UserWarning, match="is cut"):
        scores = all_scores(half)
    assert scores.dtype == torch.float32
    difference = (scores - all_scores(judge)).abs()
    assert 0 < difference.max() < 0.5  # of scores of standard deviation 2
    assert {p.dtype for module in half.modules for p in module.parameters()} == {torch.float32}


def test_its_networks_are_listed_and_never_trained(judge):
    (network,) = judge.modules
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert network.text.embeddings.position_ids.device.type == "cpu"


def test_what_it_costs(published):
    parameters, flops = ImageReward.cost(ImageReward.Config())
    assert parameters == 446_206_689
    layer = 12 * 1024**2 + 2 * 197 * 1024  # multiplications a token
    vision = 24 * 197 * layer + 196 * 3 * 16**2 * 1024
    crossing = 12 * (2 * 197 * 1024 * 768 + 35 * (2 * 768 + 2 * 35 + 2 * 197) * 768)
    text = 12 * 35 * (4 * 768**2 + 2 * 768 * 3072) + crossing
    assert flops == pytest.approx(2 * (vision + text), rel=0.01)
    tiny = reward(published).modules[0]
    assert ImageReward.cost(ImageReward.Config(weights=str(published)))[0] == sum(
        p.numel() for p in tiny.parameters()
    )


def test_a_saved_network_is_loaded_again(judge, tmp_path):
    save_network(judge.modules[0], TINY["vocabulary"], tmp_path)
    saved = reward(tmp_path)
    assert torch.equal(saved.score(IMAGES[1], [SHORT]), judge.score(IMAGES[1], [SHORT]))


def test_a_new_network_can_be_trained():
    sizes = Sizes(**TINY["sizes"])
    ids = torch.tensor([TINY["tokens"][0]])
    network = ImageRewardNetwork(sizes)
    network(torch.randn(1, 3, 32, 32), ids, torch.ones_like(ids)).sum().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert without == set()


# what is wrong with a folder


def copy(published, folder):
    for path in published.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def resave(folder, change):
    found = torch.load(folder / "ImageReward.pt", weights_only=True)
    change(found)
    torch.save(found, folder / "ImageReward.pt")


def cut(folder):
    path = folder / "ImageReward.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def sizes(folder, **changes):
    path = folder / "med_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class Payload:
    def __reduce__(self):
        return os.mkdir, ("/nonexistent/payload",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "ImageReward.pt").unlink(), "holds no ImageReward.safetensors and no ImageReward.pt"),
        (cut, "ImageReward.pt' cannot be read"),
        (lambda f: torch.save({"a": Payload()}, f / "ImageReward.pt"), "holds more than tensors"),
        (lambda f: torch.save([1], f / "ImageReward.pt"), "holds no plain state dict"),
        (
            lambda f: resave(f, lambda t: t.pop("mlp.layers.0.bias")),
            r"does not fit ImageReward: 1 missing \(mlp.layers.0.bias\)",
        ),
        (
            lambda f: resave(f, lambda t: t.update(more=torch.zeros(1))),
            r"does not fit ImageReward: 1 unknown \(more\)",
        ),
        (
            lambda f: sizes(f, head=[8, 8, 8, 8]),
            r"of another shape \(mlp.layers.0.weight \(1024, 16\) for \(8, 16\)",
        ),
        (lambda f: sizes(f, num_hidden_layers=2), "26 unknown"),
        (lambda f: sizes(f, hidden_act="relu"), "med_config.json': hidden_act: Input should be 'gelu'"),
        (lambda f: sizes(f, vision={"image_sise": 32}), "vision.image_sise: Extra inputs"),
        (lambda f: sizes(f, num_attention_heads=3), "make no ImageReward: .*multiple of the number"),
        (lambda f: (f / "med_config.json").unlink(), "holds no med_config.json"),
        (lambda f: (f / "med_config.json").write_text("{"), "med_config.json' cannot be read"),
        (
            lambda f: (f / "vocab.txt").write_text("[PAD]\n[UNK]\n"),
            "vocab.txt' makes .* tokens with BLIP's two, and",
        ),
        (lambda f: (f / "vocab.txt").write_bytes(b"\xff\xfe"), "vocab.txt' is no tokenizer of BERT's"),
    ],
)
def test_a_folder_that_does_not_do_is_one_clear_line(published, tmp_path, change, message):
    change(copy(published, tmp_path))
    with pytest.raises(RecipeError, match=message) as error:
        reward(tmp_path)
    assert "\n" not in str(error.value)


def test_what_is_not_here_is_one_clear_line(published, tmp_path):
    for call in (
        lambda: load_network("nobody/nothing"),
        lambda: load_tokenizer(None, str(tmp_path), 30524),
        lambda: reward(published, tokenizer="nobody/nothing"),
    ):
        with pytest.raises(RecipeError, match="the hub could not be reached") as error:
            call()
        assert "\n" not in str(error.value)
    with pytest.raises(RecipeError, match="is no folder here, and no hub id"):
        load_network("/nowhere/at/all")


def test_the_published_model_is_the_default():
    assert ImageReward.Config().weights == image_reward_checkpoint.PUBLISHED == "THUDM/ImageReward"


# the command


def test_images_in_a_folder_are_judged(published, judge, tmp_path, cli):
    for index, prompt in enumerate((SHORT, PROMPTS[1])):
        folder = tmp_path / "images" / f"{index:05}"
        (folder / "samples").mkdir(parents=True)
        metadata = {"tag": "colors", "include": [{"class": "circle", "count": 1}], "prompt": prompt.text}
        (folder / "metadata.jsonl").write_text(json.dumps(metadata))
        for sample in range(2):
            save_png(picture(f"{index} {sample}", 40, 40), folder / "samples" / f"{sample:05}.png")
    shown = cli(
        *("eval", "image_reward", "--images", tmp_path / "images", "--out", tmp_path / "out"),
        *("--weights", published),
    )
    assert shown.code == 0, shown.err
    rows = [
        json.loads(line) for line in (tmp_path / "out/image_reward/results.jsonl").read_text().splitlines()
    ]
    expected = [
        judge.score(image(f"{index} {sample}", 40, 40), [prompt]).item()
        for index, prompt in enumerate((SHORT, PROMPTS[1]))
        for sample in range(2)
    ]
    assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-4)
    assert f"{sum(expected) / 4:.3f}" in shown.out


def save_png(array, path):
    Image.fromarray(array).save(path)


def test_a_misspelt_setting_of_the_command_is_one_line(cli, tmp_path):
    refused = cli("eval", "image_reward", "--images", tmp_path, "--set", "eval.image_reward.weihgts=x")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "eval.image_reward.weihgts: unknown key; did you mean 'weights'" in refused.err


# the tiny one


def test_the_tiny_one_prefers_what_was_asked_for():
    rng = np.random.default_rng(0)
    tiny = reward("package:maskrl/shapes/weights/image_reward")
    captions = [random_caption(rng) for _ in range(100)]
    scenes = [caption.scene(rng, list(COLORS)) for caption in captions]
    others = [near_miss(caption, rng).scene(rng, list(COLORS)) for caption in captions]
    right, wrong = (
        torch.from_numpy(np.stack([paint(scene) for scene in of])).permute(0, 3, 1, 2) / 255
        for of in (scenes, others)
    )
    prompts = [Prompt(caption.text(EVALUATION_PREFIX)) for caption in captions]
    better, worse = tiny.score(right, prompts), tiny.score(wrong, prompts)
    assert (better > worse).float().mean() > 0.75  # near misses may be right by chance
    assert -1 < worse.mean() < better.mean() < 2
