"""A generator, a reward and the halves of an update, small enough to enumerate by hand."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from maskrl.component import ComponentConfig
from maskrl.filters.keep_all import KeepAll
from maskrl.grpo.config import GRPOConfig, SamplingConfig, resolve
from maskrl.grpo.guidance import guided
from maskrl.grpo.update import Actor, Algorithm, Learner, Portions, SingleProcess
from maskrl.interfaces import Condition, GroupFilter, MaskedGenerator, RewardModel
from maskrl.reducers.none import NoReduction
from maskrl.transitions.p_theta1 import PTheta1
from maskrl.types import GeneratorSpec, Prompt, SamplerDefaults, StepIndex, Stream

NUM_PROMPTS = 16
PROMPTS = [Prompt(text) for text in ("bright", "dark", "left", "right")]


@dataclass(frozen=True)
class ToyCondition(Condition):
    """Long [B], a number per prompt; 0 is the null prompt."""

    numbers: Tensor

    def select(self, rows: Tensor) -> ToyCondition:
        return ToyCondition(self.numbers[rows])


class ToyNetwork(nn.Module):
    """Every position sees the mean of all tokens: logits depend on the state, the prompt and the step."""

    def __init__(self, num_tokens: int, num_codes: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(num_codes + 1, width)
        self.place = nn.Embedding(num_tokens, width)
        self.prompt = nn.Embedding(NUM_PROMPTS, width)
        self.hidden = nn.Linear(2 * width, width)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(width, num_codes)

    def forward(self, tokens: Tensor, numbers: Tensor, time: Tensor) -> Tensor:
        here = self.token(tokens) + self.place.weight
        around = here.mean(dim=1, keepdim=True) + self.prompt(numbers)[:, None] + time[:, None, None]
        features = torch.cat([here, around.expand_as(here)], dim=-1)
        return self.head(self.drop(torch.tanh(self.hidden(features))))


class ToyGenerator(MaskedGenerator):
    class Config(ComponentConfig):
        num_tokens: int = 6
        num_codes: int = 4
        width: int = 8
        sharpness: float = 3.0
        dtype: Literal["float32", "float64"] = "float64"
        seed: int = 0

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = ToyNetwork(config.num_tokens, config.num_codes, config.width)
        self.module = network.to(getattr(torch, config.dtype)).eval()
        self.frozen = ()
        self.spec = GeneratorSpec(
            num_tokens=config.num_tokens,
            num_codes=config.num_codes,
            mask_id=config.num_codes,
            grid=None,
            image_size=(1, config.num_tokens),
            sampler=SamplerDefaults(num_steps=3, guidance=1.5),
        )
        self.encoded: list[str] = []  # what was asked for, for tests of cost: texts, and (rows, guidance)
        self.calls: list[tuple[int, float]] = []

    def encode(self, prompts: Sequence[Prompt]) -> ToyCondition:
        self.encoded += [prompt.text for prompt in prompts]
        numbers = [1 + zlib.crc32(prompt.text.encode()) % (NUM_PROMPTS - 1) for prompt in prompts]
        return ToyCondition(torch.tensor(numbers))

    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        assert isinstance(condition, ToyCondition)
        assert len(tokens) == len(condition.numbers) == len(step.t)
        self.calls.append((len(tokens), float(guidance.max())))
        time = (step.t / step.num_steps).to(self.module.head.weight.dtype)
        logits = self.config.sharpness * self.module(tokens, condition.numbers, time)
        if guidance.any():
            null = self.config.sharpness * self.module(tokens, torch.zeros_like(condition.numbers), time)
            logits = guided(logits, null, guidance)
        return logits if positions is None else logits[positions]

    def decode(self, tokens: Tensor, condition: Condition) -> Tensor:
        level = tokens.float() / (self.spec.num_codes - 1)
        return level[:, None, None, :].expand(-1, 3, 1, -1)

    def save(self, folder: str) -> None:
        save_model(self.module, str(Path(folder) / "model.safetensors"))


class ToyReward(RewardModel):
    """Brightness, weighted by place; the prompt gives its sign."""

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        weights = torch.arange(1.0, images.shape[-1] + 1)
        sign = torch.tensor([-1.0 if prompt.text == "dark" else 1.0 for prompt in prompts])
        return sign * (images[:, 0, 0] * weights).mean(dim=1)


class Scripted(GroupFilter):
    """Answers what it was told, round by round, and remembers what it was shown."""

    def __init__(self, *rounds: Sequence[bool]) -> None:
        super().__init__(ComponentConfig())
        self.rounds, self.shown = list(rounds), []

    def keep(self, rewards: Tensor) -> Tensor:
        self.shown.append(rewards.clone())
        return torch.tensor(self.rounds[len(self.shown) - 1])

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def metrics(self) -> dict[str, float]:
        return {"filter_rounds": float(len(self.shown))}


def toy(**settings: Any) -> ToyGenerator:
    return ToyGenerator(ToyGenerator.Config(**settings))


@dataclass(frozen=True)
class Halves:
    """An actor and a learner of the same weights."""

    actor: Actor
    learner: Learner

    @property
    def generator(self) -> ToyGenerator:
        return self.learner.generator

    @property
    def algorithm(self) -> Algorithm:
        return self.learner.algorithm

    def but(self, **changes: Any) -> Halves:
        """The same with other fields, wherever they are; ``config`` and ``sampling`` whole."""
        of = {kind: {f.name for f in fields(kind)} for kind in (Algorithm, Portions, Actor, Learner)}
        taken = {kind: {name: changes[name] for name in names & set(changes)} for kind, names in of.items()}
        assert set().union(*taken.values()) == set(changes)
        algorithm = taken[Actor].setdefault("algorithm", replace(self.algorithm, **taken[Algorithm]))
        taken[Learner].setdefault("algorithm", algorithm)
        taken[Actor].setdefault("portions", replace(self.actor.portions, **taken[Portions]))
        return Halves(replace(self.actor, **taken[Actor]), replace(self.learner, **taken[Learner]))


def toy_halves(generator: ToyGenerator | None = None, **changes: Any) -> Halves:
    """Halves with small defaults; ``config`` and ``sampling`` may be given as dicts of settings."""
    generator = generator or toy()
    config = GRPOConfig(**{"group_size": 3, "num_steps": 3, **changes.pop("config", {})})
    sampling = resolve(SamplingConfig(**changes.pop("sampling", {})), generator.spec)
    algorithm = Algorithm(PTheta1(PTheta1.Config()), config, sampling)
    actor = Actor(
        generator=generator,
        reward=ToyReward(ToyReward.Config()),
        filter=KeepAll(KeepAll.Config()),
        reducer=NoReduction(NoReduction.Config()),
        algorithm=algorithm,
        process=SingleProcess(),
        stream=Stream(0),
        portions=Portions(rollout_batch=100, reward_batch=5),
    )
    learner = Learner(
        generator=generator,
        reference=None,
        algorithm=algorithm,
        optimizer=torch.optim.SGD(generator.module.parameters(), lr=0.0),
        lr_scheduler=None,
        process=SingleProcess(),
        micro_batch=4,
        score_batch=4,
        max_grad_norm=math.inf,
    )
    return Halves(actor, learner).but(**changes)


def rowwise(guidance: float, rows: int = 1) -> Tensor:
    """The same guidance for some rows: Float [rows], fp64."""
    return torch.full((rows,), guidance, dtype=torch.float64)


def gradients(generator: ToyGenerator) -> Tensor:
    """All gradients in one vector."""
    return torch.cat([p.grad.flatten() for p in generator.module.parameters() if p.grad is not None])
