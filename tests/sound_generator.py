"""A generator that keeps every promise of its interface, small enough to plant faults in."""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maskrl.component import ComponentConfig
from maskrl.grpo.guidance import guided
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.types import Cost, GeneratorSpec, SamplerDefaults, Stream

TOKENS, CODES, WIDTH, STEPS, LETTERS = 6, 4, 16, 3, 128


@dataclass(frozen=True)
class Texts(Condition):
    """Long [B, L], letters, 0 where a text has ended."""

    letters: Tensor

    def select(self, rows):
        return Texts(self.letters[rows])


class Network(nn.Module):
    """Reads codes, letters and time."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(CODES + 1, WIDTH)
        self.text = nn.Embedding(LETTERS, WIDTH)
        self.time = nn.Embedding(TOKENS, WIDTH)
        self.inner = nn.Linear((TOKENS + 2) * WIDTH, 32)
        self.outer = nn.Linear(32, TOKENS * CODES)

    def forward(self, tokens, letters, t):
        is_letter = (letters > 0)[..., None]
        text = (self.text(letters) * is_letter).sum(dim=1)
        hidden = torch.cat([self.embed(tokens).flatten(1), text, self.time(t)], dim=1)
        return self.outer(torch.tanh(self.inner(hidden))).view(-1, TOKENS, CODES)


class Good(MaskedGenerator):
    """Keeps every promise, and offers all that may be offered."""

    class Config(ComponentConfig):
        folder: str | None = None

    paths = ("folder",)
    spec = GeneratorSpec(
        TOKENS, CODES, CODES, (2, 3), (8, 12), SamplerDefaults(num_steps=STEPS, guidance=1.0), ("inner",)
    )

    def __init__(self, config):
        super().__init__(config)
        self.module, self.painter = Network().eval(), nn.Embedding(CODES, 3).eval().requires_grad_(False)
        self.frozen = (self.painter,)
        with torch.no_grad():
            for index, parameter in enumerate([*self.module.parameters(), *self.painter.parameters()]):
                noise = torch.randn(parameter.shape, generator=Stream(0, (index,)).generator())
                parameter.copy_(0.3 * noise)
        if config.folder is not None:
            self.load(config.folder)

    @classmethod
    def cost(cls, config, *, text_tokens):
        names = {field.name: 0.0 for field in fields(Cost)}
        sizes = sum(p.numel() for p in Network().parameters())
        return Cost(**{**names, "spec": cls.spec, "parameters": sizes, "frozen_parameters": 3 * CODES})

    @classmethod
    def saved_settings(cls, folder):
        return {"folder": folder}

    def load(self, folder):
        self.module.load_state_dict(load_file(Path(folder) / "model.safetensors"))

    def encode(self, prompts):
        letters = [[ord(letter) % LETTERS for letter in prompt.text] for prompt in prompts]
        longest = max(map(len, letters))
        return Texts(torch.tensor([[*row, *[0] * (longest - len(row))] for row in letters]))

    def network(self, tokens, letters, t):
        return self.module(tokens, letters, t)

    def guide(self, cond, uncond, w):
        return guided(cond, uncond, w)

    def logits(self, tokens, condition, step, guidance, positions=None):
        logits = self.network(tokens, condition.letters, step.t)
        if guidance.any():
            null = self.network(tokens, torch.zeros_like(condition.letters), step.t)
            logits = self.guide(logits, null, guidance)
        return logits if positions is None else logits[positions]

    def decode(self, tokens, condition):
        tiles = self.painter(tokens).sigmoid().view(-1, 2, 3, 3).permute(0, 3, 1, 2)
        return tiles.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)

    def save(self, folder):
        Path(folder).mkdir()
        save_file(self.module.state_dict(), Path(folder) / "model.safetensors")

    def checkpoint_activations(self):
        pass
