"""Every verdict is said of a run that has its fault, and of no healthy one."""

import json

import pytest
from written_runs import measure, update, write_run

from maskrl.errors import RecipeError
from maskrl.report.measured import judged
from maskrl.report.reading import names, read_run
from maskrl.report.verdicts import FINE, LOOK, NOTE, TROUBLE, by_weight, verdicts

HEALTHY = [update(n) for n in range(1, 41)]


def said(folder):
    """Return what is said of a run: weights and lines."""
    run = read_run(folder, "it")
    return [(one.weight, one.text) for one in by_weight([*verdicts(run), *judged(run)])]


def lines(folder, weight):
    return [text for w, text in said(folder) if w == weight]


def changed(rows, **columns):
    """Put other values into a column, a value or a function of the update each."""
    return [
        {**row, **{k: v(row["update"]) if callable(v) else v for k, v in columns.items()}} for row in rows
    ]


def test_of_a_healthy_run_nothing_is_said_but_that_its_reward_rose(tmp_path):
    folder = write_run(tmp_path / "run", HEALTHY)
    measure(folder, "nobody_has_it", "before", {"beauty": 0.3})
    measure(folder, "nobody_has_it", "after", {"beauty": 0.5})
    assert said(folder) == [
        (FINE, "The reward rose from 0.45 to 3.65."),
        (FINE, "Beauty is better: 0.300 ± 0.010 → 0.500 ± 0.010, +0.200 ± 0.014."),
    ]


def test_a_hacked_reward_is_named_with_the_update_since_which(tmp_path):
    watched = [
        {**row, "held_out_eye": 0.1 * min(n, 40 - n), "held_out_eye_agreement": 0.8 if n < 25 else 0.0}
        if (n := row["update"]) % 4 == 0
        else row
        for row in HEALTHY
    ]
    folder = write_run(tmp_path / "run", watched)
    (hacked,) = lines(folder, TROUBLE)
    assert "held-out reward eye fell" in hacked
    assert "while the reward rose since update 20:" in hacked
    assert any("no longer agrees with the held-out reward eye" in line for line in lines(folder, LOOK))


def test_a_held_out_reward_that_rises_too_is_not_named(tmp_path):
    watched = changed(HEALTHY, held_out_eye=lambda n: 0.05 * n, held_out_eye_agreement=0.8)
    assert lines(write_run(tmp_path / "run", watched), TROUBLE) == []


@pytest.mark.parametrize(
    ("column", "weight", "what"),
    [
        ({"diversity_tokens": lambda n: 0.5 if n < 25 else 0.2}, LOOK, "Diversity of tokens fell by half"),
        ({"diversity_tokens": lambda n: 0.5 / n**2}, TROUBLE, "Diversity of tokens fell to less than a tenth"),
        ({"reward_std": lambda n: 1.0 / n**2}, TROUBLE, "nothing is left to learn from"),
        ({"skipped": lambda n: float(n in (7, 9))}, LOOK, "no weight moved, in 2 updates, the first of them 7."),
        ({"skipped": 1.0}, TROUBLE, "No group was kept"),
        ({"grad_norm": lambda n: 100.0 if n == 12 else 1.0}, LOOK, "jumped to 100 at update 12"),
        ({"reward_mean": lambda n: -0.1 * n}, TROUBLE, "The reward fell from"),
        ({"reward_mean": lambda n: float(n % 2)}, LOOK, "did not move beyond its own noise"),
        ({"ratio_max": lambda n: 1.5 if n == 3 else 1.0}, TROUBLE, "The ratio is not 1 in update 3,"),
        ({"loss": lambda n: None if n in (5, 6) else 0.0}, TROUBLE, "2 updates have numbers that are none"),
        ({"loss": lambda n: float("nan") if n == 5 else 0.0}, TROUBLE, "the first at update 5 (loss)"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_said(tmp_path, column, weight, what):
    folder = write_run(tmp_path / "run", changed(HEALTHY, **column))
    found = [text for text in lines(folder, weight) if what in text]
    assert len(found) == 1, said(folder)


def test_over_several_passes_a_ratio_may_move_within_the_clip_range_and_not_beyond(tmp_path):
    moved = changed(HEALTHY, ratio_min=0.95, ratio_max=lambda n: 1.3 if n > 30 else 1.1)
    inside = write_run(tmp_path / "inside", changed(moved, ratio_max=1.1), passes=2)
    beyond = write_run(tmp_path / "beyond", changed(moved, clip_fraction=0.5), passes=2)
    assert [text for _, text in said(inside) if "he ratio" in text] == []
    assert "The ratio left the clip range 0.9 to 1.2 in 10 updates, the first of them 31." in lines(
        beyond, NOTE
    )
    assert any("50% of the image-step pairs are clipped" in line for line in lines(beyond, LOOK))


def test_a_run_that_was_killed_and_resumed_is_one(tmp_path):
    folder = write_run(tmp_path / "run", HEALTHY, starts=3, planned=100)
    assert "It was interrupted and resumed twice." in lines(folder, NOTE)
    assert any(line.startswith("40 of 100 updates are made") for line in lines(folder, LOOK))


def test_a_run_without_an_evaluation_is_one(tmp_path):
    assert any("No evaluation was made" in line for line in lines(write_run(tmp_path / "run", HEALTHY), LOOK))


def test_an_evaluation_that_is_missing_after_all_updates_is_missed(tmp_path):
    folder = write_run(tmp_path / "run", HEALTHY)
    measure(folder, "nobody_has_it", "before", {"beauty": 0.3})
    assert lines(folder, LOOK) == ["All updates are made, and no evaluation after them."]


def test_few_updates_are_no_trend(tmp_path):
    assert lines(write_run(tmp_path / "one", HEALTHY[:1]), NOTE) == [
        "One update was made: too few to tell a trend."
    ]
    assert lines(write_run(tmp_path / "none", []), TROUBLE) == ["No update was made."]


def test_chance_is_called_chance_and_what_fell_is_named(tmp_path):
    folder = write_run(tmp_path / "run", HEALTHY)
    measure(folder, "nobody_has_it", "before", {"beauty": 0.30, "colour": 0.5})
    measure(folder, "nobody_has_it", "after", {"beauty": 0.31, "colour": 0.4})
    assert "Beauty moved no more than chance allows: 0.300 ± 0.010 → 0.310 ± 0.010, +0.010 ± 0.014." in lines(
        folder, NOTE
    )
    assert any("Worse beyond two standard errors in Beauty" in line and "colour (-0.100" in line
               for line in lines(folder, LOOK))  # fmt: skip


def test_each_side_has_its_best_guidance(tmp_path):
    folder = write_run(tmp_path / "run", HEALTHY)
    for label, guidance, before, after in (("nobody_has_it", 1.0, 0.3, 0.6), ("at_3", 3.0, 0.5, 0.4)):
        measure(folder, label, "before", {"beauty": before}, guidance)
        measure(folder, label, "after", {"beauty": after}, guidance)
    assert any("Beauty is better: 0.500 ± 0.010 → 0.600 ± 0.010" in line for line in lines(folder, FINE))


def test_a_half_written_line_is_no_row_and_a_damaged_one_is_told(tmp_path):
    half = write_run(tmp_path / "half", HEALTHY, tail='{"kind": "update", "upd')
    damaged = write_run(tmp_path / "damaged", HEALTHY, tail="{oh\n" + json.dumps(update(41)) + "\n")
    assert len(read_run(half, "").updates) == len(read_run(damaged, "").updates) == 40
    assert lines(half, TROUBLE) == []
    assert any("metrics.jsonl is damaged after row 40" in line for line in lines(damaged, TROUBLE))


def test_what_is_damaged_beside_the_metrics_is_told_and_the_rest_is_shown(tmp_path):
    folder = write_run(tmp_path / "run", HEALTHY)
    measure(folder, "nobody_has_it", "before", {"beauty": 0.3})
    (folder / "eval" / "nobody_has_it" / "before" / "summary.json").write_text("{")
    (folder / "run.json").write_text("[")
    (folder / "recipe.toml").write_text("oh no")
    told = lines(folder, TROUBLE)
    assert [any(name in line for line in told) for name in ("summary.json", "run.json", "recipe.toml")] == [
        True
    ] * 3
    assert any("The reward rose" in line for line in lines(folder, FINE))


def test_a_folder_without_a_run_is_refused_in_a_line(tmp_path):
    with pytest.raises(RecipeError, match=r"holds no run: neither recipe.toml nor metrics.jsonl"):
        read_run(tmp_path, "it")


def test_runs_have_names_that_differ_and_cells_of_a_sweep_say_their_variant(tmp_path):
    assert names([tmp_path / "a" / "mine"]) == ["mine"]
    assert names([tmp_path / "a" / "seed_0"]) == ["a/seed_0"]
    assert names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
    assert names([tmp_path / "x", tmp_path / "x"]) == ["x", "x (2)"]


def test_the_gravest_is_said_first(tmp_path):
    folder = write_run(tmp_path / "run", changed(HEALTHY, skipped=1.0), starts=2)
    measure(folder, "nobody_has_it", "before", {"beauty": 0.5})
    measure(folder, "nobody_has_it", "after", {"beauty": 0.3})
    assert [weight for weight, _ in said(folder)] == [TROUBLE, LOOK, FINE, NOTE]
