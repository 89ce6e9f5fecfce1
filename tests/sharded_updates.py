"""Makes the updates of some recipes and leaves metrics, tokens and weights in a file; run alone or by torchrun.

    python sharded_updates.py FOLDER STRATEGY...

writes ``FOLDER/CASE_STRATEGY.pt`` for every case; ``alone`` says nothing of a strategy.
"""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from maskrl.generators.showo import network
from maskrl.generators.showo.generator import Showo
from maskrl.interfaces import GroupFilter, RewardModel
from maskrl.recipe import read_recipe
from maskrl.runtime.metrics import is_wall_clock
from maskrl.runtime.sharding import gathered
from maskrl.shards import are_parts
from maskrl.training import updating
from maskrl.training.setup import set_up
from maskrl.training.state import Progress, capture, trained_parameters

UPDATES = 5


class Double(Showo):
    """Two layers of the tiny Show-o, in fp64: rounding moves nothing."""

    def __init__(self, config):
        super().__init__(config)
        self.module.showo.model.layers = self.module.showo.model.layers[:2]
        self.module.double()


class Unblocked(Double):
    """The same, of which nothing is known but that it is a generator; some weights are used by one process alone."""

    def __init__(self, config):
        super().__init__(config)
        self.module.scale = nn.ParameterList(nn.Parameter(torch.ones(3).double()) for _ in range(2))

    def logits(self, *inputs, **named):
        scale = self.module.scale[int(os.environ.get("RANK", "0"))]
        return super().logits(*inputs, **named) * scale.mean()

    def blocks(self):
        return ()


class LooksUp(Double):
    """The same, whose first layer is looked up in every pass, however few its positions."""

    def __init__(self, config):
        super().__init__(config)
        network.REPEATS = 0  # for good: its case is the last


class Bright(RewardModel):
    def score(self, images: Tensor, prompts) -> Tensor:
        return images[:, 0].mean(dim=(1, 2)).float()


class FirstHalf(GroupFilter):
    """Keeps nothing of the second process."""

    def keep(self, rewards):
        return torch.arange(len(rewards)) < len(rewards) // 2

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def metrics(self):
        return {}


HERE = Path(__file__)
COMMON = (
    f"generator.name={HERE}:Double",
    f"reward={{ name = '{HERE}:Bright' }}",
    "filter={ name = 'keep_all' }",
    "reducer={ name = 'none' }",
    "eval=",
    "grpo.group_size=2",
    "grpo.num_steps=2",
    "grpo.num_updates=2",
    "training.device=cpu",
    "training.prompts_per_update=2",
    "training.micro_batch=3",
    "training.learning_rate=0.001",
    "training.weight_decay=0.01",
    "training.max_grad_norm=0.1",
)
CASES = {
    "plain": (),
    "lora": ("lora.rank=4", "grpo.kl_coef=0.1"),
    "kl": ("grpo.kl_coef=0.1", "ema.decay=0.9", "training.activation_checkpointing=true"),
    "rejected": (f"filter={{ name = '{HERE}:FirstHalf' }}", "grpo.max_resamples=0"),
    "unblocked": (f"generator.name={HERE}:Unblocked", "sampling.guidance_in_loss=same"),
    "guided": ("sampling.guidance_train=1.0",),
    "looked up": (f"generator.name={HERE}:LooksUp", "training.activation_checkpointing=true"),
}


def make_updates(changes):
    """Metrics of each update, the tokens of each, and what was trained, all of it whole."""
    setup = set_up(read_recipe("shapes_clip", [*COMMON, *changes]))
    is_sharded = "parallel.strategy=shard" in changes and setup.placement.world_size > 1
    assert are_parts(trained_parameters(setup.learner.generator).values()) == is_sharded
    tokens, learn = [], updating.learn

    def recorded(learner, batch):
        tokens.append(learner.process.gather(batch.trajectory.tokens))
        return learn(learner, batch)

    updating.learn = recorded
    try:
        rows = [updating.make_update(setup, update) for update in range(UPDATES)]
    finally:
        updating.learn = learn
    kept, _ = capture(setup.state, Progress())
    weights = gathered(kept, setup.placement)
    metrics = [{k: v for k, v in row.items() if not is_wall_clock(k)} for row in rows]
    return setup.placement, {"metrics": metrics, "tokens": torch.stack(tokens), "weights": weights}


def main(folder, *strategies):
    for strategy in strategies:
        for case, changes in CASES.items():
            chosen = () if strategy == "alone" else (f"parallel.strategy={strategy}",)
            placement, found = make_updates((*changes, *chosen))
            if placement.is_main:
                torch.save(found, Path(folder) / f"{case}_{strategy}.pt")
    placement.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
