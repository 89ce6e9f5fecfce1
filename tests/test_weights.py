"""The shipped models of the shapes world do what their card says, as far as seconds allow."""

from pathlib import Path

import numpy as np
import pytest
import torch

from maskrl.component import ComponentConfig, open_path
from maskrl.evaluations.geneval import judge_image
from maskrl.generators.showo.generator import Showo
from maskrl.geneval.metadata import TASKS
from maskrl.geneval.scoring import select
from maskrl.grpo.config import SamplingConfig, resolve
from maskrl.grpo.rollout import rollout
from maskrl.rewards.clip import Clip
from maskrl.shapes.detector import ShapesDetector
from maskrl.shapes.faults import misread, near_miss, random_caption
from maskrl.shapes.prompts import ShapesGenEval
from maskrl.shapes.world import COLORS, SHAPES, lay_out, paint
from maskrl.testing import check_generator, check_reward
from maskrl.types import Prompt, Stream

WEIGHTS = "package:maskrl/shapes/weights"


@pytest.fixture(scope="module")
def generator():
    return Showo(Showo.Config(checkpoint=f"{WEIGHTS}/showo", tokenizer=f"{WEIGHTS}/magvit"))


@pytest.fixture(scope="module")
def clip():
    return Clip(Clip.Config(model=f"{WEIGHTS}/clip"))


def pictures(scenes):
    return torch.from_numpy(np.stack([paint(scene) for scene in scenes])).permute(0, 3, 1, 2).float() / 255


def test_the_weights_are_small_and_never_pickled():
    files = [path for path in Path(open_path(WEIGHTS)).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 17e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".txt"}


def test_the_image_tokenizer_keeps_what_a_picture_shows(generator):
    rng = np.random.default_rng(0)
    detector, kept = ShapesDetector(ComponentConfig()), 0
    kinds = [
        [(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS)))) for _ in range(1 + i % 3)]
        for i in range(60)
    ]
    scenes = [lay_out(kind, rng) for kind in kinds]
    with torch.no_grad():
        images = generator.magvit.decode(generator.magvit.encode(pictures(scenes)), (6, 6))
    for image, kind in zip(images, kinds, strict=True):
        found = select(detector.detect(image), "single_object")
        kept += sorted(kind) == sorted(
            (s, detector.color(image, d, s)) for s, ds in found.items() for d in ds
        )
    assert kept >= 50


def test_the_base_paints_objects(generator):
    prompts = [
        prompt for prompt in ShapesGenEval(ComponentConfig()).prompts() if prompt.metadata["tag"] == "colors"
    ]
    sampling = resolve(SamplingConfig(), generator.spec)
    streams = [Stream(0).child("test", i) for i in range(len(prompts))]
    steps, guidance = generator.spec.sampler.num_steps, sampling.guidance_eval
    tokens = rollout(generator, generator.encode(prompts), streams, steps, sampling, guidance).tokens
    images = generator.decode(tokens, generator.encode(prompts))
    detector = ShapesDetector(ComponentConfig())
    right = [judge_image(image, p, detector, "").correct for image, p in zip(images, prompts, strict=True)]
    assert 0.1 < np.mean(right) < 0.97


def test_clip_prefers_the_picture_a_caption_is_true_of(clip):
    rng = np.random.default_rng(1)
    won = {task: [] for task in TASKS}
    for _ in range(240):
        caption = random_caption(rng)
        scenes = [
            caption.scene(rng, list(COLORS)),
            misread(near_miss(caption, rng), rng).scene(rng, list(COLORS)),
        ]
        if caption.holds(scenes[1]):
            continue
        scores = clip.score(pictures(scenes), [Prompt(caption.text("a photo of"))] * 2)
        won[caption.task].append(bool(scores[0] > scores[1]))
    assert min(np.mean(wins) for wins in won.values()) > 0.85


def test_the_base_keeps_the_contract(generator):
    check_generator(generator, [Prompt("a photo of a red circle"), Prompt("two stars")])


def test_clip_keeps_the_contract(clip):
    check_reward(clip, [Prompt("a circle"), Prompt("a red circle"), Prompt("two stars"), Prompt("a heart")])
