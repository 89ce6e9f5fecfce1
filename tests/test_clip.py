"""Loading a CLIP: which activation its weights were trained with, and what cannot be loaded."""

import warnings

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from maskrl.clip import load_clip, trained_with_quick_gelu
from maskrl.component import open_path
from maskrl.errors import RecipeError
from maskrl.rewards.clip import Clip
from maskrl.types import Prompt

SHIPPED = "package:maskrl/shapes/weights/clip"


@pytest.mark.parametrize(
    ("model", "pretrained", "quick"),
    [
        ("ViT-L-14", "openai", True),
        ("ViT-L-14-quickgelu", "openai", True),
        ("ViT-L-14", "laion2b_s32b_b82k", False),
        ("ViT-L-14", "some/file.safetensors", False),
        ("local-dir:folder", None, False),
    ],
)
def test_which_weights_were_trained_with_quick_gelu(model, pretrained, quick):
    assert trained_with_quick_gelu(model, pretrained) is quick


def test_without_being_told_open_clip_takes_another_activation():
    with torch.device("meta"):
        plain, quick = (
            open_clip.create_model("ViT-B-32", force_quick_gelu=force, device="meta")
            for force in (False, True)
        )
    kinds = [{type(m).__name__ for m in network.modules()} for network in (plain, quick)]
    assert ["QuickGELU" in kind for kind in kinds] == [False, True]
    assert ["GELU" in kind for kind in kinds] == [True, False]


def test_a_folder_is_loaded_frozen():
    network, tokenizer = load_clip(SHIPPED, "openai")
    stored = load_file(f"{open_path(SHIPPED)}/open_clip_model.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in network.state_dict().items())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert tokenizer(["a red circle"]).shape == (1, network.context_length)


@pytest.mark.parametrize(
    ("model", "pretrained"), [("ViT-L-15", "openai"), ("ViT-B-32", "no_such_tag"), ("ViT-B-32", None)]
)
def test_what_cannot_be_loaded_is_named(model, pretrained):
    with pytest.raises(RecipeError, match=f"CLIP '{model}'") as caught:
        load_clip(model, pretrained)
    assert "cannot be loaded" in str(caught.value)


def score(texts, **settings):
    images = torch.rand(len(texts), 3, 48, 48, generator=torch.Generator().manual_seed(0))
    clip = Clip(Clip.Config(model=SHIPPED, **settings))
    return clip, clip.score(images, [Prompt(text) for text in texts])


def test_bf16_scores_are_near_and_still_fp32():
    texts = ["a red circle", "two blue squares", "a star"]
    (_, exact), (_, near) = score(texts), score(texts, dtype="bf16")
    assert near.dtype == torch.float32
    assert not torch.equal(exact, near)
    torch.testing.assert_close(near, exact, rtol=0, atol=1.0)  # of 200


def test_a_prompt_that_is_cut_is_said_once():
    long = "a red circle and " * 30 + "a star"
    with pytest.warns(UserWarning, match=r"CLIP reads \d+ tokens .*a red circle and a red circle") as said:
        clip, scores = score(["a red circle", long, long + " too"])
    assert len(said) == 1
    assert str(said[0].message).endswith("cir…'")
    assert len(str(said[0].message)) < 160
    assert scores[1] != scores[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.score(torch.zeros(1, 3, 48, 48), [Prompt(long)])
        full = " ".join(["red"] * (clip._network.context_length - 2))  # with both ends, as long as can be
        Clip(Clip.Config(model=SHIPPED)).score(torch.zeros(1, 3, 48, 48), [Prompt(full)])
