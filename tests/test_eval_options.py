"""Every option of an evaluation is followed, or refused in a line before anything is loaded or painted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import toy_eval  # noqa: F401

from maskrl.evals.images import open_folder

TOY = Path(__file__).with_name("toy_run.py")
COMMANDS = {
    "geneval": (),
    "clip_score": (),
    "image_reward": (),
    "reward": ("--reward", "name=clip"),
    "relative_correctness": (),
    "fid": ("--reference", "nowhere.npz"),
}
PAINTING = {
    "--run": "runs/none",
    "--checkpoint": "none",
    "--prompts": "none",
    "--images-per-prompt": "1",
    "--steps": "3",
    "--guidance": "1",
    "--recipe": "shapes_clip",
}
FOLLOWED = {
    ("geneval", "--recipe"),
    ("relative_correctness", "--recipe"),
    ("reward", "--recipe"),
    ("fid", "--prompts"),
}
IGNORED = [(c, o) for c in COMMANDS for o in PAINTING if (c, o) not in FOLLOWED]


@pytest.mark.parametrize(("command", "option"), IGNORED)
def test_what_says_how_to_paint_is_refused_beside_images(cli, command, option):
    done = cli("eval", command, *COMMANDS[command], "--images", "nowhere", option, PAINTING[option])
    assert done.code == 2
    assert f"nothing is painted, so {option} would be ignored; leave it out" in " ".join(done.err.split())


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("command", [*COMMANDS, "sample"])
def test_a_guidance_that_is_no_finite_number_is_refused(cli, command, value):
    words = ("sample", "a dog") if command == "sample" else ("eval", command, *COMMANDS[command])
    done = cli(*words, "--recipe", "none", "--guidance", value)
    assert done.code == 2
    assert f"{value} is no finite number" in " ".join(done.err.split())


def test_the_mean_of_a_reward_is_that_of_its_scores(cli, toy_eval, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    done = cli("eval", "reward", "--recipe", toy_eval, "--out", out)
    assert done.code == 0, done.err
    images = open_folder(out / "images")
    shown = [images.read(name) for _, name in images.pairs()]
    reds = [float(((image[0] > 0.5) & (image[1] < 0.5)).float().mean()) for image in shown]
    saved = json.loads((out / "reward/summary.json").read_text())
    assert saved["numbers"]["mean"]["mean"] == pytest.approx(sum(reds) / len(reds))
    assert saved["label"] == "Reward Red"
    again = cli(
        "eval", "reward", "--recipe", toy_eval, "--images", out / "images", "--out", tmp_path / "again"
    )
    assert again.code == 0, again.err
    judged = json.loads((tmp_path / "again/reward/summary.json").read_text())
    assert judged["numbers"] == saved["numbers"]


def test_a_judge_that_cannot_be_placed_ends_an_evaluation_before_it_paints(cli, toy_eval, tmp_path):  # noqa: F811
    (tmp_path / "late.py").write_text(
        "from maskrl.errors import TrainingError\nfrom toy_run import Red\n\n\nclass Late(Red):\n"
        "    @property\n    def modules(self):\n        raise TrainingError('its weights are not there')\n"
    )
    out = tmp_path / "out"
    refused = cli(
        "eval", "reward", "--reward", f"name={tmp_path}/late.py:Late", "--recipe", toy_eval, "--out", out
    )
    assert (refused.code, out.exists()) == (4, False), refused.err
    assert "its weights are not there" in refused.err


LOADED = """
import sys
from maskrl.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *sorted({"maskrl.generators.showo.generator", "open_clip", "peft"} & set(sys.modules)))
"""


def test_images_that_are_there_need_no_recipe_and_import_no_generator(cli, toy_eval, tmp_path):  # noqa: F811
    assert cli("eval", "geneval", "--recipe", toy_eval, "--out", tmp_path / "out").code == 0
    toy = tmp_path / "toy_run.py"
    toy.write_text(TOY.read_text())
    arguments = ["eval", "geneval", "--images", tmp_path / "out/images", "--detector", f"{toy}:Tiles"]
    command = [sys.executable, "-c", LOADED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "training.device=cpu",
            "--set 'training.device=cpu': nothing is painted, so it would be ignored",
        ),
        ("eval.clip_score.batch=3", "--set 'eval.clip_score.batch=3': nothing is painted"),
        ("eval.detector=shapes", "eval.detector: every evaluation has a section of its own now"),
        ("eval.geneval.detectr=shapes", "eval.geneval.detectr: unknown key; did you mean 'detector'?"),
        ("eval.geneval.images_per_prompt=3", "what can be set beside --images"),
        ("eval.geneval.prompts=shapes_geneval", "nothing is painted, so it would be ignored"),
    ],
)
def test_what_is_set_beside_images_is_the_evaluations_own(cli, tmp_path, setting, said):
    done = cli("eval", "geneval", "--images", tmp_path, "--set", setting)
    assert (done.code, said in done.err) == (2, True), done.err


def test_a_device_that_is_none_is_refused(cli, toy_eval, tmp_path):  # noqa: F811
    assert cli("eval", "geneval", "--recipe", toy_eval, "--out", tmp_path / "out").code == 0
    images = ("--images", tmp_path / "out/images", "--recipe", toy_eval)
    refused = cli("eval", "geneval", *images, "--out", tmp_path / "more", "--device", "cud")
    assert (refused.code, refused.err) == (2, "maskrl: there is no device 'cud'; choose auto, cpu or cuda\n")
