"""How fast and how small Show-o is here, and beside it the same work done the way the released code does it.

python benchmarks/showo.py --size full --dtype bf16       # a GPU: the published sizes, random weights
python benchmarks/showo.py --size reduced                 # two CPU cores: the same proportions
Prints, and stores in benchmarks/results/showo_SIZE_DEVICE.json: images/s of the rollout, transitions/s of the update,
the share of the device's own matrix product rate, peak memory, and ratios, all of one run.

The released way, restated from its description (the training loop of 2025-12-18, commit e7d6456; no code of it is
here): every prompt padded on the left to the full length and run again at every step under a mask; the whole head at
every position, cut afterwards; images painted one at a time; one backward pass for each step of a group. Show-o's own
sampler (commit 45a5a2d) paints a group at a time: measured as well. Its GELU is the one of the published config,
``gelu_new``, written out; with our fused one (same function) the ratios stand beside. All get the same weights, noise
and dtype, and must come to the same tokens and gradient; the loss is of ``p_theta2``, for which ours asks at revealed
positions alone, as in training. On a CPU the ways are compared by CPU time, in turns; how fast ours is, by the clock.

FLOPs are those of the reduced work: a text once, the codes of the head at masked positions, a backward pass as two
forward passes, nothing for recomputation; the first layer, which is looked up, counts as if it ran at every position.
The reduced sizes keep the head's share of the FLOPs (about 10 %) and the ratio of padded to used positions (1.13) of
the published ones.
"""

import maskrl  # isort: skip  # noqa: F401

import argparse
import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PhiConfig, PreTrainedTokenizerFast
from transformers.activations import ACT2FN

from maskrl.generators.showo.generator import Showo
from maskrl.generators.showo.magvit import Magvit, MagvitConfig
from maskrl.generators.showo.network import ShowoNetwork, phi_config
from maskrl.generators.showo.prompting import Vocabulary
from maskrl.grpo.config import Sampling
from maskrl.grpo.order import in_passes
from maskrl.grpo.rollout import rollout
from maskrl.grpo.schedule import unmask_counts
from maskrl.grpo.temperature import temperatures
from maskrl.grpo.unmask import Rule, unmask
from maskrl.interfaces import MaskedGenerator
from maskrl.runtime.allocator import keep_freed_memory
from maskrl.runtime.autocast import Autocast
from maskrl.training.rate import matmul_rate
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.types import Cost, Prompt, Stream, Trajectory

RESULTS = Path(__file__).parent / "results"
SAMPLING = Sampling(
    schedule="cosine",
    temperature_rule="compound",
    tau_init=1.0,
    value_temperature_rule="constant",
    value_temperature=1.0,
    score="log_prob",
    position_policy="confidence",
    position_policy_train="confidence",
    guidance_rule="constant",
    guidance_train=0.0,
    guidance_eval=0.0,
    guidance_in_loss="same",
)
TRANSITION = PTheta2(PTheta2.Config())
SUBJECTS = ("a", "b c", "d e f")  # words of the stand-in tokenizer
GROUP = 6  # images of a prompt, as in the paper


@dataclass(frozen=True)
class Size:
    """What is published, or something of the same proportions."""

    phi: PhiConfig
    words: int
    bits: int
    tokens: int
    text_length: int
    magvit: MagvitConfig


SIZES = {
    "tiny": Size(  # to try the benchmarks themselves
        PhiConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            partial_rotary_factor=0.5,
            max_position_embeddings=128,
        ),
        words=60,
        bits=5,
        tokens=16,
        text_length=10,
        magvit=MagvitConfig(
            channels=8,
            encoder_multipliers=(1, 2),
            encoder_blocks=(1, 1),
            decoder_multipliers=(1, 2),
            decoder_blocks=(1, 1),
            bits=5,
            norm_groups=4,
        ),
    ),
    "full": Size(
        PhiConfig(
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=24,
            num_attention_heads=32,
            partial_rotary_factor=0.5,
            max_position_embeddings=2048,
        ),
        words=50295,
        bits=13,
        tokens=1024,
        text_length=128,
        magvit=MagvitConfig(),
    ),
    "reduced": Size(
        PhiConfig(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=8,
            num_attention_heads=8,
            partial_rotary_factor=0.5,
            max_position_embeddings=512,
        ),
        words=2170,
        bits=8,
        tokens=144,
        text_length=17,
        magvit=MagvitConfig(
            channels=8,
            encoder_multipliers=(1, 2),
            encoder_blocks=(1, 1),
            decoder_multipliers=(1, 2),
            decoder_blocks=(1, 1),
            bits=8,
            norm_groups=4,
        ),
    ),
}


def write_checkpoint(size: Size, folder: Path, device: torch.device) -> Showo.Config:
    """Write random weights in the published layout."""
    torch.manual_seed(0)
    vocabulary = Vocabulary(size.words, 2**size.bits)
    showo, magvit = folder / "showo", folder / "magvit"
    for path in (showo, magvit):
        path.mkdir()
    with device:
        network, tokenizer = ShowoNetwork(phi_config(size.phi, vocabulary), vocabulary), Magvit(size.magvit)
    save_file({k: v.cpu() for k, v in network.state_dict().items()}, showo / "pytorch_model.safetensors")
    save_file({k: v.cpu() for k, v in tokenizer.state_dict().items()}, magvit / "model.safetensors")
    (magvit / "config.json").write_text(json.dumps(size.magvit.model_dump()))
    sizes = {
        "vocab_size": vocabulary.size,
        "llm_vocab_size": size.words,
        "codebook_size": vocabulary.num_codes,
        "num_vq_tokens": size.tokens,
        "llm_model_path": "llm",
        "max_text_length": size.text_length,
    }
    (showo / "config.json").write_text(json.dumps(sizes))
    size.phi.save_pretrained(showo / "llm")
    words = {word: i for i, word in enumerate(("<e>", "<u>", *"abcdef"))}
    core = Tokenizer(models.WordLevel(words, unk_token="<u>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<e>", eos_token="<e>", unk_token="<u>"
    ).save_pretrained(showo / "llm")
    return Showo.Config(checkpoint=str(showo), tokenizer=str(magvit))


class Released:
    """Rollout and update as the released code does them."""

    def __init__(self, generator: Showo, bf16: bool, activation: str = "gelu_new") -> None:
        self.network, self.spec = generator.module, generator.spec
        self.activation = ACT2FN[activation]
        self.prompting, self.vocabulary = generator._prompting, generator.module.vocabulary
        self.device, self.bf16 = next(self.network.parameters()).device, bf16
        self.allowed: dict[int, Tensor] = {}

    def logits(self, text: str, tokens: Tensor) -> Tensor:
        """Long [B, N] -> Float [B, N, V] of images of one text: padded rows, the mask, the whole head."""
        special, length = self.vocabulary.special, self.prompting.length
        ids = self.prompting.ids(text)[0].to(self.device)
        size = (len(tokens), length + tokens.shape[1] + 2)
        row = torch.full(size, special("[PAD]"), device=self.device)
        row[:, length - len(ids) : length] = ids
        row[:, length], row[:, -1] = special("<|soi|>"), special("<|eoi|>")
        row[:, length + 1 : -1] = tokens + self.vocabulary.code_offset
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            model = self.network.showo.model
            with self._activated():
                hidden = model(
                    input_ids=row, attention_mask=self._mask(len(ids), row.shape[1]), use_cache=False
                )
            everything = self.network.head(hidden.last_hidden_state).float()
        first, last = self.vocabulary.code_offset, self.vocabulary.mask_id
        return everything[:, length + 1 : -1, first:last]

    @contextmanager
    def _activated(self) -> Iterator[None]:
        """Give the shared network the GELU of this way, for as long as it runs forward."""
        mlps = [layer.mlp for layer in self.network.showo.model.layers]
        ours = mlps[0].activation_fn
        for mlp in mlps:
            mlp.activation_fn = self.activation
        yield
        for mlp in mlps:
            mlp.activation_fn = ours

    def _mask(self, text: int, total: int) -> Tensor:
        if text not in self.allowed:
            length, index = self.prompting.length, torch.arange(total, device=self.device)
            pads = length - text
            causal = index[None] <= index[:, None]
            image = index[:, None] >= length
            seen = (causal | image) & ((index[None] >= pads) == (index[:, None] >= pads))
            blocked = torch.finfo(torch.float32).min
            self.allowed[text] = torch.zeros(seen.shape, device=self.device).masked_fill(~seen, blocked)[
                None, None
            ]
        return self.allowed[text]

    @torch.no_grad()
    def rollout(self, texts: list[str], streams: list[Stream], num_steps: int, at_once: int = 1) -> Tensor:
        """Some images of one text after the other: Long [B, N]."""
        counts = unmask_counts(self.spec.num_tokens, num_steps, SAMPLING.schedule)
        taus = temperatures(num_steps, SAMPLING.temperature_rule, SAMPLING.tau_init)
        images = []
        for text, rows in parts_of_one_text(texts, at_once):
            size = (num_steps, 2, self.spec.num_tokens)
            noise = [torch.rand(size, generator=streams[b].generator()).to(self.device) for b in rows]
            tokens = torch.full((len(rows), self.spec.num_tokens), self.spec.mask_id, device=self.device)
            for t in range(num_steps):
                logits = self.logits(text, tokens)[tokens == self.spec.mask_id]
                now = torch.stack([of_image[t] for of_image in noise])
                step = unmask(logits, tokens, now, Rule(counts[t], taus[t]), self.spec.mask_id)
                tokens = torch.where(step.reveal_rank >= 0, step.proposals, tokens)
            images.append(tokens)
        return torch.cat(images)

    def update(self, texts: list[str], trajectory: Trajectory, adv: Tensor) -> None:
        """One backward pass for every step of every group."""
        for text, rows in parts_of_one_text(texts, GROUP):
            for t in range(trajectory.num_steps):
                pairs = trajectory.transitions(torch.tensor(rows), torch.full((len(rows),), t))
                logits = self.logits(text, pairs.state)[pairs.masked]
                logp = TRANSITION.log_prob(logits, pairs)
                (-(adv[rows] * logp).sum() / len(texts)).backward()


def parts_of_one_text(texts: list[str], size: int) -> list[tuple[str, list[int]]]:
    """Divide images into parts of one text, each of at most so many rows."""
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        rows.setdefault(text, []).append(row)
    return [(text, own[i : i + size]) for text, own in rows.items() for i in range(0, len(own), size)]


def ours_update(
    generator: MaskedGenerator, texts: list[str], trajectory: Trajectory, adv: Tensor, micro_batch: int
) -> None:
    """Many pairs a forward and backward pass, each text read once a pass."""
    prompts = list(dict.fromkeys(texts))
    condition = generator.encode([Prompt(text) for text in prompts])
    of_image = torch.tensor([prompts.index(text) for text in texts])
    steps = trajectory.num_steps
    rows, times = in_passes(len(texts), torch.arange(steps), GROUP)
    for index in torch.arange(len(rows)).split(micro_batch):
        pairs = trajectory.transitions(rows[index], times[index])
        pairs = replace(pairs, asked=pairs.revealed)
        chosen = condition.select(of_image[rows[index]])
        logits = generator.logits(
            pairs.state, chosen, pairs.step, torch.zeros(len(pairs.state)), pairs.packed
        )
        logp = TRANSITION.log_prob(logits, pairs)
        (-(adv[rows[index]] * logp).sum() / len(texts)).backward()


@dataclass(frozen=True)
class Bench:
    """One set-up: G images of one or two prompts, T steps."""

    generator: Showo
    device: torch.device
    bf16: bool
    num_steps: int
    micro_batch: int
    repeats: int

    @property
    def policy(self) -> MaskedGenerator:
        """The generator in its precision."""
        return Autocast(self.generator) if self.bf16 else self.generator

    def work(self, images: int) -> tuple[list[str], list[Stream]]:
        """Texts and noise: groups of six share a text."""
        texts = [SUBJECTS[i // GROUP % len(SUBJECTS)] for i in range(images)]
        return texts, [Stream(0).child("bench", i) for i in range(images)]

    def paint(self, images: int, num_steps: int | None = None, prefill: bool = True) -> Trajectory:
        """Roll out."""
        texts, streams = self.work(images)
        prompts = list(dict.fromkeys(texts))
        rows = torch.tensor([prompts.index(text) for text in texts])
        condition = self.policy.encode([Prompt(text) for text in prompts]).select(rows)
        policy = self.policy if prefill else Forgetful(self.policy)
        return rollout(policy, condition, streams, num_steps or self.num_steps, SAMPLING, 0.0)

    def race(self, *runs: Callable[[], object]) -> list[list[float]]:
        """Seconds of some runs of each, in turns: what disturbs the machine disturbs all alike. CPU time on a CPU."""
        clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        return [
            list(seconds)
            for seconds in zip(*(self._turn(runs, clock) for _ in range(self.repeats)), strict=True)
        ]

    def seconds(self, run: Callable[[], object]) -> float:
        """The fastest of some runs, by the clock on the wall."""
        return min(self._turn((run,), time.perf_counter)[0] for _ in range(self.repeats))

    def _turn(self, runs: Sequence[Callable[[], object]], clock: Callable[[], float]) -> list[float]:
        found = []
        for run in runs:
            self.wait()
            began = clock()
            run()
            self.wait()
            found.append(clock() - began)
            self.generator.module.zero_grad(set_to_none=True)
        return found

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def gradient(self, run: Callable[[], object]) -> Tensor:
        """Every gradient, after one run, on the CPU."""
        self.generator.module.zero_grad(set_to_none=True)
        run()
        found = torch.cat(
            [p.grad.flatten().cpu() for p in self.generator.module.parameters() if p.grad is not None]
        )
        self.generator.module.zero_grad(set_to_none=True)
        return found


class Forgetful(Autocast):
    """A generator that reads the texts anew at every step."""

    def prefill(self, condition: Any) -> Any:
        """Compute nothing in advance."""
        return condition

    def logits(self, *arguments: Any, **options: Any) -> Tensor:
        """As the inner generator."""
        return self.inner.logits(*arguments, **options)


def flops(cost: Cost, num_steps: int, images: int) -> tuple[float, float]:
    """Count a rollout and the forward passes of an update, the reading of texts aside.

    A prompt's first step counts once, though a micro-batch of fewer pairs than a group runs more of them.
    """
    counts = unmask_counts(cost.spec.num_tokens, num_steps, SAMPLING.schedule)
    first, *masked = (sum(counts[t:]) for t in range(num_steps))
    prompts = -(-images // GROUP)
    layers = (prompts + images * (num_steps - 1)) * cost.image_flops
    sampled = prompts * first + images * sum(masked)
    return layers + sampled * cost.position_flops, layers + images * sum(counts) * cost.position_flops


def compare(bench: Bench, images: int) -> dict[str, Any]:
    """Ours and the released way, in time and in result."""
    released = Released(bench.generator, bench.bf16)
    fused = Released(bench.generator, bench.bf16, "gelu_pytorch_tanh")
    texts, streams = bench.work(images)
    trajectory = bench.paint(images)
    adv = torch.linspace(-1, 1, images, device=bench.device)
    rolling, one_by_one, in_groups, one_by_one_fused, in_groups_fused = bench.race(
        lambda: bench.paint(images),
        lambda: released.rollout(texts, streams, bench.num_steps),
        lambda: released.rollout(texts, streams, bench.num_steps, GROUP),
        lambda: fused.rollout(texts, streams, bench.num_steps),
        lambda: fused.rollout(texts, streams, bench.num_steps, GROUP),
    )
    learning, by_step, by_step_fused = bench.race(
        lambda: ours_update(bench.policy, texts, trajectory, adv, bench.micro_batch),
        lambda: released.update(texts, trajectory, adv),
        lambda: fused.update(texts, trajectory, adv),
    )
    tokens = [released.rollout(texts, streams, bench.num_steps, size) for size in (1, GROUP)]
    gradients = [
        bench.gradient(lambda: ours_update(bench.policy, texts, trajectory, adv, bench.micro_batch)),
        bench.gradient(lambda: released.update(texts, trajectory, adv)),
    ]
    difference = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    return {
        "clock": "wall" if bench.device.type == "cuda" else "CPU time",
        "rollout, against the released loop": versus(rolling, one_by_one),
        "rollout, against Show-o's own sampler": versus(rolling, in_groups),
        "update, against the released loop": versus(learning, by_step),
        "the same with our GELU": {
            "rollout, against the released loop": versus(rolling, one_by_one_fused),
            "rollout, against Show-o's own sampler": versus(rolling, in_groups_fused),
            "update, against the released loop": versus(learning, by_step_fused),
        },
        "same_tokens": min(float((found == trajectory.tokens).float().mean()) for found in tokens),
        "gradient_difference": float(difference),
    }


def versus(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """The fastest of each and their ratio, and the least and the largest ratio of a turn."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "seconds_ours": min(ours),
        "seconds_theirs": min(theirs),
        "ratio": min(theirs) / min(ours),
        "ratio_of_a_turn": [min(ratios), max(ratios)],
    }


def alone(bench: Bench, images: int) -> dict[str, float]:
    """Each measure taken away from ours: how much slower it is then."""
    texts, _ = bench.work(images)
    trajectory = bench.paint(images)
    adv = torch.linspace(-1, 1, images, device=bench.device)

    def one_by_one() -> None:
        for stream_of in range(images):
            condition = bench.policy.encode([Prompt(texts[stream_of])])
            stream = [Stream(0).child("bench", stream_of)]
            rollout(bench.policy, condition, stream, bench.num_steps, SAMPLING, 0.0)

    def whole_head() -> None:
        network = bench.generator.module
        original = network.code_logits

        def everything(hidden: Tensor) -> Tensor:
            first, last = network.vocabulary.code_offset, network.vocabulary.mask_id
            return network.head(hidden)[..., first:last]

        network.code_logits = everything  # type: ignore[method-assign]
        try:
            bench.paint(images)
        finally:
            network.code_logits = original  # type: ignore[method-assign]

    rolling, *slower = map(
        min,
        bench.race(
            lambda: bench.paint(images), lambda: bench.paint(images, prefill=False), one_by_one, whole_head
        ),
    )
    learning, singly = map(
        min,
        bench.race(
            lambda: ours_update(bench.policy, texts, trajectory, adv, bench.micro_batch),
            lambda: ours_update(bench.policy, texts, trajectory, adv, 1),
        ),
    )
    names = ("text read at every step", "one image at a time", "whole head at masked positions")
    found = {f"rollout, {name}": seconds / rolling for name, seconds in zip(names, slower, strict=True)}
    return found | {"update, one pair a pass": singly / learning}


def growth(bench: Bench) -> dict[str, dict[str, float]]:
    """Seconds of a rollout against images and against steps."""
    return {
        "images": {str(n): bench.seconds(lambda n=n: bench.paint(n)) for n in (2, 4, 8, 16)},
        "steps": {str(t): bench.seconds(lambda t=t: bench.paint(6, t)) for t in (4, 8, 16, 32)},
    }


def speed(bench: Bench, cost: Cost, images: int) -> dict[str, Any]:
    """Ours alone: images and transitions a second, and the share of the device's own matrix product rate."""
    texts, _ = bench.work(images)
    bench.paint(images)  # warm up
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trajectory, adv = bench.paint(images), torch.linspace(-1, 1, images, device=bench.device)
    rate = matmul_rate(bench.device, torch.bfloat16 if bench.bf16 else torch.float32)
    rolling = bench.seconds(lambda: bench.paint(images))
    learning = bench.seconds(lambda: ours_update(bench.policy, texts, trajectory, adv, bench.micro_batch))
    painted, learnt = flops(cost, bench.num_steps, images)
    found: dict[str, Any] = {
        "matmul_tflops": rate / 1e12,
        "rollout": {
            "seconds": rolling,
            "images_per_second": images / rolling,
            "share_of_matmul_rate": painted / rolling / rate,
        },
        "update": {
            "seconds": learning,
            "transitions_per_second": images * bench.num_steps / learning,
            "share_of_matmul_rate": 3 * learnt / learning / rate,
        },
    }
    if bench.device.type == "cuda":
        found["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def machine(device: torch.device) -> dict[str, str]:
    """Where, with what and of which commit."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else cpu_name()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "device": name,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
    }


def cpu_name() -> str:
    """The processor's name, as the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="reduced")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--steps", type=int, help="T; 50 at full size, 8 reduced")
    parser.add_argument("--group", type=int, default=6)
    parser.add_argument("--micro-batch", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--compile", action="store_true", help="compile the layers")
    parser.add_argument("--ours-only", action="store_true", help="leave out the released way and the rest")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()  # as a run does; for both ways
    bf16 = args.dtype == "bf16"
    with tempfile.TemporaryDirectory() as folder:
        config = write_checkpoint(SIZES[args.size], Path(folder), device)
        generator = Showo(config)
        cost = Showo.cost(config, text_tokens=4)
    generator.module.to(device)
    if args.checkpointing:
        generator.module.gradient_checkpointing_enable()
    if args.compile:
        generator.module.compile_layers()
    steps = args.steps or (50 if args.size == "full" else 8)
    bench = Bench(generator, device, bf16, steps, args.micro_batch, args.repeats)
    result = {"machine": machine(device), "settings": vars(args), **speed(bench, cost, args.group)}
    if not args.ours_only:
        result["against_the_released_way"] = compare(bench, args.group)
        result["slower_without"] = alone(bench, args.group)
        result["seconds_of_a_rollout"] = growth(replace(bench, num_steps=8))
    print(json.dumps(result, indent=2))
    RESULTS.mkdir(exist_ok=True)
    parts = ["showo", args.size, device.type, args.dtype]
    parts += ["checkpointing"] * args.checkpointing + ["compile"] * args.compile
    (RESULTS / f"{'_'.join(parts)}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
