"""What components answer, where it enters the core: looked at once, and refused with the component's name.

What is plainly meant is taken: a list or an array of numbers for a tensor, another precision for fp32.
"""

from maskrl.grpo.answers.common import kind
from maskrl.grpo.answers.filters import filter_state, keep, metrics
from maskrl.grpo.answers.generators import confidence, decode, encode, logits, prefill
from maskrl.grpo.answers.reducers import rollout_steps, train_steps
from maskrl.grpo.answers.rewards import cost, score, score_terms
from maskrl.grpo.answers.transitions import log_prob, scored

__all__ = [
    "confidence",
    "cost",
    "decode",
    "encode",
    "filter_state",
    "keep",
    "kind",
    "log_prob",
    "logits",
    "metrics",
    "prefill",
    "rollout_steps",
    "score",
    "score_terms",
    "scored",
    "train_steps",
]
