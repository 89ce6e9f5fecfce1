"""Show-o as a masked generator, at any size: the 1.3 B of the paper and the tiny one that ships with maskrl.

Source: Xie et al. 2024 (arXiv 2408.12528); published checkpoints ``showlab/show-o`` and ``showlab/show-o-512x512``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from maskrl.component import ComponentConfig, open_path
from maskrl.cut_prompts import CutPrompts
from maskrl.errors import RecipeError
from maskrl.generators.showo.asked import EDGE, ask
from maskrl.generators.showo.checkpoint import (
    ShowoConfig,
    find_folder,
    language_model,
    load_language_model,
    load_magvit,
    load_weights,
    read_config,
    save_folder,
)
from maskrl.generators.showo.cost import measure
from maskrl.generators.showo.magvit import MagvitConfig
from maskrl.generators.showo.network import KVCache, ShowoNetwork, phi_config
from maskrl.generators.showo.prompting import UniversalPrompting
from maskrl.generators.showo.published import sizes_of
from maskrl.grpo.guidance import guided
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.types import Cost, GeneratorSpec, Prompt, StepIndex
from maskrl.weights import built_from


@dataclass(frozen=True)
class ShowoCondition(Condition):
    """Texts, and which row has which.

    Attributes:
        texts: U texts as Long [P_u], without padding; the last one is the empty text, the null branch.
        rows: Long [B] in [0, U), on the CPU.
        memory: what the network has read of the texts; None: they are read again in every call.
    """

    texts: tuple[Tensor, ...]
    rows: Tensor
    memory: KVCache | None = None

    def select(self, rows: Tensor) -> ShowoCondition:
        """Long [K] -> a condition of K rows."""
        return replace(self, rows=self.rows[rows.cpu()])


class Showo(MaskedGenerator):
    """Text and image in one sequence; the image attends to everything, the text only to the text before it."""

    class Config(ComponentConfig):
        """Where the weights are: hub ids, folders in the published layout, or ``package:NAME/FOLDER``.

        ``weights`` is a file with a plain state dict, or a folder that has one, in the place of the checkpoint's own:
        such as the file published with Mask-GRPO. ``language_model`` overrides where the checkpoint says that phi's
        config and text tokenizer are.
        """

        checkpoint: str = "showlab/show-o-512x512"
        tokenizer: str = "showlab/magvitv2"
        weights: str | None = None
        language_model: str | None = None

    paths = ("checkpoint", "tokenizer", "weights", "language_model")
    module: ShowoNetwork

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._folder = find_folder(config.checkpoint, "checkpoint")
        self._settings = read_config(self._folder)
        self._cut = CutPrompts("Show-o", self._settings.max_text_length)
        self.module = self._load_network()
        self.magvit = load_magvit(find_folder(config.tokenizer, "tokenizer")).eval().requires_grad_(False)
        self.frozen = (self.magvit,)
        with built_from(self._folder / "config.json"):
            self.spec = make_spec(config, self._settings, self.magvit.config)

    @classmethod
    def cost(cls, config: Config, *, text_tokens: int) -> Cost:
        """See :class:`MaskedGenerator`; the sizes of the published checkpoints are known without fetching them."""
        settings, phi, sizes = sizes_of(config.checkpoint, config.tokenizer, config.language_model)
        with built_from(f"{config.checkpoint} with {config.tokenizer}"):
            return measure(
                make_spec(config, settings, sizes),
                phi_config(phi, settings.vocabulary),
                settings.vocabulary,
                sizes,
                text_tokens,
            )

    def _load_network(self) -> ShowoNetwork:
        settings = self._settings
        self._language_model = language_model(settings, self._folder, self.config.language_model)
        phi, tokenizer = load_language_model(self._language_model)
        with built_from(self._language_model):
            self._prompting = UniversalPrompting(tokenizer, settings.vocabulary, settings.max_text_length)
            network = ShowoNetwork.unfilled(phi_config(phi, settings.vocabulary), settings.vocabulary)
        weights = self._folder if self.config.weights is None else Path(open_path(self.config.weights))
        load_weights(network, weights, "; if they lie elsewhere, name the file with generator.weights")
        return network.eval()

    def encode(self, prompts: Sequence[Prompt]) -> ShowoCondition:
        """Tokenize the texts; one that is too long is cut, and the first that is gets named."""
        texts, device = [*(prompt.text for prompt in prompts), ""], self.module.head.weight.device
        ids, is_cut = zip(*map(self._prompting.ids, texts), strict=True)
        self._cut.tell([text for text, cut in zip(texts, is_cut, strict=True) if cut])
        return ShowoCondition(tuple(row.to(device) for row in ids), torch.arange(len(prompts)))

    @torch.no_grad()
    def prefill(self, condition: Condition) -> ShowoCondition:
        """Read every text once, for a rollout, and run the first layer on every id of an image once."""
        assert isinstance(condition, ShowoCondition)
        if condition.memory:
            return condition
        memory = self.module.read(condition.texts, end=self._prompting.length)
        return replace(condition, memory=replace(memory, table=self.module.tabulate()))

    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """See :class:`MaskedGenerator`; Show-o does not take the time, so ``step`` is not used."""
        assert isinstance(condition, ShowoCondition)
        blank_B = (tokens == self.spec.mask_id).all(dim=1)
        counts_B = blank_B.new_zeros(0) if positions is None else positions.sum(dim=1)
        told = torch.cat([guidance.any()[None], blank_B, counts_B]).tolist()  # the one wait for the device
        is_guided, blank, counts = told[0], told[1 : len(tokens) + 1], told[len(tokens) + 1 :]
        if not is_guided:
            return self._predict(tokens, condition, blank, positions, counts)
        null = torch.full_like(condition.rows, len(condition.texts) - 1)
        both = replace(condition, rows=torch.cat([condition.rows, null]))
        twice = None if positions is None else torch.cat([positions, positions])
        logits = self._predict(torch.cat([tokens, tokens]), both, blank * 2, twice, counts * 2)
        conditional, unconditional = logits.chunk(2)
        return guided(conditional, unconditional, guidance, positions)

    def _predict(
        self,
        tokens: Tensor,
        condition: ShowoCondition,
        blank: list[int],
        positions: Tensor | None,
        counts: list[int],
    ) -> Tensor:
        """Predict codes without guidance, everywhere or at ``positions``, of which each row has so many.

        The rows of one text are run side by side, and texts of one length. Rows of one text of which nothing is painted
        yet, ``blank``, are the same, and run as one: so is the first step of all images of a prompt.
        """
        start, same_as = self._prompting.length, _same_as(condition.rows.tolist(), blank)
        rows_of: dict[int, list[int]] = defaultdict(list)
        for row, text in enumerate(condition.rows.tolist()):
            if same_as[row] == row:
                rows_of[text].append(row)
        used = sorted(rows_of, key=lambda text: (-len(condition.texts[text]), text))  # the longest first
        groups, order = [len(rows_of[text]) for text in used], [row for text in used for row in rows_of[text]]
        place_of = {row: place for place, row in enumerate(order)}
        runs_as = torch.tensor([place_of[row] for row in same_as], dtype=torch.long).to(tokens.device)
        if condition.memory:
            memory = condition.memory.select(used)
        else:
            memory = self.module.read([condition.texts[text] for text in used], end=start)
        ids = self._frame(tokens[torch.tensor(order).to(tokens.device)])
        memory = self.module.with_table(memory, len(tokens) * ids.shape[1])
        if positions is None or sum(counts) > ids.numel():
            hidden = self.module.forward_image(ids, groups, memory, start)[:, EDGE:-EDGE]
            everywhere = self.module.code_logits(hidden)
            if positions is None:
                return everywhere.index_select(0, runs_as)
            image_M, at_M = torch.nonzero_static(positions, size=sum(counts)).unbind(dim=1)
            return everywhere.flatten(0, 1).index_select(0, runs_as[image_M] * positions.shape[1] + at_M)
        asked = ask(positions, runs_as, len(order), sum(counts), _most(counts, same_as))
        return self.module.code_logits(self.module.forward_image(ids, groups, memory, start, asked))

    def _frame(self, tokens: Tensor) -> Tensor:
        """Codes and mask, Long [B, N] -> ids of the shared vocabulary between <|soi|> and <|eoi|>, Long [B, N + 2]."""
        vocabulary = self._prompting.vocabulary
        edge = tokens.new_ones(len(tokens), 1)
        image = tokens + vocabulary.code_offset  # mask_id of code space lands on the shared vocabulary's mask
        return torch.cat(
            [edge * vocabulary.special("<|soi|>"), image, edge * vocabulary.special("<|eoi|>")], 1
        )

    @torch.no_grad()
    def decode(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Long [B, N] -> Float [B, 3, H, W] in [0, 1]."""
        assert self.spec.grid is not None
        return self.magvit.decode(tokens, self.spec.grid).float()

    def blocks(self) -> Sequence[tuple[nn.Module, str]]:
        """The layers; embeddings and head are gathered for the length of a call."""
        first = self.module.layers[0]
        return [*((layer, "run") for layer in self.module.layers), (first, "tabulate"), (first, "look_up")]

    def checkpoint_activations(self) -> None:
        """Of every layer only the input is kept."""
        self.module.gradient_checkpointing_enable()

    def compile_layers(self) -> None:
        """All but their attention, whose shapes differ from text to text."""
        self.module.compile_layers()

    @classmethod
    def saved_settings(cls, folder: str) -> dict[str, str | None]:
        """See :class:`MaskedGenerator`; ``weights`` would take precedence over the checkpoint's."""
        return {"checkpoint": folder, "weights": None}

    def save(self, folder: str) -> None:
        """Write the network in the published layout; the image tokenizer is not trained and stays where it is."""
        save_folder(self.module, self._folder, self._language_model, Path(folder))


def _same_as(texts: list[int], blank: list[int]) -> list[int]:
    """Say of each row which one runs for it: itself, or the first blank one of its text."""
    first: dict[int, int] = {}
    return [first.setdefault(text, row) if blank[row] else row for row, text in enumerate(texts)]


def _most(counts: list[int], same_as: list[int]) -> int:
    """Return how many positions the row that runs for most of them may have, of which each image has so many."""
    of_row: dict[int, int] = defaultdict(int)
    for count, row in zip(counts, same_as, strict=True):
        of_row[row] += count
    return max(of_row.values(), default=0)


def make_spec(config: Showo.Config, settings: ShowoConfig, sizes: MagvitConfig) -> GeneratorSpec:
    """Say what the algorithm must know of a checkpoint and its image tokenizer.

    Raises:
        RecipeError: they do not fit each other.
    """
    side = math.isqrt(settings.num_vq_tokens)
    if side * side != settings.num_vq_tokens:
        raise RecipeError(
            f"checkpoint {config.checkpoint!r} has num_vq_tokens = {settings.num_vq_tokens} in its config.json:"
            f" no square number, and its images are square ({side} x {side} would be {side * side})"
        )
    if sizes.num_codes != settings.codebook_size:
        raise RecipeError(
            f"checkpoint {config.checkpoint!r} has {settings.codebook_size} codes;"
            f" the tokenizer {config.tokenizer!r} has {sizes.num_codes} codes"
        )
    return GeneratorSpec(
        num_tokens=settings.num_vq_tokens,
        num_codes=settings.codebook_size,
        mask_id=settings.codebook_size,
        grid=(side, side),
        image_size=(side * sizes.downsampling, side * sizes.downsampling),
        sampler=settings.defaults(),
        lora_targets=("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    )
