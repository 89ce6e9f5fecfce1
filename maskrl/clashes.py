"""Names that two installed packages offer: each component still has its spelling with the package before it."""

from __future__ import annotations

from itertools import groupby

from maskrl.registry import INTERFACE_VERSION, KINDS, installed


def clashes() -> list[str]:
    """Say which names are taken twice, a line each, sorted; imports nothing."""
    offers = [offer for offer in installed() if offer.interface == INTERFACE_VERSION]
    by_name = groupby(offers, key=lambda offer: (offer.kind, offer.name))
    found = [(kind, name, [offer.spelling for offer in same]) for (kind, name), same in by_name]
    return [
        f"the {KINDS[kind].label} {name!r} is offered by {len(spellings)} packages: a recipe writes"
        f" {' or '.join(map(repr, spellings))}"
        for kind, name, spellings in found
        if len(spellings) > 1
    ]
