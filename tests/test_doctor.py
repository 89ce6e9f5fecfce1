"""The doctor: what a recipe lacks is a line with what to do, and never a traceback."""

import json
from importlib import metadata

import pytest

from maskrl.doctor import examine as module
from maskrl.doctor import machine, needs
from maskrl.doctor.examine import examine, is_able
from maskrl.doctor.finding import Finding
from maskrl.recipe import read_recipe


def lacking(recipe, *overrides):
    return [one for one in needs.recipe_needs(str(recipe), list(overrides)) if one.status == "missing"]


def test_the_quickstart_could_run_and_json_says_the_same(cli):
    done = cli("doctor", "--json")
    told = json.loads(done.out)
    assert (done.code, told["able"], told["recipe"]) == (0, True, "shapes_clip"), told
    assert {one["topic"] for one in told["findings"]} == {*module.LOOKS, "recipe"}
    assert any("in the package: clip, clip_strict" in one["text"] for one in told["findings"])


def test_a_recipe_with_mistakes_is_lines_and_exit_code_1(cli, toy_recipe, monkeypatch):
    monkeypatch.setattr(module, "LOOKS", {})
    done = cli("doctor", "--recipe", toy_recipe, "--set", "grpo.group_siz=4", "--set", "training.updates=a")
    assert done.code == 1
    assert "missing  " in done.out
    assert "grpo.group_siz: unknown key; did you mean 'group_size'?" in done.out
    assert "training.updates: " in done.out
    assert f"maskrl recipe check {toy_recipe}" in done.out
    assert done.out.splitlines()[-1] == f"{toy_recipe} could not run here"


def test_no_recipe_of_that_name(cli, monkeypatch):
    monkeypatch.setattr(module, "LOOKS", {})
    done = cli("doctor", "--recipe", "shapes_clop")
    assert (done.code, done.err) == (1, "")
    assert "did you mean 'shapes_clip'?" in done.out


def test_the_papers_run_lacks_weights_and_a_gpu_here(monkeypatch, tmp_path):
    import huggingface_hub
    import torch

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe = read_recipe("showo_clip")
    found = {one.text: one.advice for one in needs._files(recipe) if one.status == "missing"}
    assert any("showlab/show-o-512x512" in text for text in found)
    assert any("pretrained = 'laion2b_s32b_b79k'" in text for text in found)
    assert "hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K" in " ".join(found.values())
    assert not any("package:" in text for text in found)
    (tmp_path / "models--showlab--show-o-512x512" / "snapshots" / "abc").mkdir(parents=True)
    assert not any("show-o-512x512" in one.text for one in needs._files(recipe) if one.status == "missing")
    assert any("run it where torch sees a GPU" in one.advice for one in needs._sizes(recipe))


def test_an_extra_that_a_setting_needs(toy_recipe, monkeypatch):
    monkeypatch.setattr(needs, "unmet", lambda extra: [(f"package-of-{extra}", "none")])
    told = list(needs._extras(read_recipe(toy_recipe, ["lora.rank=2"])))
    assert [(one.status, one.text, one.advice) for one in told] == [
        ("missing", "[lora] needs package-of-lora", "pip install 'maskrl[lora]'")
    ]


def test_every_extra_is_known_to_the_doctor():
    offered = set(metadata.metadata("maskrl").get_all("Provides-Extra")) - set(machine.DEVELOPERS)
    of_commands = {"serve"}  # no recipe needs it
    assert offered <= {*needs.EXTRAS.values(), "lora", "8bit", "datasets"} | of_commands


def test_a_version_that_is_not_what_is_asked_for(monkeypatch):
    asked = ["numpy>=999", "nowhere>=1", "peft>=1; extra == 'lora'"]
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    assert [wanted for wanted, _ in machine.unmet(None)] == ["numpy>=999", "nowhere>=1"]
    assert [wanted for wanted, _ in machine.unmet("lora")] in ([], ["peft>=1"])


def test_memory_and_disk_that_do_not_suffice(toy_recipe, monkeypatch):
    monkeypatch.setattr(needs, "free_memory", lambda: 10)
    missing = lacking("shapes_clip", "training.device=cpu")
    assert [one.text.split(":")[0] for one in missing] == ["memory"]
    assert "maskrl plan" in missing[0].advice


@pytest.mark.parametrize("topic", ["devices", "versions"])
def test_what_breaks_while_it_is_looked_at_is_a_line(topic, monkeypatch, toy_recipe):
    def broken():
        raise OSError("libtorch.so:\ncannot open")
        yield

    monkeypatch.setattr(module, "LOOKS", {topic: broken})
    first, *_ = found = list(examine(str(toy_recipe)))
    assert first == Finding(
        topic,
        "missing",
        "cannot be looked at (OSError: libtorch.so: cannot open)",
        "install it anew: pip install --force-reinstall maskrl",
    )
    assert not is_able(found)
