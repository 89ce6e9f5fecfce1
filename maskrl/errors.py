"""Every error maskrl raises on purpose.

::

    MaskRLError
    ├── RecipeError             (ValueError)   what the user wrote is wrong; exit code 2
    │   ├── UnknownComponent    (LookupError)  no installed component has that name
    │   └── AmbiguousComponent  (LookupError)  two packages offer one name
    ├── PluginError             (ImportError)  a component does not load, or breaks its contract; exit code 3
    └── TrainingError           (RuntimeError) a run or an evaluation cannot go on; exit code 4

One line each: what, which, why, what to do. They reach a terminal without a traceback;
anything else is a bug of ours and keeps its traceback.
"""


class MaskRLError(Exception):
    """The root of the tree; catch this to catch all of it."""

    exit_code = 1


class RecipeError(MaskRLError, ValueError):
    """What the user wrote (a recipe, an argument, a prompt file) is wrong."""

    exit_code = 2


class UnknownComponent(RecipeError, LookupError):
    """No installed component has the name a recipe asks for."""


class AmbiguousComponent(RecipeError, LookupError):
    """Two installed packages offer the name a recipe asks for."""


class PluginError(MaskRLError, ImportError):
    """A component cannot be loaded, raises something of its own, or breaks its interface's contract."""

    exit_code = 3


class TrainingError(MaskRLError, RuntimeError):
    """A run, a check or an evaluation cannot go on."""

    exit_code = 4


class Terminated(SystemExit):
    """A signal ends the program; whoever was at work has not raised it."""


def quote(text: str, most: int = 60) -> str:
    """Return a prompt as a message quotes it: in one line, cut after ``most`` characters."""
    return repr(text if len(text) <= most else text[:most] + "…")
