"""maskrl: reinforcement learning for text-to-image models that paint by unmasking tokens.

::

    import maskrl

    model = maskrl.load("shapes")
    images = model.sample("three red circles", n=4)

Importing this package loads neither torch nor pydantic; :func:`load` and :class:`Trainer` do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from maskrl._torchvision_guard import install as _install_torchvision_guard

if TYPE_CHECKING:
    from maskrl.library.images import Images as Images
    from maskrl.library.model import Model as Model
    from maskrl.library.model import load as load
    from maskrl.library.trainer import Trainer as Trainer

__version__ = "0.1.0"
__all__ = ["Images", "Model", "Trainer", "__version__", "load"]

_HOMES = {
    "Images": "maskrl.library.images",
    "Model": "maskrl.library.model",
    "Trainer": "maskrl.library.trainer",
    "load": "maskrl.library.model",
}

_install_torchvision_guard()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maskrl' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
