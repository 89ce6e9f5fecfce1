"""A recipe is closed, complete when written out again, every mistake in it stands at the user's own key."""

import tomllib
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrl.component import Needs, build
from maskrl.errors import PluginError, RecipeError, UnknownComponent
from maskrl.recipe import read_recipe
from maskrl.recipes_at_hand import shipped_recipes
from maskrl.sections import TrackingConfig, TrainingConfig

TOY = Path(__file__).with_name("toy_run.py")


def test_what_is_written_reads_back_as_the_same_recipe(toy_recipe, tmp_path):
    recipe = read_recipe(toy_recipe, ["seed=7", "grpo.kl=exact"])
    saved = tmp_path / "elsewhere" / "recipe.toml"
    saved.parent.mkdir()
    saved.write_text(recipe.to_toml())
    again = read_recipe(saved)
    assert again == recipe
    assert again.to_toml() == recipe.to_toml()
    assert again.digest() == recipe.digest()


def test_a_written_recipe_shows_every_default(toy_recipe):
    written = tomllib.loads(read_recipe(toy_recipe, ["filter.name=std_percentile"]).to_toml())
    assert written["filter"] == {
        "name": "std_percentile",
        "percentile": 10.0,
        "warmup": written["filter"]["warmup"],
    }
    assert written["grpo"]["eps_low"] == 0.1
    assert written["training"]["betas"] == [0.9, 0.95]
    assert written["generator"]["double"] is False
    assert "num_steps" not in written["grpo"]  # None: the generator's own


_characters = st.characters(exclude_categories=["Cs"])


@settings(max_examples=50)
@given(
    texts=st.lists(st.text(_characters)),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    updates=st.integers(min_value=0, max_value=2**62),
)
def test_any_value_survives_writing(texts, rate, updates):
    recipe = _shipped().model_copy(
        update={
            "tracking": TrackingConfig(sample_prompts=tuple(texts)),
            "training": TrainingConfig(updates=updates, prompts_per_update=1, learning_rate=rate),
        }
    )
    written = tomllib.loads(recipe.to_toml())
    assert written["tracking"]["sample_prompts"] == texts
    assert written["training"]["learning_rate"] == rate
    assert written["training"]["updates"] == updates


@cache
def _shipped():
    return read_recipe("shapes_clip")


def test_the_digest_changes_with_any_setting(toy_recipe):
    digests = {read_recipe(toy_recipe, o).digest() for o in ([], ["seed=1"], ["training.weight_decay=0.1"])}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=5", ("seed",), 5),
        ("training.learning_rate = 3e-6", ("training", "learning_rate"), 3e-6),
        ("tracking.tensorboard=true", ("tracking", "trackers"), ["tensorboard"]),
        ("tracking.sample_prompts=['a', 'b']", ("tracking", "sample_prompts"), ["a", "b"]),
        ("training.lr_schedule=cosine", ("training", "lr_schedule"), "cosine"),
        ('training.lr_schedule="linear"', ("training", "lr_schedule"), "linear"),
        ("grpo.group_size=", ("grpo", "group_size"), 6),
    ],
)
def test_overrides_are_toml_or_bare_words_or_nothing(toy_recipe, override, key, value):
    written = tomllib.loads(read_recipe(toy_recipe, [override]).to_toml())
    for part in key:
        written = written[part]
    assert written == value


@pytest.mark.parametrize("override", ["seed", "=3", "grpo.group_size.x=3", "grpo.=3"])
def test_a_malformed_override_is_quoted(toy_recipe, override):
    with pytest.raises(RecipeError, match=f"--set '{override}'"):
        read_recipe(toy_recipe, [override])


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("grpo.group_size=1", "grpo.group_size: input should be greater than or equal to 2, not 1"),
        ("grpo.group_size=six", "grpo.group_size: input should be a valid integer"),
        ("grpo.grup_size=4", "grpo.grup_size: unknown key; did you mean 'group_size'?"),
        ("trainingg.updates=4", "trainingg: unknown key; did you mean 'training'?"),
        ("generator.checkpt=x", "generator.checkpt: unknown key; did you mean 'checkpoint'?"),
        ("generator.double=17", "generator.double: input should be a valid boolean"),
        ("training.updates=", "training.updates: is missing"),
        ("reward.name=", "reward.name: say which reward"),
        ("reward=clip", "reward: is a section: write [reward]"),
        ("grpo=3", "grpo: is a section: write [grpo]"),
        (
            "eval.geneval.detector=shape",
            "eval.geneval.detector: no detector is called 'shape'; did you mean 'shapes'?",
        ),
        ("prompts.train=prompt.txt", "prompts.train: there is no file 'prompt.txt' in the working directory"),
        ("prompts.train=shapes_trian", "did you mean 'shapes_train'?"),
    ],
)
def test_a_mistake_is_one_line_at_its_key(toy_recipe, override, complaint):
    with pytest.raises(RecipeError) as mistake:
        read_recipe(toy_recipe, [override])
    message = str(mistake.value)
    assert message.startswith(f"{toy_recipe}: ")
    assert complaint in message
    assert "\n" not in message


def test_an_unknown_component_keeps_its_class_of_error(toy_recipe):
    with pytest.raises(
        UnknownComponent, match=r"reward.name: no reward is called 'clp'; did you mean 'clip'\?"
    ):
        read_recipe(toy_recipe, ["reward.name=clp"])


def test_several_mistakes_are_reported_at_once(toy_recipe):
    wrong = ["grpo.group_size=1", "generator.dubble=true", "filter.name=keep_al", "seed=-1"]
    with pytest.raises(RecipeError) as mistakes:
        read_recipe(toy_recipe, wrong)
    keys = {line.removeprefix(f"{toy_recipe}: ").split(":")[0] for line in str(mistakes.value).splitlines()}
    assert keys == {"grpo.group_size", "generator.dubble", "filter.name", "seed"}


def test_a_component_that_does_not_import_is_a_broken_plugin(toy_recipe, tmp_path):
    (tmp_path / "bomb.py").write_text("import nothing_like_this")
    with pytest.raises(PluginError, match="does not load: ModuleNotFoundError"):
        read_recipe(toy_recipe, [f"reward.name={tmp_path}/bomb.py:Bomb"])


def test_paths_are_relative_to_the_recipe(toy_recipe, tmp_path, monkeypatch):
    for folder in (tmp_path, tmp_path / "elsewhere"):
        (folder / "weights").mkdir(parents=True)
        (folder / "mine.py").write_text(TOY.read_text())
        (folder / "prompts.txt").write_text("a cat\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    written = toy_recipe.read_text().replace(f"{TOY}:Red", "mine.py:Red")
    toy_recipe.write_text(written.replace("[transition]", 'checkpoint = "weights"\n[transition]'))
    recipe = read_recipe(toy_recipe)
    assert recipe.generator.config.checkpoint == str(tmp_path / "weights")
    assert recipe.reward.name == f"{tmp_path}/mine.py:Red"
    assert recipe.prompts.train == str(tmp_path / "prompts.txt")


@pytest.mark.parametrize(
    "overrides",
    [
        ["generator.checkpoint=weights", "reward.name=mine.py:Red", "prompts.train=prompts.txt"],
        [
            f'generator={{name = "{TOY}:ToyGenerator", checkpoint = "weights"}}',
            'reward={name = "mine.py:Red"}',
            'prompts={train = "prompts.txt"}',
        ],
    ],
)
@pytest.mark.parametrize("both", [True, False])
def test_typed_paths_are_relative_to_the_working_directory(
    toy_recipe, tmp_path, monkeypatch, overrides, both
):
    here = tmp_path / "elsewhere"
    for folder in (tmp_path, here) if both else (here,):
        (folder / "weights").mkdir(parents=True)
        (folder / "mine.py").write_text(TOY.read_text())
        (folder / "prompts.txt").write_text("a cat\n")
    monkeypatch.chdir(here)
    recipe = read_recipe(toy_recipe, overrides)
    assert recipe.generator.config.checkpoint == str(here / "weights")
    assert recipe.reward.name == f"{here}/mine.py:Red"
    assert recipe.prompts.train == str(here / "prompts.txt")
    (tmp_path / "saved.toml").write_text(recipe.to_toml())
    monkeypatch.chdir(tmp_path)
    assert read_recipe(tmp_path / "saved.toml") == recipe


def test_a_typed_path_that_is_not_there_never_means_a_file_beside_the_recipe(
    toy_recipe, tmp_path, monkeypatch
):
    (tmp_path / "weights").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = read_recipe(toy_recipe, ["generator.checkpoint=weights"])
    assert recipe.generator.config.checkpoint == "weights"
    for name in ("prompts.txt", "weights"):
        with pytest.raises(RecipeError, match=f"there is no file '{name}' in the working directory"):
            read_recipe(toy_recipe, [f"prompts.train={name}"])


def test_a_path_that_a_component_finds_in_the_working_directory_is_saved_whole(
    toy_recipe, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere" / "some" / "weights").mkdir(parents=True)
    toy_recipe.write_text(
        toy_recipe.read_text().replace("[transition]", 'checkpoint = "some/weights"\n[transition]')
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = read_recipe(toy_recipe).generator.config.checkpoint
    assert found == str(tmp_path / "elsewhere" / "some" / "weights")


def test_sections_build_their_components(toy_recipe):
    recipe = read_recipe(toy_recipe, ["generator.double=true"])
    assert type(recipe.generator.build()).__name__ == "ToyGenerator"
    assert recipe.generator.build().config.double is True


def test_a_component_is_built_outside_of_a_recipe(tmp_path):
    built = build("filters", {"name": "std_percentile", "percentile": 30}, tmp_path)
    assert built.config.percentile == 30
    with pytest.raises(RecipeError, match="filter 'std_percentile': percentle: unknown key"):
        build("filters", {"name": "std_percentile", "percentle": 30}, tmp_path)


def test_a_missing_recipe_names_the_nearest_shipped_one():
    with pytest.raises(RecipeError, match=r"there is no recipe 'shapes_clp'; did you mean 'shapes_clip'\?"):
        read_recipe("shapes_clp")


def test_every_shipped_recipe_is_sound():
    assert "shapes_clip" in shipped_recipes()
    for name in shipped_recipes():
        assert read_recipe(name).digest()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"seed = 0\n[grpo\n", r"is no TOML: .*line 2"),
        (b"seed = '\xff'", "is not UTF-8: byte 8"),
        (b"", "generator: is missing"),
    ],
)
def test_a_file_that_is_no_recipe_says_why(tmp_path, content, complaint):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=complaint):
        read_recipe(path)


def test_a_prompt_file_is_looked_for_beside_the_recipe_only(toy_recipe, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "stray.txt").write_text("a cat\n")
    monkeypatch.chdir(elsewhere)
    toy_recipe.write_text(toy_recipe.read_text().replace("prompts.txt", "stray.txt"))
    with pytest.raises(RecipeError, match=r"there is no file 'stray\.txt' beside the recipe"):
        read_recipe(toy_recipe)


DETECTOR = """
from maskrl.component import ComponentConfig
from maskrl.interfaces import Detector


class Eyes(Detector):
    class Config(ComponentConfig):
        weights: str

    paths = ("weights",)
    classes, colors = ("cat",), ("red",)

    def detect(self, image):
        return {}

    def color(self, image, detection, class_name):
        return "red"
"""


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def detector_of(recipe):
    return recipe.eval["geneval"].build({}).detector


def with_detector(toy_recipe, *overrides):
    toy_recipe.with_name("eyes.py").write_text(DETECTOR)
    toy_recipe.with_name("eyes.pth").write_text("")
    return read_recipe(toy_recipe, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ('eval.geneval.detector={name = "eyes.py:Eyes", weights = "eyes.pth"}',),
        ("eval.geneval.detector=eyes.py:Eyes", "eval.geneval.detector.weights=eyes.pth"),
        ("eval.geneval.detector.name=eyes.py:Eyes", "eval.geneval.detector.weights=eyes.pth"),
    ],
)
@pytest.mark.usefixtures("at_home")
def test_a_detector_may_have_settings(toy_recipe, tmp_path, overrides):
    recipe = with_detector(toy_recipe, *overrides)
    assert detector_of(recipe).config.weights == str(toy_recipe.with_name("eyes.pth"))
    saved = tmp_path / "elsewhere.toml"
    saved.write_text(recipe.to_toml())
    assert detector_of(read_recipe(saved)).config == detector_of(recipe).config
    assert read_recipe(saved).digest() == recipe.digest()


@pytest.mark.usefixtures("at_home")
def test_a_detector_that_lacks_a_setting_is_said_at_its_key(toy_recipe):
    with pytest.raises(RecipeError, match=r"eval\.geneval\.detector\.weights: is missing$"):
        with_detector(toy_recipe, "eval.geneval.detector=eyes.py:Eyes")


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("eval.geneval.detector.name=eyes.py:Eyes", "eval.geneval.detector.weights: is missing"),
        (
            'eval.geneval.detector={name = "eyes.py:Eyes", weight = "x"}',
            "eval.geneval.detector.weight: unknown key",
        ),
        ("eval.geneval.detector.name=shape", "no detector is called 'shape'"),
        ("eval.geneval.detector=3", "eval.geneval.detector: names a detector, or is a section that does"),
    ],
)
@pytest.mark.usefixtures("at_home")
def test_a_mistake_in_a_detector_is_found(toy_recipe, override, complaint):
    with pytest.raises(RecipeError, match=complaint):
        with_detector(toy_recipe, override)


TRAP = """
from pathlib import Path

from maskrl.filters.keep_all import KeepAll
from maskrl.rewards.clip import Clip

Path(__file__).with_name("sprung").touch()


class Trap(Clip):
    pass


class Keep(KeepAll):
    pass
"""


@pytest.fixture
def trapped(toy_recipe):
    """A recipe whose reward, filter and watched reward are code that leaves a trace when it is imported."""
    toy_recipe.with_name("trap.py").write_text(TRAP)
    written = toy_recipe.read_text() + '[watch.rewards]\nmine = "trap.py:Trap"\n'
    written = written.replace(f'"{TOY}:Red"', '"trap.py:Trap"\nmodel = "ViT-B-32"')
    toy_recipe.write_text(written.replace('"keep_all"', '"trap.py:Keep"'))
    return toy_recipe


def test_only_what_is_needed_is_imported(trapped):
    sprung = trapped.with_name("sprung")
    recipe = read_recipe(trapped, ["prompts.train=nowhere.txt"], Needs(["generators"], ["generators"]))
    assert type(recipe.generator.build()).__name__ == "ToyGenerator"
    assert not sprung.exists()
    assert recipe.reward.settings() == {"name": f"{trapped.with_name('trap.py')}:Trap", "model": "ViT-B-32"}
    assert recipe.reward.config.model == "ViT-B-32"  # asked for: read now
    assert sprung.exists()


def test_a_recipe_is_shown_without_running_its_files(trapped, cli):
    code, out, _ = cli("recipe", "show", trapped)
    assert code == 0
    assert not trapped.with_name("sprung").exists()
    trap = trapped.with_name("trap.py")
    assert f"# {trap}:Trap is code and was not run" in out
    shown = tomllib.loads(out)
    assert shown["reward"] == {"name": f"{trap}:Trap", "model": "ViT-B-32"}
    assert shown["grpo"]["eps_low"] == 0.1
    assert cli("recipe", "check", trapped).code == 0
    assert trapped.with_name("sprung").exists()


def test_what_is_read_late_says_its_mistakes_in_one_line(toy_recipe):
    late = Needs(["generators"], ["generators"])
    wrong = read_recipe(toy_recipe, ["filter.name=std_percentile", "filter.percentle=3"], late)
    with pytest.raises(RecipeError, match=r"^filter 'std_percentile': percentle: unknown key$"):
        wrong.filter.build()
    with pytest.raises(UnknownComponent, match=r"no filter is called 'keep_al'; did you mean 'keep_all'\?"):
        read_recipe(toy_recipe, ["filter.name=keep_al"], late).filter.build()


def test_a_key_that_was_there_may_go_with_the_component_it_belonged_to(toy_recipe):
    toy_recipe.write_text(
        toy_recipe.read_text().replace('name = "p_theta1"', 'name = "p_theta1"\nthreshold = "recorded"')
    )
    recipe = read_recipe(toy_recipe, ["transition.name=ar", "transition.threshold="])
    assert recipe.transition.settings() == {"name": "ar", "normalize": "sum"}
    with pytest.raises(RecipeError, match=r"transition\.thresholt: unknown key"):
        read_recipe(toy_recipe, ["transition.thresholt="])
