"""What a generator promises of its gradient: it reaches ``module``, and is that of the logits."""

from __future__ import annotations

import torch

from maskrl.testing.promises import require
from maskrl.testing.scene import Scene
from maskrl.testing.weights import directions, moved, trained

STEP = 0.05  # of the way that weights are moved: far above fp32's rounding, and the logits hardly bend
SLOPE_TOLERANCE = 0.02  # sound networks are within 2e-4 in fp32; a branch that is cut off is 0.1 off and more


def check_gradient(scene: Scene, guidance: float) -> None:
    """A gradient reaches ``module``, and tells how the logits change as all trained weights move."""
    component = scene.component
    packed = scene.logits(guidance, positions=scene.masked)
    require(component, packed.requires_grad, f"no gradient reaches module at guidance {guidance}: cut off")
    grads = torch.autograd.grad(packed.logsumexp(-1).sum(), trained(component.module), allow_unused=True)
    reached = any(bool(gradient.any()) for gradient in grads if gradient is not None)
    require(component, reached, f"no gradient reaches module at guidance {guidance}")
    share = _slope(scene, guidance)
    complaint = (
        f"the gradient is not that of the logits at guidance {guidance}: it tells {share:.2g} of a change"
    )
    require(component, abs(share - 1) <= SLOPE_TOLERANCE, f"{complaint}; a part is cut off, or counted twice")


def _slope(scene: Scene, guidance: float) -> float:
    """Return what the gradient tells of the change of the logits, along that change: 1 if it is theirs."""
    module = scene.component.module
    with torch.no_grad():
        with moved(module, STEP):
            ahead = scene.logits(guidance, positions=scene.masked).double()
        with moved(module, -STEP):
            change = ahead - scene.logits(guidance, positions=scene.masked).double()
    logits = scene.logits(guidance, positions=scene.masked)
    grads = torch.autograd.grad((logits.double() * change).sum(), trained(module), allow_unused=True)
    told = [
        float((gradient.double() * way).sum())
        for gradient, way in zip(grads, directions(module), strict=True)
        if gradient is not None
    ]
    return 2 * STEP * sum(told) / max(float(change.square().sum()), torch.finfo(torch.float64).tiny)
