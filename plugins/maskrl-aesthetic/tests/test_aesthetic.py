"""The aesthetic predictor beside the public code at small sizes, its files, and what it promises as a reward."""

import json
from pathlib import Path

import pytest
import torch
from maskrl_aesthetic import FILE, Aesthetic
from safetensors.torch import save_file

from maskrl.errors import RecipeError
from maskrl.testing import check_reward
from maskrl.types import Prompt

REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))
ROWS = REFERENCE["rows"]


@pytest.fixture
def folder(tmp_path, formula):
    """CLIP and predictor of the reference, in one folder."""
    (tmp_path / "config.json").write_text(json.dumps(REFERENCE["sizes"]), encoding="utf-8")
    torch.save(formula(REFERENCE["clip_shapes"]), tmp_path / "pytorch_model.bin")
    torch.save(formula(REFERENCE["predictor_shapes"]), tmp_path / FILE)
    return tmp_path


def build(folder, **settings):
    return Aesthetic(Aesthetic.Config(weights=str(folder / FILE), clip=str(folder), **settings))


def rate(reward, image):
    return float(reward.score(image, [Prompt("a red circle")]))


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", REFERENCE["tolerance"]), ("bf16", 0.5)])
def test_scores_are_those_of_the_public_code(folder, picture, dtype, tolerance):
    reward = build(folder, dtype=dtype)
    scores = [rate(reward, picture(*row["picture"])) for row in ROWS]
    assert scores == pytest.approx([row["score"] for row in ROWS], abs=tolerance)


def test_bf16_computes_otherwise_and_keeps_its_weights(folder, picture):
    fp32, bf16 = (build(folder, dtype=dtype) for dtype in ("fp32", "bf16"))
    assert rate(fp32, picture("one", 30, 30)) != rate(bf16, picture("one", 30, 30))
    assert {p.dtype for module in bf16.modules for p in module.parameters()} == {torch.float32}


def test_contract(folder):
    check_reward(build(folder), image_size=(40, 50))


def test_a_score_is_the_same_alone_and_in_a_batch_whatever_the_prompt(folder, picture):
    reward = build(folder)
    images = torch.cat([picture(str(i), 30, 40) for i in range(5)])
    alone = torch.cat([reward.score(images[i : i + 1], [Prompt(str(i))]) for i in range(5)])
    torch.testing.assert_close(reward.score(images, [Prompt("x")] * 5), alone, rtol=0, atol=2e-5)


def test_networks_are_listed_and_frozen(folder):
    modules = build(folder).modules
    assert len(modules) == 2
    assert not any(module.training for module in modules)
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())


def test_the_file_of_a_whole_clip_will_do(folder, formula, picture):
    score = rate(build(folder), picture("one", 30, 30))
    (folder / "pytorch_model.bin").unlink()
    others = {
        "logit_scale": torch.tensor(1.0),
        "text_projection.weight": torch.zeros(24, 8),
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
    }
    save_file({**formula(REFERENCE["clip_shapes"]), **others}, folder / "model.safetensors")
    assert rate(build(folder), picture("one", 30, 30)) == score


@pytest.mark.parametrize("name", [FILE, "pytorch_model.bin"])
def test_bad_weights_are_refused_in_one_line(folder, spoil, name):
    message = spoil(folder / name)
    with pytest.raises(RecipeError, match=message) as caught:
        build(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read"), ('{"model_type": "bert"}', "describes a 'bert', no 'clip'")],
)
def test_a_bad_config_is_refused_in_one_line(folder, text, message):
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message) as caught:
        build(folder)
    assert "\n" not in str(caught.value)


def test_where_the_file_is_to_be_had_is_said(folder):
    with pytest.raises(
        RecipeError, match=r"no file 'x\.pth'.*christophschuhmann/improved-aesthetic-predictor"
    ):
        Aesthetic(Aesthetic.Config(weights="x.pth", clip=str(folder)))


def test_the_hub_is_named_when_it_cannot_be_reached(folder):
    with pytest.raises(RecipeError, match="'openai/clip-vit-large-patch14' is no folder here, and the hub"):
        Aesthetic(Aesthetic.Config(weights=str(folder / FILE)))


def test_cost_is_that_of_the_networks(folder):
    reward = build(folder)
    parameters, flops = Aesthetic.cost(reward.config)
    assert parameters == sum(p.numel() for module in reward.modules for p in module.parameters())
    tokens, width, features = 5, 128, 24
    layers = 2 * (2 * tokens * width * 12 * width + 4 * tokens**2 * width)
    pixels = 2 * (tokens - 1) * (3 * 14 * 14) * width
    predictor = 2 * (features * 1024 + 1024 * 128 + 128 * 64 + 64 * 16 + 16)
    assert flops == layers + pixels + 2 * width * features + predictor
