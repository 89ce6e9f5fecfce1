"""The six interfaces that a recipe names, and two small ones: detectors and prompt sets.

A concrete class is final: component -> interface -> class. It implements what is abstract, and may override what its
interface implements by default (``cost``, ``check``, ``prefill``, ``score_terms``...); to vary a class, wrap it.

What holds of all: equal input gives equal output, with no noise but a given stream's; what is handed in stays as it
is; one row, image or prompt is told nothing of the others. ``maskrl.testing`` checks these promises and those that
stand at the methods.
"""

from maskrl.interfaces.evaluation import (
    DistributionEvaluation,
    Evaluation,
    ImageEvaluation,
    Number,
    Published,
    Row,
)
from maskrl.interfaces.generator import Condition, MaskedGenerator
from maskrl.interfaces.judges import Detection, Detector, PromptSet
from maskrl.interfaces.training import GroupFilter, RewardModel, StepReducer, TransitionProb

__all__ = [
    "Condition",
    "Detection",
    "Detector",
    "DistributionEvaluation",
    "Evaluation",
    "GroupFilter",
    "ImageEvaluation",
    "MaskedGenerator",
    "Number",
    "PromptSet",
    "Published",
    "RewardModel",
    "Row",
    "StepReducer",
    "TransitionProb",
]
