"""Cards: their numbers are those of the rows, what they run is what was measured, and the verdict is right."""

import json
from pathlib import Path

import pytest

from maskrl.errors import RecipeError
from maskrl.evaluations.geneval import PUBLISHED
from maskrl.reproductions import card as module
from maskrl.reproductions.card import cards, read_card
from maskrl.reproductions.verdict import verdicts
from maskrl.sweeps.table import lines

ROOT = Path(__file__).parents[1]
MEASURED = [name for name in cards() if read_card(name).file.study]
BESIDE = ("tracking", "checkpoint", "watch", "seed")  # what makes no other run


def rows_of(card):
    rows = map(json.loads, (ROOT / card.file.source).read_text().splitlines())
    return [row for row in rows if row["variant"] == card.file.variant]


def settings(recipe):
    """Every setting of a recipe by its dotted key."""
    found, left = {}, [("", {key: value for key, value in recipe.items() if key not in BESIDE})]
    while left:
        above, table = left.pop()
        for key, value in table.items():
            if isinstance(value, dict):
                left.append((f"{above}{key}.", value))
            else:
                found[f"{above}{key}"] = value
    return found


def test_the_cards_are_the_quickstart_cells_and_the_two_readings():
    assert {"quickstart", "full", "kl_exact", "four_steps", "strict"} <= set(MEASURED)
    assert {"paper_as_written", "paper_as_released"} == set(cards()) - set(MEASURED)


@pytest.mark.parametrize("name", MEASURED)
def test_a_card_has_the_numbers_of_its_rows(name):
    card = read_card(name)
    rows = rows_of(card)
    assert sorted(row["seed"] for row in rows) == list(card.file.seeds)
    gains = {line.number: line.gain for line in lines(rows, None)}
    for number, expected in card.file.expected.items():
        found = (round(gains[number].mean, 3), round(gains[number].half, 3))
        assert (expected.gain, expected.interval) == found, f"{name}: {number} is stale"
    updates = sum(row["updates"] * row["seconds_per_update"] for row in rows) / 3600
    assert updates / 2 < card.file.hours < 4 * updates


@pytest.mark.parametrize("name", MEASURED)
def test_a_card_runs_what_was_measured(name):
    card = read_card(name)
    (variant,) = card.sweep(1, smoke=False).variants
    now, then = settings(variant.recipe.model_dump(mode="json")), settings(rows_of(card)[0]["recipe"])
    assert {key: now[key] for key in now.keys() & then.keys() if now[key] != then[key]} == {}


def test_the_papers_gain_is_that_of_its_table():
    before, after = (one.numbers["overall"] for one in PUBLISHED)
    for name in ("paper_as_written", "paper_as_released"):
        assert read_card(name).file.expected["geneval"].gain == round(after - before, 2)
        assert read_card(name).file.gpu


@pytest.mark.parametrize("name", cards())
def test_a_smoke_run_is_short(name):
    (variant,) = read_card(name).sweep(1, smoke=True).variants
    assert variant.recipe.training.updates <= 3
    images = [section.images_per_prompt for section in variant.recipe.eval.values()]
    assert len(images) <= 2
    assert set(images) <= {1}


def test_a_verdict_knows_inside_outside_and_what_nobody_knows():
    card = read_card("full")
    rows = rows_of(card)
    same = {verdict.number: verdict for verdict in verdicts(card, rows)}
    assert all(verdict.is_within for verdict in same.values())
    half = card.file.expected["geneval"].interval
    assert same["geneval"].band == pytest.approx(half * 2**0.5)
    (one, *_) = verdicts(card, rows[:1])
    assert one.band == pytest.approx(half * 2), "one seed is less sure than three"
    for row in rows:
        row["after"]["geneval"]["overall"]["mean"] -= 0.5
    (far, *_) = verdicts(card, rows)
    assert far.is_within is False
    assert "outside the band" in str(far)
    (unknown,) = verdicts(read_card("paper_as_written"), rows)
    assert unknown.is_within is None


def test_unknown_cards_and_variants_are_a_line(tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match=r"no card 'quickstrat'; did you mean 'quickstart'\?"):
        read_card("quickstrat")
    text = (module.CARDS / "full.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace('variant = "full"', 'variant = "fall"'))
    (tmp_path / "both.toml").write_text('recipe = "shapes_clip"\n' + text)
    monkeypatch.setattr(module, "CARDS", tmp_path)
    with pytest.raises(RecipeError, match=r"no variant 'fall'; did you mean 'full'\?"):
        read_card("mine").sweep(1, smoke=False)
    with pytest.raises(RecipeError, match=r"both\.toml: a card is of a recipe, or of a study"):
        read_card("both")


def test_the_commands(cli, tmp_path):
    listed = json.loads(cli("repro", "list", "--json").out)
    assert [one["name"] for one in listed] == list(cards())
    assert "geneval: +0.151 ± 0.078" in cli("repro", "show", "full").out
    refused = cli("repro", "run", "paper_as_written", "--smoke", "--out", tmp_path / "out")
    assert refused.code == 4
    assert "paper_as_written needs one GPU of 40 GB or more, and torch sees none" in refused.err
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_smoke_run_runs(cli, tmp_path):
    done = cli("repro", "run", "four_steps", "--smoke", "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["smoke"], [row["status"] for row in told["rows"]], told["verdicts"]) == (
        True,
        ["finished"],
        [],
    )
