"""PickScore beside the public implementation at small sizes, its files, and what it promises as a reward."""

import json
from pathlib import Path

import pytest
import torch
from maskrl_pickscore import PickScore, load_tokenizer
from safetensors.torch import save_file

from maskrl.errors import RecipeError
from maskrl.testing import check_reward
from maskrl.types import Prompt

REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))
ROWS = REFERENCE["rows"]


@pytest.fixture
def folder(tmp_path, formula):
    """Model and tokenizer of the reference, in one folder."""
    letters = REFERENCE["letters"]
    joined = [merge.replace(" ", "") for merge in REFERENCE["merges"]]
    vocabulary = [*letters, *(f"{c}</w>" for c in letters), *joined, "<|startoftext|>", "<|endoftext|>"]
    files = {
        "config.json": json.dumps(REFERENCE["sizes"]),
        "vocab.json": json.dumps({token: i for i, token in enumerate(vocabulary)}),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "CLIPTokenizer"}),
        "merges.txt": "\n".join(["#version: 0.2", *REFERENCE["merges"], ""]),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    torch.save(formula(REFERENCE["shapes"]), tmp_path / "pytorch_model.bin")
    return tmp_path


def build(folder, **settings):
    return PickScore(PickScore.Config(model=str(folder), tokenizer=str(folder), **settings))


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", REFERENCE["tolerance"]), ("bf16", 0.15)])
@pytest.mark.filterwarnings("ignore:PickScore reads")
def test_scores_are_those_of_the_public_code(folder, picture, dtype, tolerance):
    reward = build(folder, dtype=dtype)
    scores = [float(reward.score(picture(*row["picture"]), [Prompt(row["prompt"])])) for row in ROWS]
    assert scores == pytest.approx([row["score"] for row in ROWS], abs=tolerance)


def test_bf16_computes_otherwise_and_keeps_its_weights(folder, picture):
    fp32, bf16 = (build(folder, dtype=dtype) for dtype in ("fp32", "bf16"))
    image, prompts = picture("one", 30, 30), [Prompt("a red circle")]
    assert float(fp32.score(image, prompts)) != float(bf16.score(image, prompts))
    assert {p.dtype for p in bf16.modules[0].parameters()} == {torch.float32}


def test_contract(folder):
    check_reward(build(folder), image_size=(40, 50))


def test_a_score_is_the_same_alone_and_in_a_batch(folder, picture):
    reward = build(folder)
    images = torch.cat([picture(str(i), 30, 40) for i in range(5)])
    prompts = [Prompt(text) for text in ("a circle", "x", "a circle", "a much longer prompt of two", "x")]
    alone = torch.cat([reward.score(images[i : i + 1], prompts[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(reward.score(images, prompts), alone, rtol=0, atol=1e-5)


def test_networks_are_listed_and_frozen(folder):
    (network,) = build(folder).modules
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_long_prompt_is_cut_and_named_once(folder, picture):
    reward, image, fits = build(folder), picture("one", 30, 30), "x " * 75  # and a start and an end
    whole = reward.score(image, [Prompt(fits)])
    with pytest.warns(UserWarning, match="77 tokens.*'(x ){30}…'$"):
        assert reward.score(image, [Prompt(fits + "a")]) == whole
    assert reward.score(image, [Prompt(fits + "b")]) == whole  # a second warning would be an error


def test_safetensors_come_first(folder, formula, picture):
    tensors = formula(REFERENCE["shapes"])
    score = float(build(folder).score(picture("one", 30, 30), [Prompt("x")]))
    save_file({**tensors, "logit_scale": torch.tensor(0.0)}, folder / "model.safetensors")
    without_scale = float(build(folder).score(picture("one", 30, 30), [Prompt("x")]))
    assert without_scale == pytest.approx(score / torch.tensor(3.0).exp().item(), rel=1e-5)


def test_numbers_that_old_files_hold_are_no_fault(folder):
    path = folder / "pytorch_model.bin"
    torch.save({**torch.load(path), "text_model.embeddings.position_ids": torch.arange(77)[None]}, path)
    build(folder)


def test_bad_weights_are_refused_in_one_line(folder, spoil):
    message = spoil(folder / "pytorch_model.bin")
    with pytest.raises(RecipeError, match=message) as caught:
        build(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", None, "holds no config.json"),
        ("config.json", "{", "cannot be read"),
        ("config.json", '{"model_type": "bert"}', "describes a 'bert', no 'clip'"),
        ("vocab.json", None, "the tokenizer in .* cannot be read"),
        ("vocab.json", "{", "the tokenizer in .* cannot be read"),
        ("tokenizer.json", "{}", "the tokenizer in .* cannot be read"),
    ],
)
def test_other_bad_files_are_refused_in_one_line(folder, name, text, message):
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message) as caught:
        build(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_refused(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(RecipeError, match=r"the tokenizer in .* cannot be read"):
        PickScore(PickScore.Config(model=str(folder), tokenizer=str(empty)))


def test_a_tokenizer_of_another_size_is_refused(folder):
    with pytest.raises(RecipeError, match="has 88 tokens, the network reads 49408"):
        load_tokenizer(str(folder), 49408)


def test_the_hub_is_named_when_it_cannot_be_reached(folder):
    with pytest.raises(RecipeError, match="'yuvalkirstain/PickScore_v1' is no folder here, and the hub"):
        PickScore(PickScore.Config())
    with pytest.raises(RecipeError, match=r"the tokenizer 'laion/CLIP-ViT-H-14.* the hub could not"):
        PickScore(PickScore.Config(model=str(folder)))


def test_cost_is_that_of_the_network(folder):
    reward = build(folder)
    parameters, flops = PickScore.cost(reward.config)
    assert parameters == sum(p.numel() for p in reward.modules[0].parameters())
    sizes = REFERENCE["sizes"]
    patches = (28 // 14) ** 2
    pixels = 2 * patches * (3 * 14 * 14) * 48
    projections = 2 * (48 + 32) * 16
    by_hand = layers(sizes["vision_config"], patches + 1) + layers(sizes["text_config"], 77)
    assert flops == by_hand + pixels + projections


def layers(sizes, tokens):
    """FLOPs of the matrix products in a transformer's layers."""
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    per_layer = 2 * tokens * width * (4 * width + 2 * inner) + 4 * tokens**2 * width
    return sizes["num_hidden_layers"] * per_layer
