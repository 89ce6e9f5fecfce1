"""Evaluations of components that a test has built itself."""

from maskrl.evaluations.geneval import GenEvalBenchmark
from maskrl.evaluations.relative_correctness import RelativeCorrectness
from maskrl.evaluations.scores import MeanReward


class Given:
    """A component that is there, where a section chooses one."""

    def __init__(self, component):
        self.component = component

    def build(self):
        return self.component


class Unable:
    """A detector that finds nothing: for what needs none."""

    modules = ()


def geneval(detector=None):
    detector = detector or Unable()
    return GenEvalBenchmark(GenEvalBenchmark.Config.model_construct(detector=Given(detector)))


def mean_reward(reward):
    return MeanReward(MeanReward.Config.model_construct(reward=Given(reward)))


def relative_correctness(detector, reward, seed=5):
    config = RelativeCorrectness.Config.model_construct(
        detector=Given(detector), reward=Given(reward), seed=seed
    )
    return RelativeCorrectness(config)
