"""One update in two verbs: ``batch = collect(parts, prompts, update)``, then ``learn(parts, batch)``.

::

    collect   rollout -> decode -> reward -> filter -> (draw again) -> advantage
    learn     transition probability -> ratio -> clipped surrogate, KL -> backward -> optimizer step
"""

from maskrl.grpo.collect import collect
from maskrl.grpo.learn import learn
from maskrl.grpo.parts import Batch, Parts, Process, Scheduler, SingleProcess

__all__ = ["Batch", "Parts", "Process", "Scheduler", "SingleProcess", "collect", "learn"]
