"""Components are found by name in metadata, and every way of not finding one says what to do."""

import importlib.metadata
import sys

import pytest

from maskrl import registry
from maskrl.errors import AmbiguousComponent, PluginError, RecipeError, Terminated, UnknownComponent
from maskrl.interfaces import RewardModel

REWARDS = "maskrl.rewards.v1"
GOOD = """
from maskrl.interfaces import RewardModel
class Good(RewardModel):
    def score(self, images, prompts): return images.mean(dim=(1, 2, 3))
class Unfinished(RewardModel): pass
class Stranger: pass
def factory(): return Good
"""


def test_every_built_in_loads_and_implements_its_interface():
    ours = [offer for offer in registry.installed() if offer.package == "maskrl"]
    assert {offer.kind for offer in ours} == set(registry.KINDS)
    for offer in ours:
        assert isinstance(offer.load(), type)


def test_a_package_offers_by_entry_point_alone(install):
    install("maskrl-good", GOOD, {REWARDS: {"good": "maskrl_good:Good"}})
    assert issubclass(registry.load("rewards", "good"), RewardModel)


def test_listing_imports_nothing(install):
    install("maskrl-bomb", "raise RuntimeError", {REWARDS: {"bomb": "maskrl_bomb:Bomb"}})
    assert "bomb" in {offer.name for offer in registry.installed()}
    assert "maskrl_bomb" not in sys.modules


def test_listing_reads_no_more_of_a_package_than_what_it_offers(install, monkeypatch):
    install("maskrl-good", GOOD, {REWARDS: {"good": "maskrl_good:Good"}})
    install("stranger", GOOD, {"strangers": {"good": "stranger:Good"}})
    whole, read = importlib.metadata.Distribution.metadata.fget, []
    monkeypatch.setattr(
        importlib.metadata.Distribution, "metadata", property(lambda d: read.append(d) or whole(d))
    )
    offers = [offer.package for offer in registry.installed()]
    assert "maskrl-good" in offers
    assert len(read) <= len(set(offers)) + 1  # an editable one can lie there twice


def test_unknown_names_the_nearest_and_lists_all(install):
    install("maskrl-good", GOOD, {REWARDS: {"good": "maskrl_good:Good"}})
    with pytest.raises(
        UnknownComponent, match=r"no reward is called 'god'; did you mean 'good'\?.*clip, .*good"
    ):
        registry.find("rewards", "god")
    with pytest.raises(UnknownComponent) as nothing_near:
        registry.find("rewards", "zzz")
    assert "did you mean" not in str(nothing_near.value)


def test_an_offer_for_another_interface_version_is_named(install):
    install("maskrl-future", GOOD, {"maskrl.rewards.v2": {"good": "maskrl_future:Good"}}, version="3.0")
    with pytest.raises(UnknownComponent, match=r"maskrl-future 3\.0 is written for version 2"):
        registry.load("rewards", "good")


def test_two_offers_of_one_name_are_refused_with_both_spellings(install):
    install("maskrl-one", GOOD, {REWARDS: {"good": "maskrl_one:Good"}})
    install("maskrl_two", GOOD, {REWARDS: {"good": "maskrl_two:Good"}})
    with pytest.raises(AmbiguousComponent, match="'maskrl-one/good' or 'maskrl-two/good'"):
        registry.load("rewards", "good")
    assert registry.load("rewards", "maskrl-two/good").__module__ == "maskrl_two"


def test_a_package_may_offer_the_name_of_a_built_in(install):
    install("maskrl-clip", GOOD, {REWARDS: {"clip": "maskrl_clip:Good"}})
    with pytest.raises(AmbiguousComponent, match="'maskrl/clip' or 'maskrl-clip/clip'"):
        registry.load("rewards", "clip")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("maskrl_bad:Missing", "AttributeError"),
        ("maskrl_nowhere:Good", "ModuleNotFoundError: No module named 'maskrl_nowhere'"),
        ("not a target", "does not load"),
        ("maskrl_bad:factory", "is not a class"),
        ("maskrl_bad:Stranger", "is no subclass of maskrl.interfaces.RewardModel"),
        ("maskrl_bad:Unfinished", "lacks score"),
    ],
)
def test_a_broken_component_names_package_target_and_reason(install, target, reason):
    install("maskrl-bad", GOOD, {REWARDS: {"bad": target, "good": "maskrl_bad:Good"}})
    with pytest.raises(PluginError) as broken:
        registry.load("rewards", "bad")
    message = str(broken.value)
    assert all(part in message for part in ("maskrl-bad 0.1", target, reason)), message
    assert "\n" not in message
    assert registry.load("rewards", "good").__name__ == "Good"


def test_a_component_of_another_kind_is_refused():
    with pytest.raises(PluginError, match=r"is no subclass of .*GroupFilter"):
        registry.Offer("filters", "clip", "maskrl", "0", "maskrl.reducers.none:NoReduction", 1).load()


def test_a_class_in_a_file_needs_no_package(tmp_path):
    (tmp_path / "mine.py").write_text(GOOD)
    found = registry.load("rewards", "mine.py:Good", tmp_path)
    assert issubclass(found, RewardModel)
    absolute = registry.resolve_local("mine.py:Good", tmp_path)
    assert registry.load("rewards", absolute) is found


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("nowhere.py:Good", RecipeError, "there is no file .*nowhere.py"),
        ("mine.py:Goof", UnknownComponent, "holds no 'Goof'; did you mean 'Good'"),
        ("mine.py:Stranger", PluginError, "is no subclass"),
        ("bomb.py:Good", PluginError, "does not load: SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, name, error, match):
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "bomb.py").write_text("class")
    with pytest.raises(error, match=match):
        registry.load("rewards", name, tmp_path)


def test_a_class_in_a_file_that_imports_its_neighbour_is_told_to_become_a_package(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("")
    (tmp_path / "mine.py").write_text("import neighbour_of_mine")
    (tmp_path / "other.py").write_text("import nothing_like_this")
    with pytest.raises(PluginError, match="not its neighbours: make them a package"):
        registry.load("rewards", "mine.py:Mine", tmp_path)
    with pytest.raises(PluginError, match=r"No module named 'nothing_like_this'$"):
        registry.load("rewards", "other.py:Mine", tmp_path)


def test_a_signal_while_a_component_is_imported_is_not_its_fault(install, tmp_path):
    code = "from maskrl.errors import Terminated\nraise Terminated(143)"
    install("maskrl-slow", code, {REWARDS: {"slow": "maskrl_slow:Slow"}})
    (tmp_path / "slow.py").write_text(code)
    for name in ("slow", "slow.py:Slow"):
        with pytest.raises(Terminated):
            registry.load("rewards", name, tmp_path)
