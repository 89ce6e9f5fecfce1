"""What `maskrl plugins new` writes: named, checked, tested, built, installed and trained, for every kind."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from maskrl.errors import RecipeError
from maskrl.templates import FOLDER, SUFFIX, TEMPLATES, Package, read_name, write_package

SMALL = ("grpo.group_size=2", "grpo.num_steps=2", "training.updates=2", "training.prompts_per_update=1")
QUICK = ("generator",)  # of which the recipes are trained in the quick tests too
LINT = [
    "--isolated",
    "--select",
    "E,F,W,I,UP,B,C4,D,N,PT,RUF,SIM,T20",
    "--ignore",
    "N803,N806,D107,D203,D213",
]
NO_DOCSTRINGS = 'lint.per-file-ignores={"**/tests/**"=["D"]}'


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A package of each kind, by the kind."""
    parent = tmp_path_factory.mktemp("written")
    return {kind: write_package(kind, f"my-{kind}", parent / f"maskrl-my-{kind}")[1] for kind in TEMPLATES}


@pytest.fixture
def installed(written, install, monkeypatch):
    """All of them are installed as far as this process sees."""
    for kind, folder in written.items():
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        install(project["name"], "", project["entry-points"], project["version"])
        monkeypatch.syspath_prepend(str(folder / "src"))
        sys.modules.pop(f"maskrl_my_{kind}", None)
    return written


def run(*command, cwd=None, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def label_of(folder):
    return json.loads((folder / "summary.json").read_text())["label"]


def updates(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "update"]


@pytest.mark.parametrize(
    "spelling", ["my-reward", "my_reward", "My Reward", " my  reward ", "MyReward", "maskrl-my-reward"]
)
def test_a_name_may_be_spelt_as_a_user_thinks_of_it(spelling):
    package = Package("reward", read_name(spelling))
    assert package.name == "my_reward"
    assert (package.package, package.module, package.class_name) == (
        "maskrl-my-reward",
        "maskrl_my_reward",
        "MyReward",
    )


@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        ("class", "Class"),
        ("none", "NoneReward"),
        ("torch", "Torch"),
        ("tensor", "TensorReward"),
        ("config", "ConfigReward"),
        ("reward_model", "RewardModelReward"),
        ("a" * 40, "A" + "a" * 39),
    ],
)
def test_a_name_that_means_something_in_python_gives_another_class(name, class_name):
    assert Package("reward", read_name(name)).class_name == class_name


def test_such_a_class_keeps_its_contract(cli, tmp_path):
    assert cli("plugins", "new", "reward", "none", "--to", tmp_path / "here").code == 0
    checked = cli("plugins", "check", f"{tmp_path}/here/src/maskrl_none/__init__.py:NoneReward")
    assert (checked.code, checked.out.count("keeps its contract")) == (0, 1), checked.out + checked.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rewrad", "x"), "no template for 'rewrad'; did you mean 'reward'?"),
        (("detectors", "x"), "no template for 'detectors'; did you mean 'detector'?"),
        (("reward", "my.reward"), "'my.reward' cannot be a component's name.*'my-reward' would do"),
        (("reward", "../up"), "'../up' cannot be a component's name.*'up' would do"),
        (("reward", "réward"), "'réward' cannot be"),
        (("reward", "2nd"), "'2nd' cannot be.*'nd' would do"),
        (("reward", ""), "'' cannot be"),
        (("reward", "--", "-"), "'-' cannot be"),
        (("reward", "a" * 41), "40 at most$"),
        (("reward", "clip"), "maskrl 0.1.0 offers the reward 'clip' already"),
        (("prompts", "shapes train"), "offers the prompt set 'shapes_train' already"),
        (("filter", "other"), "the package 'maskrl-other' is installed already"),
        (("reward", "good", "--to", "taken"), "'taken' is there already"),
        (("reward", "good", "--to", "dangling"), "'dangling' is there already"),
        (("reward", "good", "--to", "a-file/new"), "cannot write 'a-file/new': File exists"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    cli, tmp_path, monkeypatch, install, arguments, said
):
    install("maskrl_other", "", {})
    (tmp_path / "taken").mkdir()
    (tmp_path / "a-file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = cli("plugins", "new", *arguments)
    assert result.code in (2, 4)
    assert re.search(said, result.err.strip())
    assert len(result.err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_on_the_way_leaves_nothing(cli, tmp_path, monkeypatch):
    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "copyfile", full)
    result = cli("plugins", "new", "reward", "good")
    assert (result.code, result.err) == (4, "maskrl: cannot write 'maskrl-good': No space left on device\n")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_appears_in_the_meantime_is_left_alone(tmp_path, monkeypatch):
    to = tmp_path / "here"
    make = shutil.copyfile

    def late(*paths):
        to.mkdir(exist_ok=True)
        (to / "mine").write_text("")
        return make(*paths)

    monkeypatch.setattr(shutil, "copyfile", late)
    with pytest.raises(Exception, match=r"cannot write .*: Directory not empty"):
        write_package("reward", "good", to)
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "mine"]


def test_two_packages_written_alike_are_alike(written, tmp_path):
    _, again = write_package("reward", "My Reward", tmp_path / "again")
    for path in sorted(again.rglob("*.*")):
        if path.is_file():
            assert path.read_bytes() == (written["reward"] / path.relative_to(again)).read_bytes()


def test_the_extra_for_tests_brings_what_the_readme_runs(written):
    for folder in written.values():
        brought = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["optional-dependencies"][
            "test"
        ]
        assert {need.partition(">=")[0] for need in brought} == {"mypy", "pytest"}
        readme = (folder / "README.md").read_text()
        assert "mypy src" in readme
        assert "pytest" in readme


def test_templates_are_the_kinds_and_every_file_has_its_place(written):
    assert {path.name for path in FOLDER.iterdir() if path.is_dir() and "_" not in path.name} == {
        *TEMPLATES,
        "common",
    }
    for kind, folder in written.items():
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        name = f"my_{kind}"
        assert {
            "pyproject.toml",
            "README.md",
            f"{name}.toml",
            f"src/maskrl_{name}/__init__.py",
            f"src/maskrl_{name}/py.typed",
            f"tests/test_{name}.py",
        } <= found
        texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
        assert not any(mark in text for text in texts for mark in ("{{", "{%", "NAME", SUFFIX))


@pytest.mark.parametrize("kind", TEMPLATES)
def test_lint_and_format_find_nothing(written, kind):
    folder = written[kind]
    run("-m", "ruff", "check", "--no-cache", *LINT, "--config", NO_DOCSTRINGS, ".", cwd=folder)
    run("-m", "ruff", "format", "--no-cache", "--isolated", "--check", ".", cwd=folder)


@pytest.mark.long
def test_types_are_strict(written, tmp_path):
    sources = [folder / part for folder in written.values() for part in ("src", "tests")]
    out = run("-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", *sources, cwd=tmp_path)
    assert "no issues found in 16 source files" in out


@pytest.mark.slow
def test_their_own_tests_pass_without_an_installation(written, tmp_path):
    folders = [folder / "tests" for folder in written.values()]
    sources = os.pathsep.join(str(folder / "src") for folder in written.values())
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    out = run("-m", "pytest", "-q", "-c", tmp_path / "pytest.ini", *folders, PYTHONPATH=sources)
    assert "25 passed" in out


def test_all_are_listed_and_keep_their_contracts(cli, installed):
    listed = cli("plugins", "list")
    checked = cli("plugins", "check", *(f"my_{kind}" for kind in TEMPLATES))
    assert checked.code == 0, checked.out
    assert checked.out.count("keeps its contract") == len(TEMPLATES)
    for kind in TEMPLATES:
        assert re.search(rf"my_{kind} +maskrl-my-{kind} 0.1.0 +maskrl_my_{kind}:", listed.out)


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.long) for kind in TEMPLATES]
)
def test_the_recipe_trains_by_name(cli, installed, tmp_path, kind):
    recipe = installed[kind] / f"my_{kind}.toml"
    small = [f"--set={one}" for one in SMALL]
    small += ["--set=eval.my_evaluation.images_per_prompt=1"] if kind == "evaluation" else []
    assert cli("recipe", "check", recipe).code == 0
    done = cli("train", "--recipe", recipe, "--run", tmp_path / "run", *small)
    assert done.code == 0, done.err
    assert len(updates(tmp_path / "run")) == 2
    if kind == "filter":
        assert "filter_kept" in updates(tmp_path / "run")[0]
    if kind == "evaluation":
        assert label_of(tmp_path / "run/evals/after/my_evaluation") == "MyEvaluation (margin 0)"
    if kind == "detector":
        assert label_of(tmp_path / "run/evals/after/geneval") == "GenEval-my_detector"


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_section_of_the_readme_is_one_of_a_recipe(installed, kind):
    (snippet,) = re.findall(
        r"```toml\n(.*?)```", (installed[kind] / "README.md").read_text(), flags=re.DOTALL
    )
    ((section, settings),) = tomllib.loads(snippet).items()
    inner = {"evaluation": ("my_evaluation",), "detector": ("geneval", "detector")}.get(kind, ())
    for key in inner:
        settings = settings[key]
    module = __import__(f"maskrl_my_{kind}")
    component = getattr(module, Package(kind, f"my_{kind}").class_name)
    named = {"prompts": "train"}.get(kind, "name")
    assert section == ("eval" if inner else kind)
    assert settings.pop(named, f"my_{kind}") == f"my_{kind}"
    engine = {"images_per_prompt"} if kind == "evaluation" else set()
    component.Config.model_validate({key: settings[key] for key in settings.keys() - engine})


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "line", "changed"),
    [
        ("reward", "return -distance_B", "return -2 * distance_B"),
        ("prompts", "return [Prompt(line.strip())", "return [Prompt(line.strip().upper())"),
    ],
)
def test_changed_in_one_line_built_and_installed_it_trains(written, tmp_path, kind, line, changed):
    """A wheel, in an environment that has nothing else of the package."""
    package, site = shutil.copytree(written[kind], tmp_path / "package"), tmp_path / "site"
    module = package / f"src/maskrl_my_{kind}/__init__.py"
    assert module.read_text().count(line) == 1
    module.write_text(module.read_text().replace(line, changed))
    pip = ("-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", tmp_path, package)
    (wheel,) = tmp_path.glob("*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", site, wheel)
    shutil.copy(package / f"my_{kind}.toml", tmp_path / "recipe.toml")
    shutil.rmtree(package)
    there = {"PYTHONPATH": str(site), "cwd": tmp_path}
    assert f"maskrl-my-{kind} 0.1.0" in run("-m", "maskrl", "plugins", "list", **there)
    assert "keeps its contract" in run("-m", "maskrl", "plugins", "check", f"my_{kind}", **there)
    small = [f"--set={one}" for one in SMALL]
    run("-m", "maskrl", "train", "--recipe", "recipe.toml", "--run", "run", *small, **there)
    assert len(updates(tmp_path / "run")) == 2
    assert (site / f"maskrl_my_{kind}/py.typed").is_file()


def test_a_name_is_refused_as_an_error_of_ours():
    with pytest.raises(RecipeError, match="cannot be a component's name"):
        write_package("reward", "a/b", Path("never"))
