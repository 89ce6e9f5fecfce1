"""Bytes flipped and files cut, in every file of a checkpoint and of a run: recognised in one line, or made good."""

import random
import shutil

import pytest
from test_training import comparable
from toy_run import ToyGenerator, geneval_prompts

from maskrl.errors import TrainingError
from maskrl.runtime.checkpoint import TENSORS, listed, load, save
from maskrl.runtime.folder import PLUGINS, RECIPE
from maskrl.runtime.record_file import RECORD

MORE = """
[checkpoint]
every = 1
[eval.geneval]
prompts = "geneval.jsonl"
detector = "{toy}:Tiles"
images_per_prompt = 1
"""


@pytest.fixture
def half(cli, toy_recipe):
    """The folder of a run that has made two updates, is to make three, and has evaluated its base."""
    toy_recipe.with_name("geneval.jsonl").write_text(geneval_prompts())
    toy = toy_recipe.read_text().partition('name = "')[2].partition(":")[0]
    toy_recipe.write_text(toy_recipe.read_text() + MORE.format(toy=toy))
    run = toy_recipe.with_name("half")
    assert cli("train", "--recipe", toy_recipe, "--run", run, "--quiet").code == 0
    metrics = run / "metrics.jsonl"
    rows = [row for row in metrics.read_bytes().splitlines(keepends=True) if b'"after"' not in row]
    metrics.write_bytes(b"".join(rows))
    shutil.rmtree(run / "eval" / "geneval" / "after")
    return run


def resume(cli, run):
    return cli("train", "--run", run, "--resume", "--set", "training.updates=3", "--quiet")


def left(run):
    """What is trained and measured, and what a later start would read."""
    newest = listed(run / "checkpoints")[-1]
    results = {path.relative_to(run): path.read_bytes() for path in run.glob("eval/*/*/results.jsonl")}
    copies = {path.relative_to(run): path.read_bytes() for path in run.glob(f"{PLUGINS}/*/*")}
    return comparable(run), (newest / TENSORS).read_bytes(), newest.name, results, copies


def damages(size, number, chance):
    """Yield functions of a file's bytes that damage them, flipped or cut: in the middle, at its ends and anywhere."""
    places = {size // 2, *((0, size - 1) if number else ()), *(chance.randrange(size) for _ in range(number))}
    for place in sorted(places):
        yield (
            f"byte {place} flipped",
            lambda data, at=place: data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :],
        )
        yield f"cut to {place} bytes", lambda data, at=place: data[:at]


def files_of(folder):
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    aside = ("checkpoints", "samples")  # which have a test of their own, and are not read
    return [path for path in found if path.parts[0] not in aside and not path.name.startswith(".maskrl")]


def examine(cli, half, number):
    """Damage a file at a time and resume; return how often it was refused and made good."""
    whole = half.with_name("whole")
    shutil.copytree(half, whole)
    assert resume(cli, whole).code == 0
    expected, seen = left(whole), []
    for file in files_of(half):
        data = (half / file).read_bytes()
        for what, damage in damages(len(data), number, random.Random(str(file))):
            run = half.with_name("damaged")
            shutil.copytree(half, run)
            (run / file).write_bytes(damage(data))
            result = resume(cli, run)
            where = f"{file}, {what}: {result}"
            if result.code == 0:
                assert left(run) == expected, where
            else:
                assert result.code in (2, 4), where
                assert result.err.startswith("maskrl: "), where
                assert "Traceback" not in result.err, where
                newest = listed(run / "checkpoints")[
                    -1
                ]  # what describes the base is looked at in the end alone
                assert newest.name == "update_00002" or (newest / TENSORS).read_bytes() == expected[1], where
            seen.append((file.name, what, result.code))
            shutil.rmtree(run)
    return seen


def test_a_damaged_run_is_refused_or_made_good(cli, half):
    codes = {}
    for name, _, code in examine(cli, half, 0):
        codes.setdefault(name, set()).add(code)
    assert 0 not in codes[RECIPE], "a recipe in which a byte has changed is another recipe"
    assert codes["toy_run.py"] == {0}, "a copy is made again"
    assert codes[RECORD] != {0}
    assert codes["metrics.jsonl"] == {4}


@pytest.mark.long
def test_a_run_that_is_damaged_anywhere_is_refused_or_made_good(cli, half):
    seen = examine(cli, half, 6)
    refused = sum(code != 0 for *_, code in seen)
    print(f"{len(seen)} damages: {refused} refused, {len(seen) - refused} made good")  # noqa: T201


def examine_checkpoint(tmp_path, number):
    generator = ToyGenerator(ToyGenerator.Config())
    tensors = {f"parameter/{name}": p.detach() for name, p in generator.module.named_parameters()}
    folder = save(tmp_path, 3, generator, tensors, {"update": 3, "rows": 0, "seconds": 0.5}, keep=1)
    seen = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for what, damage in damages(len(data), number, random.Random(path.name)):
            path.write_bytes(damage(data))
            with pytest.raises(TrainingError, match=r"update_00003' is damaged") as refused:
                load(folder)
            assert "\n" not in str(refused.value), what
            seen += 1
        path.write_bytes(data)
    assert load(folder).tensors.keys() == tensors.keys()
    return seen


def test_a_checkpoint_that_is_damaged_anywhere_is_never_loaded(tmp_path):
    assert examine_checkpoint(tmp_path, 40) > 300
