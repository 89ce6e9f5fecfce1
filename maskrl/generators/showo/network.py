"""The transformer of Show-o: Phi with normalised queries and keys, and a head that is asked for codes only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PhiConfig, PhiForCausalLM

from maskrl.generators.showo.prompting import Vocabulary


class ShowoNetwork(nn.Module):
    """Phi over the shared vocabulary; keys begin with ``showo.`` as in the published checkpoints."""

    def __init__(self, phi: PhiConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.showo = PhiForCausalLM(phi)

    @property
    def head(self) -> nn.Linear:
        """The output layer, over the whole vocabulary."""
        layer: nn.Linear = self.showo.lm_head
        return layer

    def hidden(self, ids: Tensor, attention: Tensor) -> Tensor:
        """Long [B, L], additive mask [B, 1, L, L] -> Float [B, L, D], after the last layer norm."""
        out: Tensor = self.showo.model(
            input_ids=ids, attention_mask=attention, use_cache=False
        ).last_hidden_state
        return out

    def code_logits(self, hidden: Tensor) -> Tensor:
        """Float [..., D] -> [..., V]: the rows of the head that belong to codes, in fp32 at least."""
        first, last = self.vocabulary.code_offset, self.vocabulary.mask_id
        logits = F.linear(hidden, self.head.weight[first:last], self.head.bias[first:last])
        return logits if logits.dtype.itemsize >= 4 else logits.float()


def phi_config(published: PhiConfig, vocabulary: Vocabulary) -> PhiConfig:
    """Return Phi's config with what Show-o changes: the vocabulary, layer norm on queries and keys, no cache."""
    values = published.to_dict()
    values |= {"vocab_size": vocabulary.size, "qk_layernorm": True, "use_cache": False}
    if values["hidden_act"] == "gelu_new":  # the same function, fused; a third of the tiny model's time
        values["hidden_act"] = "gelu_pytorch_tanh"
    values |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attention_dropout": 0.0}
    config = PhiConfig(**values)
    config._attn_implementation = "sdpa"  # eager adds a boolean mask to the scores without a word
    return config
