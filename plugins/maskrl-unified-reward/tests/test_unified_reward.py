"""UnifiedReward: its question, its answers, its files, and what it promises as a reward."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_qwen
import torch
from maskrl_unified_reward import UnifiedReward, by_text
from maskrl_unified_reward.pictures import prepare
from maskrl_unified_reward.question import LONGEST_ANSWER, QUESTION, SHOWN, read_score
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_qwen import COLORS, plain
from torchvision.transforms.v2.functional import normalize
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from maskrl import registry
from maskrl.errors import RecipeError, TrainingError
from maskrl.pixels import to_bytes
from maskrl.recipe import read_recipe
from maskrl.testing import PROMPTS, check_reward
from maskrl.types import Prompt

RED, GREEN, BLUE = (plain(color) for color in COLORS)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A folder in the published layout whose network knows the scores of plain colours."""
    return tiny_qwen.write(tmp_path_factory.mktemp("learnt"), learns=True)


@pytest.fixture
def folder(learnt, tmp_path):
    """A copy of it, to spoil."""
    return shutil.copytree(learnt, tmp_path / "model")


def build(folder, **settings):
    return UnifiedReward(UnifiedReward.Config(model=str(folder), **{"dtype": "fp32", **settings}))


def test_the_question_is_the_published_one():
    asked = QUESTION.format(prompt="a red circle")  # of the public code at ff6f520, with this prompt
    digest = "8abec02f6007354215a8a9e33a6a207691beb15bd4ffbdfc303469b6195d196c"
    assert hashlib.sha256(asked.encode()).hexdigest() == digest


def watch_generate(monkeypatch, reward, answer):
    """Let the network's place be taken by a function from a picture's mean colour, [3], to an answer."""
    seen, processor = [], reward._processor
    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)

    def generate(input_ids, pixel_values, image_grid_thw, **others):
        seen.append({"input_ids": input_ids, "pixel_values": pixel_values, "grid": image_grid_thw})
        rows = pixel_values.unflatten(0, (len(input_ids), -1)).unflatten(-1, (3, -1)).mean(dim=(1, 3))
        texts = [answer((row * std + mean).round(decimals=3).tolist()) + "<|im_end|>" for row in rows]
        said = processor.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt").input_ids
        return torch.cat([input_ids, said], dim=1)

    monkeypatch.setattr(reward.modules[0], "generate", generate)
    return seen


def test_question_and_picture_reach_the_network(learnt, picture, monkeypatch):
    reward, image = build(learnt), picture("some", 40, 50)
    seen = watch_generate(monkeypatch, reward, lambda color: "Final Score: 3")
    reward.score(image, [Prompt("a {red} circle, “café”")])
    (inputs,) = seen
    question = QUESTION.replace("{prompt}", "a {red} circle, “café”")
    tokens = 56 * 84 // 28**2  # what qwen-vl-utils makes of 40 x 50 pixels
    assert reward._processor.decode(inputs["input_ids"][0]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"<|vision_start|>{'<|image_pad|>' * tokens}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    resized = Image.fromarray(to_bytes(image)[0]).resize((84, 56), Image.Resampling.BICUBIC)
    levels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
    pixels = normalize(levels / 255, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    assert inputs["grid"].tolist() == [[1, 4, 6]]
    first = inputs["pixel_values"][0].reshape(3, 2, 14, 14)  # a still picture is two equal frames
    torch.testing.assert_close(first, pixels[:, None, :14, :14].expand(3, 2, 14, 14), rtol=0, atol=1e-5)
    last = inputs["pixel_values"][-1].reshape(3, 2, 14, 14)
    torch.testing.assert_close(last, pixels[:, None, -14:, -14:].expand(3, 2, 14, 14), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("found", "read"),  # (height, width), and what qwen-vl-utils 0.0.8 makes of it
    [
        ((256, 256), (252, 252)),
        ((512, 512), (504, 504)),
        ((1024, 1024), (1036, 1036)),
        ((20, 300), (28, 308)),
        ((28, 28), (56, 56)),
    ],
)
def test_pictures_have_the_published_sizes(found, read):
    (shown,) = prepare(torch.zeros(1, 3, *found))
    assert (shown.height, shown.width) == read


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("circle (object): 1\nred (color): 0\nFinal Score: 3.5", 3.5),
        ("Final Score: 5", 5),
        ("Final Score:1", 1),
        ("Final Score:  2.694700002670288 \n", 2.694700002670288),
        ("Final Score:\n4.0\nThe circle is red.", 4),
    ],
)
def test_the_score_is_read(answer, score):
    assert read_score(answer, "a red circle") == score


@pytest.mark.parametrize(
    "answer",
    [
        *("", "3.5", "Score: 3", "Final Score:", "Final Score: high", "final score: 3", "Final Score: three"),
        *("Final Score: 0", "Final Score: 0.99", "Final Score: 5.01", "Final Score: 45", "Final Score: -3"),
        *(
            "Final Score: 4/5",
            "Final Score: 4 out of 5",
            "Final Score: 3-4",
            "Final Score: 3.",
            "Final Score: .5",
        ),
        *("Final Score: nan", "Final Score: 3e0", "Final Score: 3,5", "Final Score: ٣", "**Final Score:** 4"),
        *("Final Score: 3\nFinal Score: 4", "assign a score after 'Final Score:'.\nFinal Score: 4"),
    ],
)
def test_what_is_no_score_is_an_error_with_prompt_and_answer(answer):
    with pytest.raises(TrainingError) as caught:
        read_score(answer, "a red circle")
    said = str(caught.value)
    assert said.startswith("UnifiedReward has no score of a picture for 'a red circle'")
    assert said.endswith(f"it answered {answer!r}")
    assert "\n" not in said


def test_of_a_long_answer_the_end_is_told():
    with pytest.raises(TrainingError, match=rf"it answered '…x{{{SHOWN - 15}}}\\nFinal Score: 9'$"):
        read_score("x" * 1000 + "\nFinal Score: 9", "a red circle")


def test_scores_are_those_of_their_own_pictures(learnt, monkeypatch):
    reward = build(learnt, batch=2)
    seen = watch_generate(monkeypatch, reward, lambda color: f"Final Score: {1 + sum(color):.3f}")
    images = torch.cat([plain((value, 0.4, 0.0)) for value in (0.0, 0.2, 0.4, 0.6, 0.8)])
    prompts = [Prompt(text) for text in ("a", "b", "a", "a", "b")]
    found = reward.score(images, prompts)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([1.4, 1.6, 1.8, 2.0, 2.2], abs=2e-3)
    assert [len(inputs["input_ids"]) for inputs in seen] == [2, 1, 2]  # of one prompt, two at most


def test_one_bad_answer_is_the_error_of_all(learnt, monkeypatch):
    reward = build(learnt)
    watch_generate(
        monkeypatch, reward, lambda color: "Final Score: 3" if color[0] else "I cannot see\na picture."
    )
    with pytest.raises(TrainingError, match=r"for 'a star', .* it answered 'I cannot see\\na picture\.'$"):
        reward.score(torch.cat([RED, BLUE]), [Prompt("a circle"), Prompt("a star")])


@pytest.mark.parametrize(("dtype", "batch"), [("fp32", 1), ("fp32", 4), ("bf16", 1)])
def test_a_network_that_learnt_gives_its_scores(learnt, dtype, batch):
    reward = build(learnt, dtype=dtype, batch=batch)
    images = torch.cat([BLUE, RED, GREEN, RED, RED, BLUE])
    prompts = [PROMPTS[i] for i in (0, 1, 2, 2, 1, 0)]
    expected = [5.0, 1.5, 3.0, 1.5, 1.5, 5.0]
    assert reward.score(images, prompts).tolist() == expected
    alone = [float(reward.score(images[i : i + 1], prompts[i : i + 1])) for i in range(6)]
    assert alone == expected


def test_contract(learnt):
    check_reward(build(learnt, batch=16), images=torch.cat([RED, GREEN, BLUE]))


def test_a_network_of_random_weights_gives_no_score(tmp_path):
    reward = build(tiny_qwen.write(tmp_path / "random"))
    reward.modules[0].generation_config.max_new_tokens = 8
    with pytest.raises(
        TrainingError, match=r"has no score of a picture for 'x', which is 'Final Score:' and"
    ):
        reward.score(RED, [Prompt("x")])


def test_an_answer_without_an_end_is_refused(learnt):
    reward = build(learnt)
    answers = reward.modules[0].generation_config
    assert answers.max_new_tokens == LONGEST_ANSWER
    answers.max_new_tokens = 5  # "Final Score: 1" of "Final Score: 1.5"
    with pytest.raises(TrainingError, match=rf"its answer has no end within {LONGEST_ANSWER} tokens$"):
        reward.score(RED, [PROMPTS[0]])


def edit(file, change):
    found = json.loads(file.read_text(encoding="utf-8"))
    change(found)
    file.write_text(json.dumps(found), encoding="utf-8")


def test_answers_are_drawn_from_nothing_and_the_rest_of_the_folders_wishes_stay(folder):
    wishes = {"do_sample": True, "temperature": 1e9, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.03}
    edit(folder / "generation_config.json", lambda found: found.update(wishes))
    reward = build(folder)
    assert reward.score(torch.cat([RED, BLUE]), PROMPTS[:2]).tolist() == [1.5, 5.0]
    assert reward.modules[0].generation_config.repetition_penalty == 1.03


def test_its_network_is_listed_and_frozen(learnt):
    for dtype, found in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        (network,) = build(learnt, dtype=dtype).modules
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert {parameter.dtype for parameter in network.parameters()} == {found}


@pytest.mark.parametrize("mark", ["<|image_pad|>", "<|im_end|>", "<|vision_start|>"])
def test_a_prompt_with_a_mark_of_the_network_is_refused(learnt, mark):
    reward = build(learnt)
    reward.check(PROMPTS)
    with pytest.raises(RecipeError, match=r"cannot read 'a .* dog': .* is a mark of its own"):
        reward.check([*PROMPTS, Prompt(f"a {mark} dog")])


def test_pictures_are_asked_about_with_those_of_their_prompt():
    assert by_text(["a", "b", "a", "a"], 2) == [[0, 2], [3], [1]]
    assert by_text(["a", "b", "a"], 1) == [[0], [2], [1]]


def shards(folder):
    return sorted(folder.glob("model-*.safetensors"))


def drop(folder):
    tensors = load_file(shards(folder)[0])
    name = next(iter(tensors))
    save_file(
        {key: tensor for key, tensor in tensors.items() if key != name}, shards(folder)[0], {"format": "pt"}
    )
    edit(folder / "model.safetensors.index.json", lambda found: found["weight_map"].pop(name))


def add(folder):
    tensors = load_file(shards(folder)[0])
    save_file({**tensors, "more": torch.zeros(1)}, shards(folder)[0], {"format": "pt"})
    edit(
        folder / "model.safetensors.index.json", lambda f: f["weight_map"].update(more=shards(folder)[0].name)
    )


SPOILS = {
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json"),
    "another network": (
        lambda f: edit(f / "config.json", lambda found: found.update(model_type="llava_onevision")),
        "describes a 'llava_onevision', no 'qwen2_5_vl'",
    ),
    "other sizes": (
        lambda f: edit(f / "config.json", lambda found: found["text_config"].update(intermediate_size=48)),
        "do not fit their config.json: 3 of another shape",
    ),
    "no weights": (lambda f: [s.unlink() for s in f.glob("model*")], "the network in .* cannot be read"),
    "a shard less": (lambda f: shards(f)[0].unlink(), "the network in .* cannot be read"),
    "half a shard": (
        lambda f: shards(f)[0].write_bytes(shards(f)[0].read_bytes()[:-99]),
        "the network in .* cannot be read",
    ),
    "a tensor less": (drop, "do not fit their config.json: 1 missing"),
    "a tensor more": (add, "do not fit their config.json: 1 unknown, more among them"),
    "no end": (
        lambda f: edit(f / "generation_config.json", lambda found: found.pop("eos_token_id")),
        "does not say how an answer ends",
    ),
    "no processor": (
        lambda f: [p.unlink() for p in f.glob("*processor_config.json")],
        "the processor in .* cannot be read",
    ),
    "no tokenizer": (
        lambda f: [
            (f / name).unlink(missing_ok=True) for name in ("tokenizer.json", "vocab.json", "merges.txt")
        ],
        "the (processor|tokenizer) in ",
    ),
    "no chat template": (lambda f: (f / "chat_template.jinja").unlink(), "holds no chat template"),
    "another tokenizer": (
        lambda f: edit(f / "config.json", lambda found: found.update(image_token_id=3)),
        "of 547 tokens, is not that of the network: pictures are token 545 to it, and 3 to the network",
    ),
}


@pytest.mark.parametrize("fault", SPOILS)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(folder, fault):
    spoil, said = SPOILS[fault]
    spoil(folder)
    with pytest.raises(RecipeError, match=said) as caught:
        build(folder)
    assert "\n" not in str(caught.value)


def test_the_hub_is_named_when_it_cannot_be_reached():
    with pytest.raises(
        RecipeError, match="'CodeGoat24/UnifiedReward-qwen-7b' is no folder here, and the hub"
    ):
        UnifiedReward(UnifiedReward.Config())
    with pytest.raises(RecipeError, match="no folder here, and no hub id"):
        build("/nowhere")


def test_its_recipe_is_valid(monkeypatch):
    offer = registry.Offer(
        "rewards",
        "unified_reward",
        "maskrl-unified-reward",
        "0.1.0",
        "maskrl_unified_reward:UnifiedReward",
        1,
    )
    found = [one for one in registry.installed() if one.name != offer.name]
    monkeypatch.setattr(registry, "installed", lambda: [*found, offer])
    path = Path(__file__).parents[1] / "src/maskrl_unified_reward/recipes/showo_clip_watched.toml"
    recipe = read_recipe(path)
    assert recipe.reward.name == "clip"
    assert recipe.watch.rewards["judge"].component is UnifiedReward
