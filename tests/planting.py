"""How faults are planted into sound components."""

import pytest
import torch

from maskrl.errors import PluginError

NOISE = torch.Generator()  # nobody handed it out


def make(component, **values):
    return component(component.Config(**values))


def mine(base, **changes):
    return make(type("Mine", (base,), {"__module__": __name__, **changes}))


def built(base, then):
    def init(self, config):
        base.__init__(self, config)
        then(self)

    return {"__init__": init}


def broken(check, component, complaint):
    with pytest.raises(PluginError, match=complaint) as error:
        check(component)
    assert "\n" not in str(error.value)


def refuse(*given, **named):
    raise ValueError("no")
