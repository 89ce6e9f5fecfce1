"""The page of results says what the files of results say."""

import json
import math
import re
import statistics
from pathlib import Path

import pytest
from scipy.stats import t

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
LAST = 6  # updates


def interval(values):
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), half


def shown(values, digits, sign=""):
    mean, half = interval(values)
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"


def figure1():
    """By transition: the gain in GenEval and the last rewards, seed by seed."""
    rows = [json.loads(line) for line in (RESULTS / "figure1.jsonl").read_text().splitlines()]
    rewards = json.loads((RESULTS / "figure1_rewards.json").read_text())["reward_mean"]
    found = {}
    for name in rewards:
        mine = sorted((row for row in rows if row["variant"] == name), key=lambda row: row["seed"])
        assert [row["seed"] for row in mine] == [0, 1, 2, 3, 4]
        gain = [
            row["after"]["geneval"]["overall"]["mean"] - row["before"]["geneval"]["overall"]["mean"]
            for row in mine
        ]
        last = [statistics.mean(rewards[name][str(row["seed"])][-LAST:]) for row in mine]
        found[name] = (gain, last)
    return found


@pytest.mark.parametrize("name", ["p_theta2", "p_theta1", "ar", "plackett_luce"])
def test_the_table_of_figure_1_is_that_of_its_rows(name):
    found = figure1()
    gain, last = found[name]
    cells = [shown(last, 1), shown(gain, 3, "+")]
    for mine, base, digits in zip(found[name], found["p_theta2"], (3, 1), strict=True):
        against = [a - b for a, b in zip(mine, base, strict=True)]
        cells.append("-" if name == "p_theta2" else shown(against, digits, "+"))
    assert f"| `{name}` | {' | '.join([cells[0], cells[3], cells[1], cells[2]])} |" in PAGE


def test_the_table_of_signal_is_that_of_its_file():
    signal = json.loads((RESULTS / "gradient_noise.json").read_text())["signal"]
    assert len(signal) == 7
    for name, row in signal.items():
        assert f"| {name} | {row['all']['signal']:.3f} ± {row['all']['se']:.3f} |" in PAGE


STRICT = "the stricter teacher; guidance 1, "
TAUGHT = {  # a row of the page: a run, and after how many updates
    "forgiving teacher, guidance 1, constant 4e-4, after 40 updates": ("guidance 1, constant rate 4e-4", 40),
    "the same with the std of all images, cosine over 600, after 100": (
        "guidance 1, cosine from 4e-4 over 600",
        100,
    ),
    "positions by chance in training, after 40": ("positions by chance in training", 40),
    "the same with [credit by step](equations.md), after 40": ("the same with credit by step", 40),
    "the same, after 80": ("the same with credit by step", 80),
    "**strict teacher**, guidance 1, cosine from 4e-4 over 100, after 50": (STRICT + "cosine", 50),
    "the same, after 100": (STRICT + "cosine", 100),
    "strict teacher, constant 4e-4, after 80": (STRICT + "constant", 80),
    "the same, after 120": (STRICT + "constant", 120),
    "both teachers added up, cosine over 100, after 50": ("the sum of both teachers", 50),
}


def short(value):
    return f"{value:.3f}".removeprefix("0")


def test_the_table_of_teachers_is_that_of_its_file():
    runs = json.loads((RESULTS / "learner_search.json").read_text())["runs"]
    for label, (what, updates) in TAUGHT.items():
        run = next(run for run in runs if run["what"].startswith(what))
        geneval, clean = run["geneval"][str(updates)], run["cleanliness"].get(str(updates), {})
        cells = []
        for guidance in "123":
            numbers = [geneval.get(guidance), *clean.get(guidance, (None, None))]
            said = ", ".join("-" if x is None else short(x) for x in numbers)
            cells.append("-" if numbers[0] is None else said)
        assert f"| {label} | {' | '.join(cells)} |" in PAGE


def test_the_table_of_settings_is_written_from_its_rows(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from study_table import table

    study = ROOT / "benchmarks" / "studies" / "settings.toml"
    text = table(study)
    assert f"<!-- settings -->\n{text}\n<!-- /settings -->" in PAGE
    cells = {line.split(" | ")[0].strip("|` "): line.split(" | ")[1:] for line in text.splitlines()[2:]}
    verdicts = PAGE.split("<!-- /settings -->")[1].split("\n## ")[0]
    for variant in ("kl_exact", "kl_k3", "no_filter", "random_half", "last_half", "first_half", "four_steps"):
        assert cells[variant][1] in verdicts, "a verdict stands on the interval of its row"
    for variant in ("strict", "oracle"):
        assert cells[variant][1] in verdicts
    assert cells["image_reward"][0] in verdicts
    assert cells["as_released"] == cells["one_prompt_an_update"]


@pytest.mark.parametrize("name", ["clip", "clip_strict", "image_reward"])
def test_how_well_a_teacher_sees_is_that_of_its_file(name):
    told = json.loads((RESULTS / "teachers.json").read_text())["teachers"][name]
    cells = [f"{told[verdict]['auc']:.3f} ± {told[verdict]['se']:.3f}" for verdict in ("geneval", "exact")]
    assert f"| `{name}` | {' | '.join(cells)} |" in PAGE
    wins = [
        told["relative_correctness"][which]["mean"] for which in ("wins_over_half", "wins_over_double", "top")
    ]
    assert f"| `{name}` | {' | '.join(f'{share:.3f}' for share in wins)} |" in PAGE


def best(reports, evaluation, measure):
    """The largest of an evaluation's numbers over guidances."""
    of_it = [numbers for label, numbers in reports.items() if label.split("_")[0] == evaluation]
    return max(of_it, key=lambda numbers: numbers[measure]["mean"])


QUICKSTART = {"overall": ("geneval", "overall")} | {
    name: ("cleanliness", name) for name in ("clean", "strict", "clean_and_strict")
}


@pytest.mark.parametrize("name", QUICKSTART)
def test_the_readme_says_what_the_quickstart_came_to(name):
    evaluation, measure = QUICKSTART[name]
    rows = [json.loads(line) for line in (RESULTS / "quickstart.jsonl").read_text().splitlines()]
    rows = sorted(rows, key=lambda row: row["seed"])
    assert [(row["seed"], row["status"]) for row in rows] == [(seed, "finished") for seed in (0, 1, 2)]
    sides = [[best(row[when], evaluation, measure)[measure] for when in ("before", "after")] for row in rows]
    gains = [after["mean"] - before["mean"] for before, after in sides]
    cells = [f"{one['mean']:.3f} ± {one['se']:.3f}" for one in sides[0]]
    assert f"| {' | '.join([*cells, f'{gains[0]:+.3f}', shown(gains, 3, '+')])} |" in (
        ROOT / "README.md"
    ).read_text(encoding="utf-8").replace("**", "")


MEASURES = {"GenEval": ("geneval", "overall")} | {
    said: ("cleanliness", name)
    for said, name in (("clean", "clean"), ("strict", "strict"), ("both", "clean_and_strict"))
}


@pytest.mark.parametrize("said", MEASURES)
def test_the_quickstart_by_guidance_is_that_of_its_rows(said):
    evaluation, measure = MEASURES[said]
    rows = [json.loads(line) for line in (RESULTS / "quickstart.jsonl").read_text().splitlines()]
    for when, who in (("before", "base"), ("after", "trained")):
        cells = [
            shown([row[when][evaluation + label][measure]["mean"] for row in rows], 3)
            for label in ("", "_2", "_3")
        ]
        assert f"| {said}, {who} | {' | '.join(cells)} |" in PAGE
    _, found = gains(rows, "quickstart")
    gained = dict(zip(MEASURES, found, strict=True))[said]
    section = " ".join(PAGE.split("## The quickstart")[1].split("## ")[0].split()).replace("**", "")
    if said == "GenEval":
        one, two, three = (f"{value:+.3f}" for value in gained)
        assert f"GenEval gains {one}, {two} and {three}: {shown(gained, 3, '+')}" in section
    else:
        assert f"{said} {shown(gained, 3, '+')}" in section


def test_two_more_seeds_are_told_with_the_three():
    rows = [
        json.loads(line)
        for name in ("quickstart", "quickstart_more")
        for line in (RESULTS / f"{name}.jsonl").read_text().splitlines()
    ]
    mine, found = gains(rows, "quickstart")
    assert [row["seed"] for row in mine] == [0, 1, 2, 3, 4]
    geneval, clean, strict, both = (shown(values, 3, "+") for values in found)
    told = " ".join(PAGE.split()).replace("**", "")
    assert f"{found[0][3]:+.3f} and {found[0][4]:+.3f}; of all five GenEval gains {geneval}" in told
    assert f"{geneval}, clean {clean}, strict {strict}, both {both}." in told
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"two more seeds {found[0][3]:+.3f} and {found[0][4]:+.3f}, all five {geneval}" in readme


def test_the_speed_over_commits_is_that_of_its_rows():
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    found = json.loads((RESULTS / "history.json").read_text())
    assert found["same_tokens"]
    *before, (last, _) = found["commits"].items()
    assert f"those of `{last}`" in page
    for commit, row in before:
        cells = [
            f"{part['ratio']:.2f} ({part['of_a_turn'][0]:.2f} to {part['of_a_turn'][1]:.2f})"
            for part in (row["rollout"], row["update"])
        ]
        assert f"| `{commit}` ({row['date']}) | {' | '.join(cells)} |" in page


def test_the_seeds_of_the_faster_code_are_told():
    rows = [json.loads(line) for line in (RESULTS / "quickstart_faster.jsonl").read_text().splitlines()]
    mine, found = gains(rows, "quickstart")
    assert [row["seed"] for row in mine] == [0, 1, 2, 3, 4, 5]
    *first, last = (f"{value:+.3f}" for value in found[0])
    geneval, clean, strict, both = (shown(values, 3, "+") for values in found)
    told = " ".join(PAGE.split())
    assert (
        f"GenEval {', '.join(first)} and {last}, in the mean {geneval}; clean {clean}, strict {strict}, both {both}."
        in told
    )


def gains(rows, variant):
    """Each measure's gain, seed by seed, both sides at their best guidance."""
    mine = sorted((row for row in rows if row["variant"] == variant), key=lambda row: row["seed"])
    return mine, [
        [best(row["after"], *of)[of[1]]["mean"] - best(row["before"], *of)[of[1]]["mean"] for row in mine]
        for of in QUICKSTART.values()
    ]


@pytest.mark.parametrize(
    ("file", "variant", "label"),
    [
        ("shorter", "shorter", "`shorter`: eight steps, groups of 8, 80 updates"),
        ("shorter", "four_steps", "`four_steps`: four steps in training, groups of 16, 80 updates"),
        ("quickstart_140", "quickstart", "eight steps, groups of 8, 140 updates"),
    ],
)
def test_the_settings_of_the_quickstart_are_compared(file, variant, label):
    rows = [json.loads(line) for line in (RESULTS / f"{file}.jsonl").read_text().splitlines()]
    mine, found = gains(rows, variant)
    assert [row["seed"] for row in mine] == [0, 1, 2]
    cells = " | ".join(shown(values, 3, "+") for values in found)
    assert re.search(rf"\| {re.escape(label)}( \(\[rows\]\([^)]*\)\))? \| {re.escape(cells)} \|", PAGE)


def test_what_was_tried_once_says_so():
    rows = [json.loads(line) for line in (RESULTS / "shorter.jsonl").read_text().splitlines()]
    mine, ((geneval,), (clean,), *_) = gains(rows, "four_steps_longer")
    assert len(mine) == 1
    assert f"(**one seed**), came to {geneval:+.3f} in GenEval and {clean:+.3f} in clean" in PAGE.replace(
        "\n", " "
    )


def test_what_the_network_could_do_is_that_of_its_files():
    text = " ".join(PAGE.split("## With the base of misread captions")[1].split())
    taught = json.loads((RESULTS / "never_wrong.json").read_text())["guidance"]
    one, two, three = (taught[guidance]["overall"] for guidance in ("1.0", "2.0", "3.0"))
    best_one = f"**{short(two['mean'])} ± {short(two['se'])}**"
    assert f"{short(one['mean'])}, {best_one}, {short(three['mean'])} at guidance 1, 2, 3" in text
    rows = [json.loads(line) for line in (RESULTS / "misled.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [0, 1]
    sides = [
        [best(row[when], "geneval", "overall")["overall"]["mean"] for when in ("before", "after")]
        for row in rows
    ]
    said = " and ".join(f"{short(before)} to {short(after)}" for before, after in sides)
    assert f"{said} in GenEval at the best guidance of each" in text
    clean = [
        best(row["after"], "cleanliness", "clean")["clean"]["mean"]
        - best(row["before"], "cleanliness", "clean")["clean"]["mean"]
        for row in rows
    ]
    assert f"{clean[0]:+.3f} and {clean[1]:+.3f} in clean" in text


def test_guidance_in_training_is_told_as_its_rows_say():
    rows = [json.loads(line) for line in (RESULTS / "without_guidance.jsonl").read_text().splitlines()]
    shown_as = {
        "g1_100": "1 | 100 | 1, 3, 5",
        "g0_120": "0 | 120 | 1, 3, 5",
        "g0_100": "0 | 100 | 1, 2, 3",
        "g0_80": "0 | 80 | 1, 2, 3",
        "g0_60_big": "0, 16 prompts an update | 60 | 1, 3, 5",
        "g0_60_lr": "0, rate 8e-4 | 60 | 1, 3, 5",
    }
    for variant, start in shown_as.items():
        mine, (geneval, clean, *_) = gains(rows, variant)
        cells = [", ".join(f"{value:+.3f}" for value in values) for values in (geneval, clean)]
        fastest = min(row["seconds_per_update"] for row in mine)
        assert f"| {start} | {' | '.join(cells)} | {fastest:.1f} |" in PAGE
    before = [json.loads(line) for line in (RESULTS / "quickstart_60.jsonl").read_text().splitlines()]
    assert f"{shown(gains(before, 'quickstart')[1][0], 3, '+')} over five seeds" in PAGE


def test_the_table_of_adapters_two_steps_and_widest_groups_is_written_from_its_rows(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from study_table import table

    text = table(ROOT / "benchmarks" / "studies" / "learner.toml")
    assert f"<!-- learner -->\n{text}\n<!-- /learner -->" in PAGE
    (row,) = [line for line in text.splitlines() if line.startswith("| `widest_groups`")]
    assert row.split(" | ")[2] in PAGE.split("<!-- /learner -->")[1].split("\n## ")[0]
