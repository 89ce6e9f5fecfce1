"""What commands print: whole numbers, names as they are, and labels that are earned."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from toy_run import geneval_prompts

from maskrl.cli.eval import _apart
from maskrl.cli.eval_images import print_report
from maskrl.evals.results import Report, Result
from maskrl.evaluations.caption_margins import CaptionMargins, CaptionRow, Margin, Mean, Ranking
from maskrl.evaluations.geneval import GenEvalBenchmark
from maskrl.evaluations.relative_correctness import RelativeCorrectness
from maskrl.geneval.official_prompts import OFFICIAL_IMAGES, GenEvalPrompts, are_official, label
from maskrl.interfaces import Number
from maskrl.training.tables import plain_console, print_table

TOY = Path(__file__).with_name("toy_run.py")


def test_numbers_are_never_cut_and_nothing_is_markup(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    table = Table()
    for heading in ("a long name of a task", "res[bold]x", "res[/]y :smile:"):
        table.add_column(heading)
    table.add_row("single_object", "45.678 ± 0.123", "[red]12.345678")
    print_table(table)
    out = capsys.readouterr().out
    for text in (
        "res[bold]x",
        "res[/]y :smile:",
        "45.678 ± 0.123",
        "[red]12.345678",
        "a long name of a task",
    ):
        assert text in out
    assert "…" not in out
    plain_console().print("res[/]x")
    assert capsys.readouterr().out == "res[/]x\n"


@pytest.mark.parametrize(
    "name", ["res[/]x", *(pytest.param(name, marks=pytest.mark.slow) for name in ("res[bold]x", "a b"))]
)
def test_a_comparison_survives_a_pipe_of_forty_columns(toy_recipe, tmp_path, cli, name):
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    evaluation = f'prompts = "geneval.jsonl"\ndetector = "{TOY}:Tiles"\nimages_per_prompt = 1\n'
    toy_recipe.write_text(f"{toy_recipe.read_text()}[eval.geneval]\n{evaluation}")
    folders = [tmp_path / side / name / "results" for side in ("first", "second")]
    for folder in folders:
        result = cli("eval", "geneval", "--recipe", toy_recipe, "--out", folder)
        assert result.code == 0
        assert f"results: {folder}/geneval" in result.out
    command = [
        sys.executable,
        "-m",
        "maskrl",
        "eval",
        "compare",
        *(str(folder / "geneval") for folder in folders),
    ]
    environment = {**os.environ, "PYTHONPATH": str(TOY.parents[1]), "COLUMNS": "40"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"first/{name}/results/geneval" in done.stdout
    assert f"second/{name}/results/geneval" in done.stdout
    assert "+0.000 ± 0.000" in done.stdout


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        ("/a/b/base/geneval", "/a/b/mine/geneval", ("base/geneval", "mine/geneval")),
        ("base/geneval", "mine/summary.json", ("base/geneval", "mine/summary.json")),
        ("runs/a/eval/geneval/before", "runs/a/eval/geneval/after", ("before", "after")),
        ("same", "same", ("same", "same")),
    ],
)
def test_paths_are_shown_by_what_tells_them_apart(first, second, shown):
    assert _apart(Path(first), Path(second)) == shown


def test_the_name_of_geneval_needs_its_prompts_and_four_images_as_well():
    prompts = GenEvalPrompts(GenEvalPrompts.Config()).prompts()
    assert are_official(prompts)
    assert are_official(prompts[::-1])
    assert not are_official(prompts[:-1])
    assert label("GenEval", prompts, 4) == "GenEval"
    assert label("GenEval", prompts, 1) == "GenEval detector, 553 prompts with 1 images"
    assert label("GenEval", prompts[:100], 4) == "GenEval detector, 100 prompts with 4 images"
    assert label("GenEval-shapes", prompts[:100], 4) == "GenEval-shapes"


@pytest.mark.parametrize(("images", "rows"), [(OFFICIAL_IMAGES, 2), (100, 0)])
def test_papers_stand_beside_the_official_number_of_images_alone(images, rows):
    assert len(GenEvalBenchmark.published("GenEval", images)) == rows
    assert not GenEvalBenchmark.published("GenEval-shapes", images)


def test_sentences_with_numbers_are_lines_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "12")
    margin = Margin(0.5, 0.1, 0.25, 0.75, 0.9)
    mean = Mean(0.5, 0.1)
    row = CaptionRow(mean, mean, mean, margin, margin, 0.5, 8, 2)
    ranking = Ranking(0.51234, 0.41234, 0.61234, 123456, 12)
    asked = object.__new__(RelativeCorrectness)
    asked._report = lambda rows: CaptionMargins({"2": row}, row, row, row, ranking)
    told = {"notes": asked.notes((), 9)}
    result = Result("relative_correctness", "[red]mine[/]", {"over_half": Number(0.5, 0.1)}, 9, {}, told, {})
    print_report(asked, Report(result, ()), Path("out"))
    out = capsys.readouterr().out.splitlines()
    assert "[red]mine[/], 9 images" in out[0]
    assert "right above wrong within a group: 0.512 [0.412, 0.612], 123456 pairs in 12 groups" in out
