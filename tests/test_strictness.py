"""Whatever a recipe says, it is read or refused, in a line at its key and in no time."""

import tomllib
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from maskrl.component import ComponentConfig, validate
from maskrl.errors import PluginError, RecipeError
from maskrl.recipe import Recipe, read_recipe
from maskrl.recipe_file import write_toml
from maskrl.recipes_at_hand import shipped_recipes

MOST_SECONDS = 10  # of the processor; a first reading imports much
SHIPPED = tomllib.loads(read_recipe("shapes_mix").to_toml())


def refusal(path, content):
    """Read a recipe that must be refused quickly; return what was said."""
    path.write_text(content)
    began = process_time()
    with pytest.raises(RecipeError) as refused:
        read_recipe(path)
    assert process_time() - began < MOST_SECONDS
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("seed", "true", "seed: input should be a valid integer, not True"),
        ("seed", "1e30", "seed: input should be a valid integer, not 1e+30"),
        ("seed", str(10**30), "seed: an integer has 64 bits at most"),
        (
            "seed",
            "1979-05-27",
            "seed: 1979-05-27 is a date or a time, which no setting is; a text needs quotes",
        ),
        ("training.updates", "'2'", "training.updates: input should be a valid integer, not '2'"),
        ("training.updates", "2.0", "training.updates: input should be a valid integer, not 2.0"),
        (
            "training.prompts_per_update",
            "1e12",
            "training.prompts_per_update: input should be a valid integer",
        ),
        ("training.prompts_per_update", str(10**12), "images an update; more than 1,000,000 are not kept"),
        ("training.betas", "[1, 0.5]", "training.betas.0: input should be less than 1, not 1"),
        ("training.betas", "[0.9, 1.5]", "training.betas.1: input should be less than 1, not 1.5"),
        ("training.betas", "[0.9]", "training.betas"),
        ("training.learning_rate", "inf", "training.learning_rate: input should be a finite number, not inf"),
        ("training.weight_decay", "inf", "training.weight_decay: input should be a finite number, not inf"),
        ("training.max_grad_norm", "nan", "training.max_grad_norm: input should be "),
        (
            "grpo.group_size",
            str(2**31),
            "grpo.group_size: 2,147,483,648 is more than 10,000: a group is kept",
        ),
        ("grpo.kl_coef", "inf", "grpo.kl_coef: input should be a finite number, not inf"),
        ("grpo.eps_low", "true", "grpo.eps_low: input should be a valid number, not True"),
        ("sampling.tau_init", "inf", "sampling.tau_init: input should be a finite number, not inf"),
        (
            "sampling.guidance_train",
            "nan",
            "sampling.guidance_train: input should be a finite number, not nan",
        ),
        ("lora.rank", "1_000_000", "lora.rank: 1,000,000 is more than 4,096: larger adapters"),
        ("lora.rnk", "1", "lora.rnk: unknown key; did you mean 'rank'?"),
        ("filter.warmup", "1.5", "filter.warmup: input should be a valid integer, not 1.5"),
        ("prompts.train", "''", "prompts.train: there is no file '' beside the recipe"),
        ("prompts.train", "'/'", "prompts.train: '/' is no file of prompts"),
        ("prompts.train", "'/dev/zero'", "prompts.train: '/dev/zero' is no file of prompts"),
        ("prompts.train", "'~nouser/x'", "prompts.train: '~nouser/x' is no path: "),
        ("prompts.train", "'" + "x" * 300 + "'", "…' is no path: File name too long"),
        ("prompts.column", "3", "prompts.column: input should be a valid string or input should be a valid"),
        ("generator.checkpoint", "'~nouser/x'", "generator.checkpoint: '~nouser/x' is no path: "),
        (
            "generator.checkpoint",
            '"a\\u0000b"',
            "generator.checkpoint: holds a null character",
        ),
        ("generator.name", "'~nouser/x.py:Y'", "generator.name: '~nouser/x.py:Y' names no file: "),
        ('training."a\\nb"', "3", 'training."a\\nb": unknown key'),
    ],
)
def test_nonsense_is_a_line_at_its_key(tmp_path, key, value, complaint):
    section, _, name = key.rpartition(".")
    tables = {**SHIPPED, "lora": {}}
    if section:
        written = {**tables, section: {k: v for k, v in tables[section].items() if k != name}}
        line = f"[{section}]\n"
        content = write_toml(written).replace(line, f"{line}{name} = {value}\n")
    else:
        content = f"{name} = {value}\n" + write_toml({k: v for k, v in tables.items() if k != name})
    assert complaint in refusal(tmp_path / "wrong.toml", content)


@pytest.mark.parametrize("deep", ["[" * 3000, "[" * 60 + "]" * 60, "{a=" * 60 + "1" + "}" * 60])
def test_what_is_too_deep_is_refused(tmp_path, deep):
    assert "nested too deeply" in refusal(tmp_path / "deep.toml", f"seed = {deep}")
    with pytest.raises(RecipeError, match=r"^--set .*(deep|write it as)"):
        read_recipe("shapes_clip", [f"seed={deep}"])


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 5000])
def test_a_number_of_thousands_of_digits_is_refused(tmp_path, number):
    refusal(tmp_path / "long.toml", f"seed = {number}")
    with pytest.raises(RecipeError, match=r"^--set"):
        read_recipe("shapes_clip", [f"seed={number}"])


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("typo.key=", "typo: unknown key"),
        ("typo=", "typo: unknown key"),
        (
            "eval.geneval.images_per_prompt=1000000000000",
            "1,000,000,000,000 is more than 10,000: a mean needs no",
        ),
        (
            "eval.geneval.imges_per_prompt=3",
            "eval.geneval.imges_per_prompt: unknown key; did you mean 'images_per",
        ),
        ("eval.geneval.detectr=shapes", "eval.geneval.detectr: unknown key; did you mean 'detector'?"),
        (
            "eval.prompts=shapes_geneval",
            "eval.prompts: every evaluation has a section of its own now: write [eval",
        ),
        ("eval.every=", "eval.every: every evaluation has a section of its own now"),
        ("eval.hard.name=gneval", "no evaluation is called 'gneval'; did you mean 'geneval'"),
        ("eval.geneval=3", "eval.geneval: is a section: write [eval.NAME]"),
        ("grpo.grop_size=", "grpo.grop_size: unknown key; did you mean 'group_size'?"),
        ("filter.percentle=", "filter.percentle: unknown key; did you mean 'percentile'?"),
        ("lora.rnk=", "lora.rnk: unknown key; did you mean 'rank'?"),
        ("grpo..group_size=3", "--set 'grpo..group_size=3': write it as section.key=value"),
        ("tracking.sample_prompts=['\udc80']", "is not UTF-8"),
    ],
)
def test_an_override_of_no_key_is_refused(override, complaint):
    with pytest.raises(RecipeError) as refused:
        read_recipe("shapes_mix", [override])
    assert complaint in str(refused.value)


def test_a_key_of_another_component_is_taken_away():
    changes = [
        "filter.name=std_percentile",
        "filter.percentile=5",
        "filter.name=keep_all",
        "filter.percentile=",
    ]
    assert read_recipe("shapes_mix", changes).filter.settings() == {"name": "keep_all"}


def test_restoring_a_default_adds_nothing():
    assert read_recipe("shapes_mix", ["lora.rank="]).lora is None
    assert read_recipe("shapes_mix", ["lora.rank=4", "lora.rank="]).lora.rank == 32
    assert read_recipe("shapes_mix", ["seed=3", "seed="]).seed == 0


def test_a_value_with_a_line_break_sets_one_key():
    assert read_recipe("shapes_clip", ['seed=1\n"x"=2', "seed=4"]).seed == 4
    with pytest.raises(RecipeError, match="seed: input should be a valid integer"):
        read_recipe("shapes_clip", ["seed=1\nother=2"])


class Plugin(ComponentConfig):
    count: int = 1
    rate: float = 1.0
    pair: tuple[float, ...] = ()
    names: list[str] = Field(default_factory=list)
    is_on: bool = False


def test_a_plugins_settings_are_as_strict_and_take_what_toml_and_json_mean():
    found = validate(Plugin, {"rate": 3, "pair": [1, 2.5], "names": ["a"]}, {})
    assert (found.rate, found.pair, found.names) == (3.0, (1.0, 2.5), ["a"])
    assert type(found.rate) is float
    assert validate(Plugin, found.model_dump(mode="json"), {}) == found
    for wrong in ({"count": True}, {"count": "1"}, {"count": 1.0}, {"rate": float("inf")}, {"is_on": 1}):
        with pytest.raises(ValueError, match="validation error"):
            validate(Plugin, wrong, {})
        with pytest.raises(ValueError, match="validation error"):
            Plugin(**wrong)


def keys_of(table, prefix=()):
    for key, value in table.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from keys_of(value, (*prefix, key))


def fields_of_recipe():
    """Every key that can be written, also those without a value."""
    sections = {name: field.annotation for name, field in Recipe.model_fields.items()}
    plain = {(name, key) for name, model in sections.items() for key in getattr(model, "model_fields", ())}
    return sorted(plain | set(keys_of(SHIPPED)) | {("lora", key) for key in ("rank", "alpha", "targets")})


leaves = st.one_of(
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(
        ["", "/", "~nouser/x", "/dev/zero", ".", "package:os", "package:", "x" * 300, "a/b", "x.py:Y"]
    ),
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40)
@example(changes=[(("eval",), 0)])
@example(changes=[(("eval",), {"geneval": 0})])
@example(changes=[(("reward",), {"name": "weighted_sum", "terms": {"\x1f": 0}})])
@given(changes=st.lists(st.tuples(st.sampled_from(fields_of_recipe()), values), min_size=1, max_size=3))
def test_any_value_at_any_key_is_read_or_refused(tmp_path_factory, changes):
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in SHIPPED.items()}
    for keys, value in changes:
        table = data
        for key in keys[:-1]:
            inside = table.get(key)
            table[key] = table = dict(inside) if isinstance(inside, dict) else {}
        table[keys[-1]] = value
    path = tmp_path_factory.mktemp("fuzz") / "any.toml"
    path.write_text(write_toml(data), encoding="utf-8")
    began = process_time()
    try:
        recipe = read_recipe(path)
    except (RecipeError, PluginError) as error:
        for line in str(error).split("\n"):
            assert line.startswith(f"{path}: "), line
            assert line.isprintable(), line
    else:
        path.write_text(recipe.to_toml(), encoding="utf-8")
        assert read_recipe(path) == recipe
    assert process_time() - began < MOST_SECONDS


KEYS = [".".join(keys) for keys in fields_of_recipe()]


@settings(max_examples=30)
@given(text=st.text(max_size=30) | st.builds("{}={}".format, st.sampled_from(KEYS), st.text(max_size=12)))
def test_any_override_is_read_or_refused(text):
    with suppress(RecipeError, PluginError):
        assert isinstance(read_recipe("shapes_mix", [text]), Recipe)


def test_shipped_recipes_survive_being_written_and_read_again(tmp_path):
    for name in shipped_recipes():
        recipe = read_recipe(name)
        (tmp_path / "again.toml").write_text(recipe.to_toml())
        assert read_recipe(tmp_path / "again.toml").to_toml() == recipe.to_toml()


@pytest.mark.parametrize(
    "place", ["{} = 1", "[generator]\nname = 'showo'\n{} = 1", "[eval.{}]", "[watch.rewards.{}]", "[{}]"]
)
def test_a_key_of_any_length_is_named_in_a_short_line(tmp_path, place):
    (tmp_path / "long.toml").write_text(place.format("9" * 5000) + "\n")
    with pytest.raises(RecipeError) as refused:
        read_recipe(tmp_path / "long.toml")
    lines = str(refused.value).split("\n")
    assert any("9" * 60 + "…" in line for line in lines)
    assert max(map(len, lines)) < 600


def test_a_long_key_is_written_whole(tmp_path):
    key = "k" * 500
    assert tomllib.loads(write_toml({"tracking": {"options": {"mine": {key: 1}}}})) == {
        "tracking": {"options": {"mine": {key: 1}}}
    }
