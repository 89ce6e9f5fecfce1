"""Components are told apart by what they compute with."""

import shutil
from pathlib import Path

import pytest

import maskrl
from maskrl import identity as identities
from maskrl.component import Chosen
from maskrl.identity import identity
from maskrl.rewards.function import told_by

CLIP = Path(maskrl.__file__).parent / "shapes" / "weights" / "clip"
SOURCE = """
from maskrl.interfaces import RewardModel

class Zero(RewardModel):
    def score(self, images, prompts):
        return images.new_zeros(len(prompts))
"""


def clip(model: str | Path) -> dict[str, object]:
    return identity(Chosen("rewards", {"name": "clip", "model": str(model), "pretrained": None}, Path()))


def test_the_same_weights_are_the_same_wherever_they_lie(tmp_path):
    shutil.copytree(CLIP, tmp_path / "copy")
    assert clip("package:maskrl/shapes/weights/clip") == clip(CLIP) == clip(tmp_path / "copy")


def test_other_weights_under_the_same_path_are_others(tmp_path):
    shutil.copytree(CLIP, tmp_path / "copy")
    before = clip(tmp_path / "copy")
    weights = tmp_path / "copy" / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert clip(tmp_path / "copy") != before


def test_a_setting_that_is_no_path_counts_by_its_value():
    section = {"name": "std_percentile", "percentile": 10}
    ten, twenty = (Chosen("filters", {**section, "percentile": p}, Path()) for p in (10, 20))
    assert identity(ten) == identity(ten.build()) != identity(twenty)


def test_terms_of_a_mix_are_told_by_contents(tmp_path):
    shutil.copytree(CLIP, tmp_path / "copy")

    def mix(model: str | Path) -> dict[str, object]:
        terms = {"clip": {"reward": {"name": "clip", "model": str(model), "pretrained": None}}}
        return identity(Chosen("rewards", {"name": "weighted_sum", "terms": terms}, Path()))

    assert mix(CLIP) == mix(tmp_path / "copy")
    assert str(tmp_path) not in str(mix(tmp_path / "copy"))


def test_a_class_from_a_file_is_told_by_its_source(tmp_path):
    for name, source in (("a.py", SOURCE), ("b.py", SOURCE), ("c.py", SOURCE + "\n# another\n")):
        (tmp_path / name).write_text(source)
    a, b, c = (identity(Chosen("rewards", {"name": f"{n}.py:Zero"}, tmp_path)) for n in "abc")
    assert a == b != c


def test_a_hub_id_stands_for_the_revision_in_the_cache(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(identities.constants, "HF_HUB_CACHE", str(tmp_path))
    assert identities.hub_revision("showlab/show-o") is None
    refs = tmp_path / "models--showlab--show-o" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("a" * 40 + "\n")
    assert identities.hub_revision("showlab/show-o") == "a" * 40


def test_a_function_of_a_console_is_told_by_what_it_was_compiled_to():
    def typed(text):
        found = {}
        exec(text, found)
        return told_by(found["score"])

    one = "def score(images, prompts):\n    return [max(x.mean() * {} for x in [image]) for image in images]"
    assert typed(one.format(2)) == typed(one.format(2))
    assert typed(one.format(2)) != typed(one.format(3))
    assert typed(one.format(2)) != typed(one.format(2).replace("max", "min"))
