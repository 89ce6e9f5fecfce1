"""The order of (image, step) pairs: texts together, and the first steps of a prompt's images side by side."""

from itertools import groupby

import torch
from hypothesis import given
from hypothesis import strategies as st

from maskrl.grpo.order import in_passes


@given(
    prompts=st.integers(0, 4),
    group=st.integers(1, 5),
    steps=st.lists(st.integers(0, 9), unique=True, max_size=6),
)
def test_every_pair_comes_once_prompt_by_prompt_and_first_steps_first(prompts, group, steps):
    images, columns = in_passes(prompts * group, torch.tensor(steps, dtype=torch.long), group)
    pairs = [(image, steps[column]) for image, column in zip(images.tolist(), columns.tolist(), strict=True)]
    assert sorted(pairs) == [(image, step) for image in range(prompts * group) for step in sorted(steps)]
    for prompt, (_, some) in enumerate(groupby(pairs, key=lambda pair: pair[0] // group)):
        images = range(prompt * group, (prompt + 1) * group)
        first = [(image, step) for image in images for step in steps if step == 0]
        others = [(image, step) for image in images for step in steps if step != 0]
        assert list(some) == first + others
