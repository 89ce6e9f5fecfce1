"""One update of a run: the two verbs of the algorithm, and the held-out rewards between them."""

from __future__ import annotations

from pathlib import Path

from maskrl.grpo.update import learn
from maskrl.training.setup import Setup


def make_update(setup: Setup, update: int, run: Path | None = None) -> dict[str, float]:
    """Make update ``update``, counted from 0, together with the other processes, and return its metrics.

    In the folder ``run`` it leaves what it learnt from, where it is time to.

    Raises:
        TrainingError: a number is not finite.
        PluginError: a component breaks its contract.
    """
    batch = setup.rollouts.take(update)
    held_out = setup.held_out.score_if_due(batch)  # may fail: before a weight moves
    if run is not None:
        setup.groups.save_if_due(run, batch)
    setup.rollouts.begin(update + 1)
    learnt = learn(setup.learner, batch)
    setup.learner.optimizer.zero_grad(
        set_to_none=True
    )  # or they would lie there while the next batch is painted
    averaged = {} if setup.average is None else setup.average.update()
    return {**batch.metrics, **learnt, **held_out, **averaged}
