"""Checkpoints of Show-o as other tools leave them, and that what is saved is whole wherever it is carried."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_showo import Dangerous, write_checkpoint

from maskrl.errors import RecipeError
from maskrl.generators.showo.generator import Showo
from maskrl.recipe import read_recipe
from maskrl.training.loop import train

SAFE, PICKLE, SHARDS = "pytorch_model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json"
TOY = Path(__file__).with_name("toy_run.py")


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "here").mkdir()
    return write_checkpoint(tmp_path / "here")


def load(checkpoint, folders, **settings):
    return Showo(Showo.Config(checkpoint=str(checkpoint), tokenizer=str(folders[1]), **settings))


def assert_same(generator, weights):
    found = generator.module.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in weights.items())


def move_language_model(folders, where):
    """Put the language model elsewhere, and say so where a checkpoint or a recipe can."""
    outside = folders[0].parent / "phi"
    if where == "inside":
        return {}
    shutil.move(folders[0] / "llm", outside)
    path = folders[0] / "config.json"
    said = {"absolute": str(outside), "beside": "../phi", "recipe": "microsoft/phi-1_5"}[where]
    path.write_text(json.dumps({**json.loads(path.read_text()), "llm_model_path": said}))
    return {"language_model": str(outside)} if where == "recipe" else {}


WHERE = ("inside", "absolute", "beside", "recipe")


@pytest.mark.parametrize("where", WHERE)
def test_what_is_saved_is_whole_and_may_be_carried_away(folders, tmp_path, where):
    generator = load(folders[0], folders, **move_language_model(folders, where))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    target = tmp_path / "run" / "deep" / "generator"
    generator.save(str(target))
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before.keys()
    assert {path: path.stat().st_mtime_ns for path in before} == before  # a source is never a destination
    assert all(path.is_relative_to(target) for path in written)
    shutil.move(target, tmp_path / "carried")
    shutil.rmtree(folders[0])
    shutil.rmtree(folders[0].parent / "phi", ignore_errors=True)
    again = load(tmp_path / "carried", folders)
    assert_same(again, generator.module.state_dict())
    assert again.spec == generator.spec


@pytest.mark.parametrize("where", WHERE)
def test_a_run_saves_wherever_the_language_model_is(folders, tmp_path, where):
    settings = {"name": "showo", "checkpoint": str(folders[0]), "tokenizer": str(folders[1])}
    settings |= move_language_model(folders, where)
    (tmp_path / "prompts.txt").write_text("a b\nc\n")
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    sections = {
        "transition": 'name = "p_theta2"',
        "reward": f'name = "{TOY}:Red"',
        "filter": 'name = "keep_all"',
        "reducer": 'name = "none"',
        "grpo": "group_size = 2\nnum_steps = 2",
        "prompts": 'train = "prompts.txt"',
        "training": "updates = 1\nprompts_per_update = 2\nlearning_rate = 0.01\ndevice = 'cpu'",
        "tracking": 'tensorboard = false\nsample_prompts = ["a"]',
    }
    text = "\n".join(f"[{name}]\n{body}" for name, body in sections.items())
    (tmp_path / "recipe.toml").write_text("\n".join(["[generator]", *lines, text]))
    train(read_recipe(tmp_path / "recipe.toml"), tmp_path / "run", resume=False, display=False)
    assert load(tmp_path / "run/checkpoints/update_00001/generator", folders).spec.num_tokens == 9


def test_a_checkpoint_may_be_saved_onto_itself(folders):
    generator = load(folders[0], folders)
    with torch.no_grad():
        generator.module.head.bias.add_(1)
    generator.save(str(folders[0]))
    assert_same(load(folders[0], folders), generator.module.state_dict())


def test_the_language_models_own_weights_are_not_carried_along(folders, tmp_path):
    (folders[0] / "llm" / "model.safetensors").write_bytes(b"billions")
    load(folders[0], folders).save(str(tmp_path / "saved"))
    names = {path.name for path in (tmp_path / "saved" / "llm").iterdir()}
    assert names == {path.name for path in (folders[0] / "llm").iterdir()} - {"model.safetensors"}
    assert {"config.json", "tokenizer.json"} <= names


def test_a_plan_follows_the_recipes_language_model(folders):
    settings = move_language_model(folders, "recipe")
    config = Showo.Config(checkpoint=str(folders[0]), tokenizer=str(folders[1]), **settings)
    cost = Showo.cost(config, text_tokens=3)
    assert cost.parameters == sum(p.numel() for p in Showo(config).module.parameters())


# what other tools write


def rewrite(folder, how):
    """Leave the weights as another tool does; return what they are."""
    weights = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    if how == "pickle":
        torch.save({f"module.{key}": tensor for key, tensor in weights.items()}, folder / PICKLE)
        return weights
    files = {key: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, key in enumerate(weights)}
    for name in set(files.values()):
        torch.save({key: weights[key] for key in weights if files[key] == name}, folder / name)
    (folder / SHARDS).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return weights


@pytest.mark.parametrize("how", ["pickle", "shards"])
def test_a_folder_of_the_public_training_is_read(folders, how):
    weights = rewrite(folders[0], how)
    assert_same(load(folders[0], folders), weights)


@pytest.mark.parametrize("how", ["pickle", "shards"])
def test_weights_may_be_a_folder(folders, tmp_path, how):
    tuned = tmp_path / "unwrapped_model"
    shutil.copytree(folders[0], tuned)
    save_file({key: tensor + 1 for key, tensor in load_file(tuned / SAFE).items()}, tuned / SAFE)
    weights = rewrite(tuned, how)
    assert_same(load(folders[0], folders, weights=str(tuned)), weights)


def test_no_door_runs_a_pickles_code(folders, tmp_path):
    (folders[0] / SAFE).unlink()
    torch.save({"showo.lm_head.bias": Dangerous(tmp_path / "executed")}, folders[0] / PICKLE)
    with pytest.raises(RecipeError, match="holds more than tensors and was not opened"):
        load(folders[0], folders)
    assert not (tmp_path / "executed").exists()


def test_a_language_models_code_is_never_run(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))  # to the question that must not be asked
    llm = folders[0] / "llm"
    (llm / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Evil: pass\n")
    settings = json.loads((llm / "config.json").read_text())
    settings |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}
    (llm / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RecipeError, match=r"the language model in .* cannot be read"):
        load(folders[0], folders)
    assert not (tmp_path / "executed").exists()


def test_a_folder_without_weights_says_what_to_do(folders, tmp_path):
    shutil.move(folders[0] / SAFE, tmp_path / "elsewhere.safetensors")
    with pytest.raises(RecipeError, match=f"holds no weights: none of .*{PICKLE}.* generator.weights"):
        load(folders[0], folders)
    load(folders[0], folders, weights=str(tmp_path / "elsewhere.safetensors"))
    (folders[1] / "model.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"magvit' holds no weights: .* in parts$"):
        load(folders[0], folders, weights=str(tmp_path / "elsewhere.safetensors"))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "has no 'weight_map'"),
        ({"weight_map": {"a": 3}}, "has no 'weight_map'"),
        ({"weight_map": {"a": "../../secret.bin"}}, "there is no weights file .*showo/secret.bin'"),
    ],
)
def test_an_index_names_files_beside_it(folders, tmp_path, index, message):
    torch.save({"a": torch.zeros(1)}, tmp_path / "secret.bin")
    (folders[0] / SAFE).unlink()
    (folders[0] / SHARDS).write_text(json.dumps(index))
    with pytest.raises(RecipeError, match=message) as error:
        load(folders[0], folders)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("door", ["checkpoint", "tuned.pth", "tuned.safetensors"])
def test_the_projector_of_the_clip_vit_variants_is_ignored_aloud(folders, tmp_path, door):
    weights = load_file(folders[0] / SAFE)
    more = {**weights, "mm_projector.0.weight": torch.zeros(2, 2)}
    settings = {}
    if door == "checkpoint":
        save_file(more, folders[0] / SAFE)
    else:
        settings["weights"] = str(tmp_path / door)
        (torch.save if door.endswith(".pth") else save_file)(more, tmp_path / door)
    with pytest.warns(UserWarning, match=r"mm_projector\.\* is ignored"):
        assert_same(load(folders[0], folders, **settings), weights)


def test_tokens_that_make_no_square_are_named(folders):
    path = folders[0] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_vq_tokens": 12}))
    with pytest.raises(RecipeError, match=r"num_vq_tokens = 12 .*no square number.*\(3 x 3 would be 9\)"):
        load(folders[0], folders)
