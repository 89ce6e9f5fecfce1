"""Loading a CLIP: which activation its weights were trained with, and what cannot be loaded."""

import io
import json
import shutil
import warnings
from pathlib import Path

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


@pytest.fixture
def folder(tmp_path):
    """The shipped CLIP, in a folder of its own."""
    return Path(shutil.copytree(open_path(SHIPPED), tmp_path / "clip"))


def change(folder, **text):
    path = folder / "open_clip_config.json"
    settings = json.loads(path.read_text())
    settings["model_cfg"]["text_cfg"] |= text
    path.write_text(json.dumps(settings))


def with_code(folder, kind):
    """Make a folder that transformers reads by running what lies in it."""
    folder.mkdir(exist_ok=True)
    (folder / "evil.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\nclass Evil: pass\n")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {kind: "evil.Evil"}, "tokenizer_class": "Evil"})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}})
    )
    return folder


def test_a_folder_never_runs_the_code_that_it_names(folder, tmp_path, monkeypatch):
    evil = with_code(tmp_path / "evil", "AutoConfig")
    change(folder, hf_model_name=str(evil))
    for loaded in (lambda: load_clip(str(folder), None), lambda: Clip.cost(Clip.Config(model=str(folder)))):
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 5))
        with pytest.raises(RecipeError) as refused:
            loaded()
        assert "\n" not in str(refused.value)
        assert not (evil / "sprung").exists()


@pytest.mark.parametrize("kwargs", [{}, {"trust_remote_code": True}])
def test_a_folders_tokenizer_runs_no_code_either(folder, monkeypatch, kwargs):
    with_code(folder, "AutoConfig")
    change(folder, hf_tokenizer_name="here", tokenizer_kwargs=kwargs)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 5))
    with pytest.raises(RecipeError, match="wants to run code that lies with it, which maskrl never does"):
        load_clip(str(folder), None)
    assert not (folder / "sprung").exists()


def test_half_a_file_is_one_line(folder):
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(RecipeError, match=r"^CLIP '.*' with .* cannot be loaded: .*incomplete"):
        load_clip(str(folder), None)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (Path("/tmp"), "holds more than tensors and was not opened: it could run code"),
        ([1, 2], "cannot be loaded"),
        ({}, "cannot be loaded"),
        ({"logit_scale": torch.zeros(3)}, "cannot be loaded"),
    ],
)
def test_a_pickle_that_will_not_do_is_one_line(tmp_path, content, complaint):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(RecipeError, match=complaint) as refused:
        load_clip("RN50", str(tmp_path / "weights.pt"))
    assert "\n" not in str(refused.value)
    assert "weights_only" not in str(refused.value)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_cfg": {"text_cfg": 3}}', "[" * 5000])
def test_settings_that_describe_no_clip_are_one_line(folder, content):
    (folder / "open_clip_config.json").write_text(content)
    for loaded in (lambda: load_clip(str(folder), None), lambda: Clip.cost(Clip.Config(model=str(folder)))):
        with pytest.raises(RecipeError, match=r"open_clip_config\.json") as refused:
            loaded()
        assert "\n" not in str(refused.value)


def test_a_setting_that_no_clip_has_is_one_line(folder):
    change(folder, colour=3)
    for loaded in (lambda: load_clip(str(folder), None), lambda: Clip.cost(Clip.Config(model=str(folder)))):
        with pytest.raises(RecipeError, match="colour"):
            loaded()
