"""HPSv2 beside the package hpsv2 at small sizes, its files, and what it promises as a reward."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from maskrl_hpsv2 import FILES, HPSv2, prepare

from maskrl.errors import RecipeError
from maskrl.testing import check_reward
from maskrl.types import Prompt

REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))
ROWS = REFERENCE["rows"]
TINY = "hpsv2-tiny"


@pytest.fixture(scope="module")
def _architecture(tmp_path_factory):
    """Make open_clip know the architecture of the reference."""
    path = tmp_path_factory.mktemp("open_clip") / f"{TINY}.json"
    path.write_text(json.dumps(REFERENCE["sizes"]), encoding="utf-8")
    open_clip.add_model_config(path)


@pytest.fixture
def folder(_architecture, tmp_path, formula):
    """The file of version 2.1, as published: with more in it than weights."""
    torch.save({"epoch": 3, "state_dict": formula(REFERENCE["shapes"])}, tmp_path / FILES["2.1"])
    return tmp_path


def build(weights, **settings):
    return HPSv2(HPSv2.Config(model=TINY, weights=str(weights), **settings))


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", REFERENCE["tolerance"]), ("bf16", 0.01)])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.filterwarnings("ignore:HPSv2 reads")
def test_scores_are_those_of_the_package(folder, picture, dtype, tolerance, antialias):
    reward = build(folder, dtype=dtype, antialias=antialias)
    scores = [float(reward.score(picture(*row["picture"]), [Prompt(row["prompt"])])) for row in ROWS]
    theirs = [row["score" if antialias else "score_without_antialias"] for row in ROWS]
    assert scores == pytest.approx(theirs, abs=tolerance)


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
    torch.testing.assert_close(reward.score(images, prompts), alone, rtol=0, atol=1e-6)


def test_networks_are_listed_and_frozen(folder):
    (network,) = build(folder).modules
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(("height", "width"), [(28, 12), (12, 28), (56, 23), (14, 9)])
def test_nothing_is_cropped_and_black_is_around(folder, height, width):
    """Of a white picture the network sees all: white in the middle, black beside it, whatever the size."""
    prepared = prepare(torch.ones(1, 3, height, width), 28, antialias=True)
    mean, std = (
        torch.tensor(numbers)[:, None, None]
        for numbers in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    seen = prepared[0] * std + mean
    share = min(height, width) / max(height, width)
    assert prepared.shape == (1, 3, 28, 28)
    assert float(seen.mean()) == pytest.approx(round(28 * share) / 28, abs=1e-5)
    assert float(seen[:, 14, 14].min()) == pytest.approx(1, abs=1e-5)


def test_a_long_prompt_is_cut_and_named_once(folder, picture):
    reward, image, fits = build(folder), picture("one", 30, 30), "cat " * 75  # and a start and an end
    whole = reward.score(image, [Prompt(fits)])
    with pytest.warns(UserWarning, match="77 tokens.*'(cat ){15}…'$"):
        assert reward.score(image, [Prompt(fits + "a")]) == whole
    assert reward.score(image, [Prompt(fits + "b")]) == whole  # a second warning would be an error


def test_the_version_chooses_the_file(folder, picture, formula):
    tensors = formula(REFERENCE["shapes"])
    torch.save({"state_dict": {**tensors, "visual.proj": -tensors["visual.proj"]}}, folder / FILES["2.0"])
    scores = [
        float(build(weights, version=version).score(picture("one", 30, 30), [Prompt("x")]))
        for version in ("2.0", "2.1")
        for weights in (folder, folder / FILES[version])
    ]
    assert scores[0] == scores[1] == -scores[2] == -scores[3]
    with pytest.raises(RecipeError, match=r"is the file of version 2\.0; write version = '2\.0'"):
        build(folder / FILES["2.0"], version="2.1")
    with pytest.raises(ValueError, match="version"):
        HPSv2.Config(version="2")


def test_bad_weights_are_refused_in_one_line(folder, spoil):
    message = spoil(folder / FILES["2.1"])
    with pytest.raises(RecipeError, match=message) as caught:
        build(folder)
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_is_refused(folder):
    settings = {"model": "ViT-H-15", "weights": str(folder)}
    with pytest.raises(RecipeError, match="no architecture 'ViT-H-15'"):
        HPSv2(HPSv2.Config(**settings))
    with pytest.raises(RecipeError, match="no architecture 'ViT-H-15'"):
        HPSv2.cost(HPSv2.Config(**settings))


def test_the_hub_is_named_when_it_cannot_be_reached():
    with pytest.raises(RecipeError, match="'xswu/HPSv2' is no folder here, and the hub"):
        HPSv2(HPSv2.Config())


def test_cost_is_that_of_the_network(folder):
    reward = build(folder)
    parameters, flops = HPSv2.cost(reward.config)
    assert parameters == sum(p.numel() for p in reward.modules[0].parameters())
    patches = (28 // 14) ** 2
    pixels = 2 * patches * (3 * 14 * 14) * 64
    projections = 2 * (64 + 32) * 16
    assert flops == layers(patches + 1, 64) + layers(77, 32) + pixels + projections


def test_cost_of_the_published_size_needs_no_file():
    parameters, flops = HPSv2.cost(HPSv2.Config())
    assert parameters == pytest.approx(986e6, rel=0.001)
    assert flops == pytest.approx(0.38e12, rel=0.05)


def layers(tokens, width):
    """FLOPs of the matrix products in the two layers of a transformer."""
    return 2 * (2 * tokens * width * 12 * width + 4 * tokens**2 * width)


@pytest.mark.parametrize("size", [(1, 448), (448, 1), (1, 1)])
def test_a_strip_keeps_a_pixel(size):
    prepared = prepare(torch.ones(1, 3, *size), 28, antialias=True)
    assert prepared.shape == (1, 3, 28, 28)
    assert prepared.isfinite().all()
