"""What a component must keep to, as checks that a plugin's own tests call: one function per interface.

Each takes a built component and raises :class:`maskrl.errors.PluginError` at the first broken promise::

    def test_contract():
        check_reward(MyReward(MyReward.Config()))
"""

from maskrl.testing.classes import check_class
from maskrl.testing.detectors import check_detector
from maskrl.testing.evaluations import check_evaluation
from maskrl.testing.filters import check_filter
from maskrl.testing.generators import check_generator
from maskrl.testing.promises import PROMPTS
from maskrl.testing.prompts import check_prompts
from maskrl.testing.reducers import check_reducer
from maskrl.testing.rewards import check_reward
from maskrl.testing.transitions import check_transition

__all__ = [
    "PROMPTS",
    "check_class",
    "check_detector",
    "check_evaluation",
    "check_filter",
    "check_generator",
    "check_prompts",
    "check_reducer",
    "check_reward",
    "check_transition",
]
