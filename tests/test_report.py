"""The page of a report: whole, of text alone, and the same for what is the same."""

from pathlib import Path

import pytest
from written_runs import measure, paint, update, write_run

from maskrl.cli import main
from maskrl.component import Needs
from maskrl.recipe import read_recipe
from maskrl.report.charts import MOST_POINTS, draw, short, ticks
from maskrl.report.curves import Curve, curves
from maskrl.report.measured import AgainstLine, against_first
from maskrl.report.page import render, write
from maskrl.report.pictures import LARGEST, sheets
from maskrl.report.reading import read_run, read_runs
from maskrl.report.settings import settings
from maskrl.runtime.folder import flat

MINUS = "\N{MINUS SIGN}"
HEALTHY = [update(n) for n in range(1, 41)]


def run_command(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(one) for one in arguments])
    return end.value.code or 0


def test_the_command_writes_a_page_that_names_nothing_outside_of_it(tmp_path, capsys):
    folder = write_run(tmp_path / "run", HEALTHY)
    paint(folder, "before", "after", "before_after")
    assert run_command("report", folder, "--out", tmp_path / "page.html") == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'page.html'}\n"
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert (
        "//"
        not in page.replace("data:image", "")
        .split("<script>")[0]
        .replace("base64,", "")
        .partition("<main>")[0]
    )
    assert [word for word in ("http:", "https:", 'src="/', "@import", "url(") if word in page] == []


def test_a_folder_that_is_no_run_is_one_line_and_writes_nothing(tmp_path, capsys):
    assert run_command("report", tmp_path, "--out", tmp_path / "page.html") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_cannot_be_made_leaves_the_one_that_is_there(tmp_path):
    folder = write_run(tmp_path / "run", HEALTHY)
    (tmp_path / "page.html").write_text("the old one")
    assert run_command("report", folder, tmp_path / "nothing", "--out", tmp_path / "page.html") == 2
    assert (tmp_path / "page.html").read_text() == "the old one"
    write([folder], tmp_path / "page.html")
    assert "the old one" not in (tmp_path / "page.html").read_text()
    assert [path.name for path in tmp_path.iterdir() if "unfinished" in path.name] == []


def test_what_comes_from_a_run_is_text(tmp_path):
    evil = "<script>alert(1)</script>"
    rows = [{**row, f"held_out_{evil}": float(row["update"])} for row in HEALTHY]
    folder = write_run(tmp_path / "<b>run", rows, prompt=evil)
    page = render([folder])
    assert evil not in page
    assert "<b>run" not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_is_the_same_twice_and_nothing_is_written_in_the_run(tmp_path):
    folder = write_run(tmp_path / "run", HEALTHY)
    paint(folder, "before", "after")
    files = sorted(folder.rglob("*"))
    assert render([folder]) == render([folder])
    assert sorted(folder.rglob("*")) == files


@pytest.mark.parametrize("made", [0, 1, 2])
def test_of_a_run_that_has_hardly_begun_there_is_a_page(tmp_path, made):
    page = render([write_run(tmp_path / "run", HEALTHY[:made])])
    assert "update" in page


def test_a_run_without_a_recipe_has_a_page(tmp_path):
    folder = write_run(tmp_path / "run", HEALTHY)
    (folder / "recipe.toml").unlink()
    assert "the recipe cannot be read" in render([folder])


def test_a_run_of_before_evaluations_had_sections_is_read():
    run = read_run(Path(__file__).parent / "fixtures" / "old_run" / "run", "old")
    assert (list(run.before), run.troubles, len(run.updates)) == (["geneval"], [], 5)


def test_only_what_changes_is_a_curve(tmp_path):
    run = read_run(write_run(tmp_path / "run", HEALTHY), "it")
    assert [curve.metric for curve in curves([run])] == [
        *("reward_mean", "reward_std", "diversity_tokens", "grad_norm"),
    ]
    page = render([tmp_path / "run"])
    assert "Clip fraction 0" in page


def test_curves_of_evaluations_need_one_between(tmp_path):
    rows = [
        {
            "kind": "eval",
            "update": n,
            "when": when,
            "geneval": 0.1 * n,
            "geneval_se": 0.01 * n,
            "geneval_colors": n,
        }
        for n, when in ((0, "before"), (20, "during"), (40, "after"))
    ]
    without = read_run(write_run(tmp_path / "without", [*HEALTHY, rows[0], rows[2]]), "it")
    having = read_run(write_run(tmp_path / "having", [*HEALTHY, *rows]), "it")
    assert [curve for curve in curves([without]) if curve.heading == "evaluations"] == []
    found = [curve for curve in curves([having]) if curve.heading == "evaluations"]
    assert [curve.metric for curve in found] == ["geneval", "geneval_colors"]
    assert found[0].lines[0] == [(0, 0.0), (20, 2.0), (40, 4.0)]


def test_a_line_breaks_where_there_is_no_number():
    points = [(1, 1.0), (2, 2.0), (3, float("nan")), (4, 4.0), (5, 5.0)]
    chart = draw(Curve("m", "learns", "M", "", {0: points}), ["it"])
    assert chart.strokes[0].path.count("M") == 2
    assert len(chart.gaps) == 1


def test_a_long_run_is_averaged_to_what_can_be_seen():
    points = [(n, float(n)) for n in range(1, 16_001)]
    chart = draw(Curve("m", "learns", "M", "", {0: points}), ["it"])
    assert len(chart.strokes[0].points) <= MOST_POINTS
    assert chart.averaged == 54


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [(0, 1, [0, 0.5, 1]), (-42, 16, [-60, -40, -20, 0, 20]), (3, 3, [1, 2, 3, 4, 5])],
)
def test_ticks_are_round_and_reach_around(low, high, marks):
    assert ticks(low, high) == pytest.approx(marks)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.12345, "0.123"),
        (-31.94, "-31.9"),
        (1234.5, "1,234"),
        (1.5e-5, "1.5e-5"),
        (1e-5, "1e-5"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert short(value) == text.replace("-", MINUS)


def test_two_runs_lie_over_each_other_and_are_compared(tmp_path):
    folders = [write_run(tmp_path / name, HEALTHY) for name in ("first", "second")]
    for folder, mean in zip(folders, (0.3, 0.5), strict=True):
        measure(folder, "beauty", "before", {"beauty": 0.2})
        measure(folder, "beauty", "after", {"beauty": mean})
    runs = read_runs(folders)
    assert all(set(curve.lines) == {0, 1} for curve in curves(runs))
    (found,) = against_first(runs)
    assert found.title == "beauty: Beauty, guidance 1"
    first, second = found.lines
    assert (first.name, first.after, first.difference) == ("first", "0.300 ± 0.010", "")
    assert second == AgainstLine("second", "0.500 ± 0.010", "+0.200 ± 0.014", "")


def test_runs_that_were_measured_otherwise_are_not_compared(tmp_path):
    folders = [write_run(tmp_path / name, HEALTHY) for name in ("first", "second")]
    for folder, guidance in zip(folders, (1.0, 3.0), strict=True):
        measure(folder, "beauty", "after", {"beauty": 0.3}, guidance)
    (found,) = against_first(read_runs(folders))
    assert found.lines[1].difference == ""
    assert "guidance" in found.lines[1].why


def test_runs_are_compared_at_the_best_guidance_of_each(tmp_path):
    folders = [write_run(tmp_path / name, HEALTHY) for name in ("first", "second")]
    for folder, at_1, at_3 in zip(folders, (0.3, 0.7), (0.5, 0.4), strict=True):
        for label, guidance, mean in (("one", 1.0, at_1), ("three", 3.0, at_3)):
            measure(folder, label, "before", {"beauty": 0.2}, guidance)
            measure(folder, label, "after", {"beauty": mean}, guidance)
    best = against_first(read_runs(folders))[0]
    assert best.title == "Beauty, each run at its best guidance"
    assert [line.after for line in best.lines] == ["0.500 ± 0.010", "0.700 ± 0.010"]
    assert best.lines[1].difference == "+0.200 ± 0.014"


def test_sheets_come_in_order_large_ones_smaller_and_half_ones_not(tmp_path):
    folder = write_run(tmp_path / "run", HEALTHY)
    paint(folder, "before", "update_00100", "update_00025", "after", size=(400, 400))
    (folder / "samples" / "update_00050.png").write_bytes(b"\x89PNG half")
    found = sheets(folder)
    assert [one.label for one in found] == [
        "before training",
        "after update 25",
        "after update 100",
        "after training",
    ]
    assert all(len(one.address) < 4 * LARGEST for one in found)
    assert found[0].address.startswith("data:image/webp")


def test_what_differs_from_the_nearest_recipe_is_marked(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(read_recipe("shapes_clip", ["training.updates=77"], Needs((), ())).to_toml())
    recipe = flat(read_recipe(mine, needs=Needs((), ())))
    found = settings(recipe)
    assert (found.other, found.different) == ("shapes_clip", 1)
    (updates,) = [one for one in found.sections["training"] if one.key == "updates"]
    assert (updates.value, updates.elsewhere) == ("77", "120")
    assert settings(recipe, mine).different == 0
