"""What a prompt set promises."""

from __future__ import annotations

from collections.abc import Mapping

from maskrl.asking import asking
from maskrl.interfaces import PromptSet
from maskrl.testing.classes import check_class
from maskrl.testing.promises import quiet, require
from maskrl.types import Prompt


def check_prompts(component: PromptSet) -> None:
    """Check that there are prompts, each with a text, in the same order every time and from every instance.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.PromptSet`.
    """
    check_class(type(component))
    with asking(component):
        with quiet(component, "prompts"):
            prompts = component.prompts()
        require(component, isinstance(prompts, list) and bool(prompts), "it holds no prompts, or no list")
        for prompt in prompts:
            sound = (
                isinstance(prompt, Prompt)
                and isinstance(prompt.text, str)
                and isinstance(prompt.metadata, Mapping)
            )
            require(component, sound, f"it holds {prompt!r}, which is no Prompt")
            require(component, bool(prompt.text.strip()), "it holds a prompt without a text")
        require(component, prompts == component.prompts(), "its prompts differ from call to call")
        another = type(component)(component.config)
        require(component, prompts == another.prompts(), "its prompts differ from instance to instance")
