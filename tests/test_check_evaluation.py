"""Every promise of an evaluation that the contract check makes has a planted fault that it finds."""

import numpy as np
import pytest
import torch
from benchmark_package.brightness import Brightness
from benchmark_package.colours import Colours
from torch import nn

from maskrl.component import ComponentConfig
from maskrl.errors import PluginError, RecipeError
from maskrl.interfaces import Evaluation, Number
from maskrl.testing import check_evaluation
from maskrl.types import Prompt


def sound_judge(self, images, prompts):
    return Brightness.judge(self, images, prompts)


def of_batch(self, images, prompts):
    mean = float(torch.stack(list(images)).mean())
    return [{"right": True, "distance": float(image.mean()) - mean} for image in images]


def noisy(self, images, prompts):
    self.calls = getattr(self, "calls", 0) + 1
    return [{"distance": float(self.calls)} for _ in images]


def random(self, images, prompts):
    return [{"distance": float(torch.rand(()))} for _ in images]


def spoiling(self, images, prompts):
    rows = sound_judge(self, images, prompts)
    images[0].zero_()
    return rows


def scribbling(self, images, prompts):
    prompts[0].metadata["seen"] = True
    return sound_judge(self, images, prompts)


def config(**fields):
    return type(
        "Config",
        (ComponentConfig,),
        {"__annotations__": {key: type(value) for key, value in fields.items()}, **fields},
    )


def with_network(self, config):
    Evaluation.__init__(self, config)
    self.net = nn.Linear(1, 1)


IMAGE_FAULTS = {
    "a row depends on the batch": ({"judge": of_batch}, "the row of an image depends on the rest of its batch"),
    "a row depends on the calls": ({"judge": noisy}, "judge has noise"),
    "global random numbers": ({"judge": random}, "uses the global random numbers"),
    "images are changed": ({"judge": spoiling}, "judge changed the images"),
    "prompts are changed": ({"judge": scribbling}, "judge changed the prompts"),
    "a row too few": ({"judge": lambda s, i, p: sound_judge(s, i, p)[1:]}, "returned 2 rows for 3 images"),
    "rows are no dicts": ({"judge": lambda s, i, p: [1.0] * len(i)}, "returned float as a row, not a dict"),
    "a row holds a tensor": ({"judge": lambda s, i, p: [{"x": i[0]}] * len(i)}, "a row that JSON cannot hold"),
    "combine is not linear": (
        {"combine": classmethod(lambda c, m: {"x": Number(m["distance"].mean ** 2, 0.1)})},
        "combine is not linear",
    ),
    "combine gives floats": ({"combine": classmethod(lambda c, m: {"x": 1.0})}, "float as 'x', not a Number"),
    "combine gives nothing": ({"combine": classmethod(lambda c, m: {})}, "combine returned no number"),
    "a value is NaN": ({"values": classmethod(lambda c, r: {"x": float("nan")})}, "nan as 'x', which is no finite"),
    "a value is called se": ({"values": classmethod(lambda c, r: {"se": 1.0})}, "calls a number 'se'"),
    "a value has a name that is none": ({"values": classmethod(lambda c, r: {"a b": 1.0})}, "calls a number 'a b'"),
    "others gives a text": ({"others": lambda s, r: {"x": "much"}}, "others returned 'much' as 'x'"),
    "is_right gives a text": ({"is_right": classmethod(lambda c, r: "yes")}, "is_right returned 'yes'"),
    "the label is empty": ({"label": lambda s, p, i: " "}, "label returned ' ', which is no text"),
    "settings hold an object": ({"settings": lambda s: {"x": object()}}, "settings returned what JSON cannot hold"),
    "companions out of range": ({"companions": lambda s, p: [9] * len(p)}, r"no number in \[0, 3\) for each image"),
    "prompts are texts": ({"prompts": classmethod(lambda c: ["a dark room"])}, "something else than Prompt objects"),
    "takes what it has not": ({"takes": ("judge",)}, "'takes' names 'judge', no setting of it"),
    "a setting of every section": ({"Config": config(every=3, tolerance=0.5)}, r"its Config has \['every'\], which"),
    "a network that is not listed": ({"__init__": with_network}, "its network 'net' is not in 'modules'"),
    "it raises": ({"judge": lambda s, i, p: 1 / 0}, "raised ZeroDivisionError"),
}  # fmt: skip
DISTRIBUTION_FAULTS = {
    "features depend on the batch": (
        {"features": lambda s, i: Colours.features(s, i) - Colours.features(s, i).mean()},
        "the features of an image depend on the rest of its batch",
    ),
    "features have another width": ({"width": 4}, r"features has shape \(3, 3\), not \(3, 4\)"),
    "features are not finite": ({"features": lambda s, i: np.full((len(i), 3), np.nan)}, "are not finite"),
    "features change the images": (
        {"features": lambda s, i: (Colours.features(s, i), i[0].zero_())[0]},
        "features changed the images",
    ),
    "measure is NaN": ({"measure": lambda s, m, c: {"x": float("nan")}}, "returned nan as 'x'"),
    "measure gives nothing": ({"measure": lambda s, m, c: {}}, "measure returned no number"),
}


def planted(base, changes):
    return type("Planted", (base,), dict(changes))


@pytest.mark.parametrize("base", [Brightness, Colours])
def test_a_sound_one_passes(base):
    check_evaluation(base(base.Config()))


@pytest.mark.parametrize(
    ("base", "name"),
    [(Brightness, name) for name in IMAGE_FAULTS] + [(Colours, name) for name in DISTRIBUTION_FAULTS],
)
def test_a_planted_fault_is_named(base, name):
    changes, said = (IMAGE_FAULTS | DISTRIBUTION_FAULTS)[name]
    kind = planted(base, changes)
    with pytest.raises(PluginError, match=said) as error:
        check_evaluation(kind(kind.Config()))
    assert "the evaluation 'Planted'" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_neither_kind_is_refused():
    kind = type("Neither", (Evaluation,), {"label": lambda self, prompts, images: "x"})
    with pytest.raises(PluginError, match="neither an ImageEvaluation nor a DistributionEvaluation"):
        check_evaluation(kind(kind.Config()))


def test_prompts_that_it_cannot_judge_are_the_callers():
    kind = planted(
        Brightness, {"check": lambda self, prompts: (_ for _ in ()).throw(RecipeError("not these"))}
    )
    with pytest.raises(RecipeError, match="not these"):
        check_evaluation(kind(kind.Config()), [Prompt("a cat")])
