"""maskrl: reinforcement learning for text-to-image models that paint by unmasking tokens.

Importing this package loads neither torch nor pydantic.
"""

from maskrl._torchvision_guard import install as _install_torchvision_guard

__version__ = "0.1.0"

_install_torchvision_guard()
