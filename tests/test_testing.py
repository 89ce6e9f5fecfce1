"""The contract checks pass what is sound, and name what is not."""

import pytest
import torch
import toy_run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskrl import testing
from maskrl.component import ComponentConfig
from maskrl.errors import PluginError
from maskrl.filters.keep_all import KeepAll
from maskrl.filters.std_percentile import StdPercentile
from maskrl.interfaces import GroupFilter, PromptSet, RewardModel, StepReducer, TransitionProb
from maskrl.reducers.computational import Computational
from maskrl.reducers.none import NoReduction
from maskrl.reducers.unmasking import Unmasking
from maskrl.transitions.ar import Ar
from maskrl.transitions.p_theta1 import PTheta1
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.types import Prompt


def make(component, **values):
    return component(component.Config(**values))


def broken(check, component, complaint):
    with pytest.raises(PluginError, match=complaint) as error:
        check(component)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "paths", "complaint"),
    [
        (
            type("Config", (ComponentConfig,), {"model_config": {"extra": "ignore"}}),
            (),
            "accepts unknown keys",
        ),
        (type("Config", (ComponentConfig,), {"__annotations__": {"name": str}}), (), "'name'"),
        (ComponentConfig, ("checkpoint",), "'paths' names 'checkpoint'"),
        (dict, (), "no ComponentConfig"),
    ],
)
def test_a_class_must_own_a_closed_config(config, paths, complaint):
    broken(testing.check_class, type("Mine", (KeepAll,), {"Config": config, "paths": paths}), complaint)


class Reward(RewardModel):
    def score(self, images: Tensor, prompts) -> Tensor:
        return images.mean(dim=(1, 2, 3))


def reward(score):
    return make(type("Mine", (RewardModel,), {"score": lambda self, images, prompts: score(images)}))


def test_a_sound_reward_passes():
    testing.check_reward(make(Reward))


@pytest.mark.parametrize(
    ("score", "complaint"),
    [
        (
            lambda images: images.mean(dim=(1, 2)),
            r"score returned float32 \[2, 64\] instead of float32 \[2\]",
        ),
        (lambda images: images.mean(dim=(1, 2, 3)).double(), "float64"),
        (lambda images: images.mean(dim=(1, 2, 3)) * torch.nan, "not finite"),
        (lambda images: images.mean(dim=(1, 2, 3)).requires_grad_(), "gradient"),
        (lambda images: images.mul_(0.5).mean(dim=(1, 2, 3)), "changed the images"),
        (lambda images: (images - images.mean(dim=0)).std(dim=(1, 2, 3)), "depends on the rest of its batch"),
        (lambda images: torch.arange(len(images)).float(), "depends on the rest of its batch"),
    ],
)
def test_a_reward_that_breaks_its_contract_is_named(score, complaint):
    broken(testing.check_reward, reward(score), complaint)


@pytest.mark.parametrize("transition", [Ar, PTheta1, PTheta2])
@settings(max_examples=15)
@given(num_tokens=st.integers(2, 8), num_codes=st.integers(2, 9))
def test_the_built_in_transitions_pass(transition, num_tokens, num_codes):
    testing.check_transition(make(transition), num_tokens, num_codes)


def transition(log_prob):
    def method(self, logits, taken):
        return log_prob(
            taken.sum_rows(logits.log_softmax(-1).gather(1, taken.pack(taken.proposals)[:, None])[:, 0])
        )

    return make(type("Mine", (TransitionProb,), {"log_prob": method}))


def test_a_sound_transition_passes():
    testing.check_transition(transition(lambda logp: logp))


@pytest.mark.parametrize(
    ("log_prob", "complaint"),
    [
        (lambda logp: logp.sum(), r"returned float32 \[\] instead of float32 \[3\]"),
        (lambda logp: logp.float(), "returned float32"),
        (lambda logp: logp - torch.inf, "not finite"),
        (lambda logp: logp * 0, "gradient of log_prob is 0"),
        (lambda logp: logp - logp.mean() / 2, "depends on the other rows"),
    ],
)
def test_a_transition_that_breaks_its_contract_is_named(log_prob, complaint):
    broken(testing.check_transition, transition(log_prob), complaint)


def test_an_estimator_must_take_its_noise_from_the_stream():
    def scored(self, trajectory, stream):
        return trajectory.select(torch.randperm(trajectory.num_images))

    component = type("Mine", (PTheta1,), {"scored": scored})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        broken(testing.check_transition, make(component), "noise that is not the stream's")


@pytest.mark.parametrize("values", [{}, {"percentile": 50, "warmup": 4}])
def test_the_built_in_filters_pass(values):
    testing.check_filter(make(StdPercentile, **values))
    testing.check_filter(make(KeepAll))


class Filter(GroupFilter):
    """Keeps groups above the mean spread of the rounds seen."""

    def __init__(self, config):
        super().__init__(config)
        self.seen: list[float] = []

    def keep(self, rewards):
        self.seen.append(float(rewards.std(dim=1).mean()))
        return rewards.std(dim=1) > sum(self.seen) / len(self.seen)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = list(state["seen"])

    def metrics(self):
        return {"spread": self.seen[-1]}


def test_a_sound_filter_passes():
    testing.check_filter(make(Filter))


@pytest.mark.parametrize(
    ("method", "behaviour", "complaint"),
    [
        ("keep", lambda self, rewards: rewards.std(dim=1), "keep returned float32"),
        ("keep", lambda self, rewards: rewards > 0, r"bool \[8, 4\] instead of Bool \[8\]"),
        ("state_dict", lambda self: {"seen": torch.ones(2)}, "cannot be saved as JSON"),
        ("state_dict", lambda self: {"seen": [float("nan")]}, "cannot be saved as JSON"),
        ("load_state_dict", lambda self, state: self.seen.append(100.0), "decides otherwise"),
        ("metrics", lambda self: {"spread": "wide"}, "no float"),
    ],
)
def test_a_filter_that_breaks_its_contract_is_named(method, behaviour, complaint):
    broken(testing.check_filter, make(type("Mine", (Filter,), {method: behaviour})), complaint)


def test_the_built_in_reducers_pass():
    testing.check_reducer(make(NoReduction))
    for component in (Computational, Unmasking):
        testing.check_reducer(make(component, steps=1))


def reducer(
    rollout=lambda num_steps: num_steps, steps=lambda t: torch.arange(t), weights=lambda t: torch.ones(t)
):
    methods = {
        "rollout_steps": lambda self, num_steps: rollout(num_steps),
        "train_steps": lambda self, rollout_steps, stream: (steps(rollout_steps), weights(rollout_steps)),
    }
    return make(type("Mine", (StepReducer,), methods))


def test_a_sound_reducer_passes():
    testing.check_reducer(reducer())


@pytest.mark.parametrize(
    ("behaviour", "complaint"),
    [
        ({"rollout": lambda t: t + 1}, r"rollout_steps\(1\) is 2"),
        ({"rollout": lambda t: 0}, r"rollout_steps\(1\) is 0"),
        ({"steps": lambda t: torch.arange(t) + 1}, r"outside \[0, 1\)"),
        ({"steps": lambda t: torch.zeros(t).long()}, "repeats one"),
        ({"steps": lambda t: torch.arange(float(t))}, "train_steps returned float32"),
        ({"weights": lambda t: torch.ones(t + 1)}, "weights returned"),
        ({"weights": lambda t: -torch.ones(t)}, "negative weight"),
        ({"weights": lambda t: torch.ones(t) / 0}, "not finite"),
        ({"steps": lambda t: torch.randint(10**9, (t,))}, "noise that is not the stream's"),
    ],
)
def test_a_reducer_that_breaks_its_contract_is_named(behaviour, complaint):
    broken(testing.check_reducer, reducer(**behaviour), complaint)


def generator(**changes):
    return make(type("Mine", (toy_run.ToyGenerator,), changes))


def test_a_sound_generator_passes():
    testing.check_generator(generator())


def spec(**changes):
    return {"spec": toy_run.ToyGenerator.spec.__class__(**{**vars(toy_run.ToyGenerator.spec), **changes})}


def wrapped(method, change):
    original = getattr(toy_run.ToyGenerator, method)
    return {
        method: lambda self, *args, **kwargs: change(self, original(self, *args, **kwargs), *args, **kwargs)
    }


def without_positions(self, tokens, condition, step, guidance, positions=None):
    return toy_run.ToyGenerator.logits(self, tokens, condition, step, guidance)


def wrong_positions(self, logits, *args, positions=None):
    return logits if positions is None else logits.flip(0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (spec(mask_id=0), "spec.mask_id = 0 is a code"),
        (spec(grid=(2, 2)), "does not hold 6 tokens"),
        (spec(num_codes=1), "fewer than two codes"),
        (spec(sampler=toy_run.SamplerDefaults(num_steps=7)), "num_steps = 7"),
        (spec(image_size=(8, 8)), "decode returned"),
        ({"logits": without_positions}, "packed logits returned"),
        (wrapped("logits", wrong_positions), "logits at 'positions' differ"),
        (wrapped("logits", lambda self, logits, *a, **k: logits - logits.mean()), "differ|depend"),
        (wrapped("logits", lambda self, logits, *a, **k: logits * torch.nan), "not finite"),
        (
            wrapped("logits", lambda self, logits, *a, **k: logits * 0),
            "no gradient reaches module at guidance 0.0",
        ),
        (wrapped("decode", lambda self, images, *a: images * 2 - 1), "not in"),
        (
            wrapped("decode", lambda self, images, *a: images * self.module.embed.weight.sum().sigmoid()),
            "gradient",
        ),
    ],
)
def test_a_generator_that_breaks_its_contract_is_named(changes, complaint):
    broken(testing.check_generator, generator(**changes), complaint)


def test_a_generator_in_training_mode_is_named():
    training = generator()
    training.module.train()
    broken(testing.check_generator, training, "dropout would falsify the ratio")


def test_a_generator_must_save_what_it_loads():
    def save(self, folder):
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.mul_(0.5)
        toy_run.ToyGenerator.save(self, folder)
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.mul_(2)

    broken(testing.check_generator, generator(save=save), "what 'save' wrote gives other logits")


class Tiles(toy_run.Tiles):
    """The toy's detector, for an image that is as large as the toy's."""


def check_detector(detector):
    testing.check_detector(detector, image_size=(8, 12))


def test_a_sound_detector_passes():
    check_detector(make(Tiles))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"classes": ("poppy",)}, "not in 'classes'"),
        ({"colors": ("red",)}, "not in 'colors'"),
        ({"label": " "}, "no label"),
        (
            {"detect": lambda self, image: {"sky": [toy_run.Detection((0, 0, 13, 4), 0.5, None)]}},
            "outside the image",
        ),
        ({"detect": lambda self, image: {"sky": [toy_run.Detection((0, 0, 3, 3), 1.5, None)]}}, "score 1.5"),
    ],
)
def test_a_detector_that_breaks_its_contract_is_named(changes, complaint):
    broken(check_detector, make(type("Mine", (Tiles,), changes)), complaint)


@pytest.mark.parametrize(
    ("texts", "complaint"), [([], "holds no prompts"), (["a", " "], "without a text"), (["a"], None)]
)
def test_prompt_sets(texts, complaint):
    component = make(type("Mine", (PromptSet,), {"prompts": lambda self: [Prompt(text) for text in texts]}))
    if complaint is None:
        testing.check_prompts(component)
    else:
        broken(testing.check_prompts, component, complaint)
