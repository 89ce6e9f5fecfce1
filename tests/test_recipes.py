"""The recipes that come with maskrl."""

import pytest

from maskrl.recipe import read_recipe, shipped_recipes
from maskrl.runtime.prompts import training_prompts
from maskrl.training.plan import plan

GIB = 2**30


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_recipe_is_valid(name):
    recipe = read_recipe(name)
    assert recipe.training.updates > 0
    assert read_recipe(name).digest() == recipe.digest()


def test_the_papers_run_has_the_papers_values():
    recipe = read_recipe("showo_clip")
    assert recipe.generator.settings()["checkpoint"] == "showlab/show-o-512x512"
    assert recipe.transition.name == "p_theta1"
    assert recipe.filter.settings()["percentile"] == 10
    assert recipe.reducer.name == "none"
    grpo, training = recipe.grpo, recipe.training
    assert (grpo.group_size, grpo.num_steps, grpo.kl_coef) == (6, 50, 0)
    assert grpo.group_size * training.prompts_per_update == 96
    assert (training.learning_rate, training.betas, training.weight_decay) == (3e-6, (0.9, 0.95), 0.02)
    assert (training.lr_schedule, training.warmup_updates, training.updates) == ("cosine", 1000, 16000)
    assert (recipe.sampling.guidance_train, recipe.sampling.guidance_eval) == (0, 5)


@pytest.mark.parametrize(
    ("name", "device"), [("showo_clip", 40), ("showo_256_clip", 40), ("showo_clip_lora", 24)]
)
def test_recipes_fit_the_devices_that_they_name(name, device):
    assert plan(read_recipe(name), text_tokens=60, processes=1).peak < 0.8 * device * GIB


@pytest.mark.parametrize("name", ["showo_clip", "showo_256_clip", "showo_clip_lora"])
def test_they_start_without_a_hub_from_the_prompts_that_ship(name):
    changes = (
        "prompts.train=prompts/captions.txt",
        "prompts.column=",
        "prompts.limit=",
        "prompts.max_words=",
    )
    prompts = training_prompts(read_recipe(name, changes).prompts)
    lengths = [len(prompt.text.split()) for prompt in prompts]
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 300
    assert min(lengths) <= 5
    assert max(lengths) >= 40
