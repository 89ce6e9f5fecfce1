"""The recipes that come with maskrl."""

import json
import math

import pytest

from maskrl.recipe import read_recipe
from maskrl.recipes_at_hand import shipped_recipes
from maskrl.runtime.prompts import training_prompts
from maskrl.training.plan import plan

GIB = 2**30
NO_DATASET = ("prompts.limit=", "prompts.min_words=", "prompts.max_words=")


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_recipe_is_valid(name):
    recipe = read_recipe(name)
    assert recipe.training.updates > 0
    assert read_recipe(name).digest() == recipe.digest()


SHOWO = ("showo_256_clip", "showo_clip", "showo_clip_lora", "showo_clip_released")


def test_the_papers_run_has_the_papers_values():
    recipe = read_recipe("showo_clip")
    assert recipe.generator.settings()["checkpoint"] == "showlab/show-o-512x512"
    assert recipe.transition.name == "p_theta1"
    assert recipe.filter.settings()["percentile"] == 10
    assert recipe.reducer.name == "none"
    grpo, training = recipe.grpo, recipe.training
    assert (grpo.group_size, grpo.num_steps, grpo.kl_coef) == (6, 50, 0)
    assert grpo.group_size * training.prompts_per_update == 96
    assert training.updates * training.prompts_per_update == recipe.prompts.limit == 10_000
    assert (training.learning_rate, training.betas, training.weight_decay) == (3e-6, (0.9, 0.95), 0.02)
    assert (recipe.sampling.guidance_train, recipe.sampling.guidance_eval) == (0, 5)


@pytest.mark.parametrize("name", SHOWO)
def test_what_the_released_loop_says_is_in_every_recipe_of_show_o(name):
    recipe = read_recipe(name)
    reward, training = recipe.reward.settings(), recipe.training
    assert (reward["model"], reward["pretrained"]) == ("ViT-H-14", "laion2b_s32b_b79k")
    assert (training.updates, training.lr_schedule, training.decay) == (625, "cosine", "matrices")
    ticks, processes = 16_000, 16  # of a scheduler that ticks once for every process
    assert training.schedule_updates == ticks / processes
    assert training.warmup_updates == math.ceil(1_000 / processes)


def test_the_released_run_is_one_process_of_it():
    written, released = (
        read_recipe(name).model_dump(mode="json") for name in ("showo_clip", "showo_clip_released")
    )
    different = {key for key in written if written[key] != released[key]}
    assert different == {"transition", "filter", "prompts", "training"}
    assert released["transition"]["name"] == "p_theta2"
    assert released["filter"]["name"] == "keep_all"
    assert released["training"] == {**written["training"], "prompts_per_update": 1}
    assert released["prompts"] == {**written["prompts"], "column": "org_caption"}


def test_the_authors_kind_of_prompt_file_is_read(tmp_path):
    file = tmp_path / "captions.json"
    file.write_text(
        json.dumps([{"image": "1.jpg", "caption": "a red barn"}, {"caption": "two dogs on a beach"}])
    )
    changes = (f"prompts.train={file}", "prompts.column=caption", *NO_DATASET)
    prompts = training_prompts(read_recipe("showo_clip_released", changes).prompts)
    assert [prompt.text for prompt in prompts] == ["a red barn", "two dogs on a beach"]


@pytest.mark.parametrize(
    ("name", "device", "least", "most"),
    [
        pytest.param("showo_clip", 40, 20, 26, marks=pytest.mark.slow),
        ("showo_clip_released", 40, 1.2, 1.6),
        pytest.param("showo_256_clip", 40, 1.5, 2, marks=pytest.mark.slow),
        pytest.param("showo_clip_lora", 24, 15, 20, marks=pytest.mark.slow),
    ],
)
def test_recipes_fit_the_devices_and_the_days_that_they_name(name, device, least, most):
    made = plan(read_recipe(name), text_tokens=60, processes=1)
    assert made.peak < 0.8 * device * GIB
    assert (
        least < made.run() / (0.57 * 790e12) / 3600 < most
    )  # hours, at the rate that recipes/README.md assumes


@pytest.mark.parametrize("name", SHOWO)
def test_they_start_without_a_hub_from_the_prompts_that_ship(name):
    captions = shipped_recipes()[name].with_name("prompts") / "captions.txt"
    changes = (f"prompts.train={captions}", "prompts.column=", *NO_DATASET)
    prompts = training_prompts(read_recipe(name, changes).prompts)
    lengths = [len(prompt.text.split()) for prompt in prompts]
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 300
    assert min(lengths) <= 5
    assert max(lengths) >= 40
