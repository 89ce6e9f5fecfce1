"""One update in two verbs: ``batch = collect(actor, prompts, update)``, then ``learn(learner, batch)``.

::

    collect   rollout -> decode -> reward -> filter -> (draw again) -> advantage
    learn     transition probability -> ratio -> clipped surrogate, KL -> backward -> optimizer step
"""

from maskrl.grpo.actor import Actor, Portions
from maskrl.grpo.algorithm import Algorithm
from maskrl.grpo.batch import Batch
from maskrl.grpo.collect import collect
from maskrl.grpo.learn import learn
from maskrl.grpo.learner import Learner, Scheduler
from maskrl.grpo.processes import Process, SingleProcess

__all__ = [
    "Actor",
    "Algorithm",
    "Batch",
    "Learner",
    "Portions",
    "Process",
    "Scheduler",
    "SingleProcess",
    "collect",
    "learn",
]
