"""Before the first update: processes that read other prompts are refused."""

import pytest

from maskrl.errors import RecipeError
from maskrl.grpo.processes import SingleProcess
from maskrl.runtime.prompts import prompts_digest
from maskrl.training.opening import check_prompts
from maskrl.types import Prompt

PROMPTS = [Prompt("a cat"), Prompt("a dog")]


class Two(SingleProcess):
    """The main one of two processes, the other of which has read ``other``."""

    def __init__(self, other):
        object.__setattr__(self, "other", other)

    def gather_objects(self, values):
        return [*values, self.other]


def test_processes_that_read_other_prompts_are_refused():
    check_prompts(SingleProcess(), PROMPTS)
    check_prompts(Two(prompts_digest(PROMPTS)), PROMPTS)
    with pytest.raises(RecipeError, match="process 1 has read other prompts than process 0"):
        check_prompts(Two(prompts_digest(PROMPTS[::-1])), PROMPTS)
