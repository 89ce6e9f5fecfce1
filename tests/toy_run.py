"""Components small enough that a whole run takes a second; recipes name them as ``toy_run.py:ToyGenerator``.

An image is 2 x 3 tiles; code 0 paints red, the others other colours. The reward counts red tiles.
"""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maskrl.component import ComponentConfig
from maskrl.grpo.guidance import guided
from maskrl.interfaces import Condition, Detection, Detector, MaskedGenerator, RewardModel
from maskrl.types import GeneratorSpec, Prompt, SamplerDefaults, Stream

TOKENS, CODES, TILE, WIDTH = 6, 4, 4, 16
PALETTE = torch.tensor([(0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.1, 0.9), (1.0, 1.0, 1.0)])
NAMES = ("poppy", "leaf", "sky")
HUES = ("red", "green", "blue")


@dataclass(frozen=True)
class ToyCondition(Condition):
    texts: Tensor

    def select(self, rows):
        return ToyCondition(self.texts[rows])


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(CODES + 1, WIDTH)
        self.text = nn.Embedding(32, WIDTH)
        self.body = nn.Sequential(
            nn.Linear(TOKENS * WIDTH + WIDTH, 32), nn.GELU(), nn.Linear(32, TOKENS * CODES)
        )

    def forward(self, tokens, texts):
        hidden = torch.cat([self.embed(tokens).flatten(1), self.text(texts)], dim=1)
        return self.body(hidden).view(-1, TOKENS, CODES)


class ToyGenerator(MaskedGenerator):
    class Config(ComponentConfig):
        checkpoint: str | None = None
        double: bool = False

    paths = ("checkpoint",)
    frozen = ()
    spec = GeneratorSpec(
        TOKENS, CODES, CODES, (2, 3), (2 * TILE, 3 * TILE), SamplerDefaults(num_steps=3, guidance=1.0)
    )

    def __init__(self, config):
        super().__init__(config)
        self.module = Network().eval()
        with torch.no_grad():
            for index, parameter in enumerate(self.module.parameters()):
                noise = torch.randn(parameter.shape, generator=Stream(0, (index,)).generator())
                parameter.copy_(0.3 * noise)
        if config.checkpoint is not None:
            self.module.load_state_dict(load_file(Path(config.checkpoint) / "model.safetensors"))
        if config.double:
            self.module.double()

    def encode(self, prompts):
        texts = [1 + sum(map(ord, prompt.text)) % 31 for prompt in prompts]
        return ToyCondition(torch.tensor(texts, device=self.module.embed.weight.device))

    def logits(self, tokens, condition, step, guidance, positions=None):
        logits = self.module(tokens, condition.texts)
        if guidance.any():
            logits = guided(logits, self.module(tokens, torch.zeros_like(condition.texts)), guidance)
        return logits if positions is None else logits[positions]

    def decode(self, tokens, condition):
        tiles = PALETTE.to(tokens.device)[tokens].view(-1, 2, 3, 3).permute(0, 3, 1, 2)
        return tiles.repeat_interleave(TILE, dim=2).repeat_interleave(TILE, dim=3)

    def save(self, folder):
        Path(folder).mkdir()
        save_file(self.module.state_dict(), Path(folder) / "model.safetensors")


class Red(RewardModel):
    """Counts red tiles; at call ``after`` it returns NaN or sends itself a signal, as ``then`` says."""

    class Config(ComponentConfig):
        after: int | None = None
        then: str = "nan"

    def __init__(self, config):
        super().__init__(config)
        self.calls = 0

    def score(self, images: Tensor, prompts: list[Prompt]) -> Tensor:
        self.calls += 1
        red = ((images[:, 0] > 0.5) & (images[:, 1] < 0.5)).float().mean(dim=(1, 2))
        if self.calls != self.config.after or os.environ.get("TOY_HARMLESS"):
            return red
        if self.config.then == "nan":
            return red * torch.nan
        os.kill(os.getpid(), getattr(signal, self.config.then))
        return red


class Huge(RewardModel):
    """Fills the device."""

    def score(self, images, prompts):
        raise torch.OutOfMemoryError("tried to allocate 9 GiB. A long explanation follows.")


class Tiles(Detector):
    classes = NAMES
    colors = HUES

    def detect(self, image):
        found = {}
        for index in range(TOKENS):
            row, column = divmod(index, 3)
            y, x = row * TILE, column * TILE
            code = int((image[:, y, x] - PALETTE).abs().sum(dim=1).argmin())
            if code < len(NAMES):
                mask = np.zeros((2 * TILE, 3 * TILE), dtype=bool)
                mask[y : y + TILE, x : x + TILE] = True
                found.setdefault(NAMES[code], []).append(
                    Detection((x, y, x + TILE - 1, y + TILE - 1), 0.95, mask)
                )
        return found

    def color(self, image, detection, class_name):
        return HUES[NAMES.index(class_name)]


class StoppingTiles(Detector):
    """Tiles that send SIGTERM in the second evaluation: after the 24 images of the first."""

    classes = NAMES
    colors = HUES

    def __init__(self, config):
        super().__init__(config)
        self.tiles, self.images = Tiles(config), 0

    def detect(self, image):
        self.images += 1
        if self.images == 25 and not os.environ.get("TOY_HARMLESS"):
            os.kill(os.getpid(), signal.SIGTERM)
        return self.tiles.detect(image)

    def color(self, image, detection, class_name):
        return self.tiles.color(image, detection, class_name)


def geneval_prompts() -> str:
    """JSON lines: two prompts in each of GenEval's tasks."""
    lines = []
    for a, b in ((0, 1), (2, 0)):
        one = {"class": NAMES[a], "count": 1}
        painted = {**one, "color": HUES[a]}
        other = {"class": NAMES[b], "count": 1}
        beside = {**other, "position": ["left of", 0]}
        tasks = {
            "single_object": [one],
            "two_object": [one, other],
            "counting": [{**one, "count": 2}],
            "colors": [painted],
            "position": [one, beside],
            "color_attr": [painted, {**other, "color": HUES[b]}],
        }
        lines += [
            json.dumps({"text": f"{tag} {a} {b}", "tag": tag, "include": inc}) for tag, inc in tasks.items()
        ]
    return "\n".join(lines)


class Blue(RewardModel):
    """Counts blue tiles: what falls when red ones are taught."""

    def score(self, images, prompts):
        return ((images[:, 2] > 0.5) & (images[:, 0] < 0.5)).float().mean(dim=(1, 2))
