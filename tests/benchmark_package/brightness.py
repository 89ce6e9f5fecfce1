"""A benchmark of a third party: is an image as bright as its prompt says?"""

from maskrl.component import ComponentConfig
from maskrl.interfaces import ImageEvaluation
from maskrl.types import Prompt

WORDS = {"dark": 0.0, "bright": 1.0}


class Brightness(ImageEvaluation):
    """Compare the mean brightness of images with a word of their prompts.

    Of prompts that say neither "dark" nor "bright" nothing is known.
    """

    class Config(ComponentConfig):
        """``tolerance`` is how far the mean may be from what the word says, in [0, 1]."""

        tolerance: float = 0.5

    images_per_prompt = 2

    @classmethod
    def prompts(cls):
        return [Prompt(f"a {word} {thing}") for word in WORDS for thing in ("street", "room", "sky")]

    @classmethod
    def wants(cls, prompt):
        return any(word in prompt.text.split() for word in WORDS)

    @classmethod
    def task(cls, prompt):
        return next(word for word in WORDS if word in prompt.text.split())

    def label(self, prompts, images):
        return f"Brightness (within {self.config.tolerance:g})"

    def judge(self, images, prompts):
        wanted = [WORDS[self.task(prompt)] for prompt in prompts]
        apart = [abs(float(image.mean()) - value) for image, value in zip(images, wanted, strict=True)]
        return [{"right": distance <= self.config.tolerance, "distance": distance} for distance in apart]

    @classmethod
    def is_right(cls, row):
        return row["right"]
