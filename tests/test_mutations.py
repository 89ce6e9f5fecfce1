"""Recipes and overrides that somebody has mutilated are read, or refused at the user's own key; never a traceback."""

import copy
import functools
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskrl import registry
from maskrl.errors import PluginError, RecipeError
from maskrl.mistakes import written
from maskrl.recipe import Recipe, read_recipe
from maskrl.recipe_file import write_toml
from maskrl.recipes_at_hand import shipped_recipes

EVERYTHING = """
[lora]
rank = 4
[ema]
decay = 0.9
[early_stop]
reward = "detector"
[checkpoint]
every = 5
[tracking]
sample_prompts = ["a red circle"]
[eval.clip_score]
prompts = "shapes_geneval"
model = "package:maskrl/shapes/weights/clip"
"""
TEXTS = {name: path.read_text() for name, path in shipped_recipes().items() if name.startswith("shapes")}
TEXTS["everything"] = TEXTS["shapes_mix"] + EVERYTHING


def keys_of(table, prefix=()):
    """Every key of a recipe, in every table."""
    for key, value in table.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from keys_of(value, (*prefix, key))


def known_keys():
    """Every key that a recipe may have, whether or not one of ours has it."""
    models = {name: field.annotation for name, field in Recipe.model_fields.items()}
    plain = {(name, key) for name, model in models.items() for key in getattr(model, "model_fields", ())}
    there = {keys for text in TEXTS.values() for keys in keys_of(tomllib.loads(text))}
    return sorted(plain | there | {(name,) for name in models})


KEYS = known_keys()
COMPONENTS = sorted(
    {offer.name for offer in registry.installed()} | {"clp", "os:path", "maskrl/clip", "nowhere/x"}
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
LEAVES = st.one_of(
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.booleans(),
    TEXT,
    st.sampled_from(COMPONENTS),
    st.sampled_from(
        [-1, 0, 1, 2**31, 2**63 - 1, 10**9, -1.0, 1e-300, 1e300, "", "/", ".", "..", "~", "~nouser/x"]
    ),
    st.sampled_from(
        ["/dev/zero", "/proc/self/mem", "package:", "package:os", "x.py:Y", ".py:", "a/b", "x" * 300]
    ),
    st.sampled_from(
        ["two\nlines", "\x1b[31m", "\u202e", "\u2028", "ü" * 99, "true", "nan", "1e9", "fp16", "cuda"]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just("name"), inner, max_size=3),
    max_leaves=6,
)
RAW = st.sampled_from(
    [
        *(
            "",
            "1979-05-27",
            "07:32:00",
            "1979-05-27T07:32:00Z",
            "nan",
            "-inf",
            "1e999",
            "0x",
            "0xff",
            "1_0",
            "1__0",
        ),
        *(
            "01",
            '"""a\nb"""',
            "'''",
            '"',
            "'",
            "[",
            "]",
            "[1,",
            "{",
            "{}",
            "{a=}",
            "{a.b=1}",
            "[[]]",
            "[{}]",
            "# x",
        ),
        *(
            '"\\u0000"',
            '"\\ud800"',
            '"\\x00"',
            "9" * 5000,
            "[" * 500,
            "true",
            "True",
            "null",
            "1 2",
            "-",
            "+1",
        ),
    ]
)


@st.composite
def mutilated(draw):
    """A recipe's tables after one to three changes, and the keys at which they were made."""
    data, touched = copy.deepcopy(tomllib.loads(TEXTS[draw(st.sampled_from(sorted(TEXTS)))])), []
    for _ in range(draw(st.integers(1, 3))):
        keys = draw(st.sampled_from(KEYS))
        touched.append(CHANGES[draw(st.sampled_from(sorted(CHANGES)))](draw, data, keys))
    return data, touched


def table_of(data, keys):
    """The table that holds the last of some keys; made, where there is none or a value in its place."""
    for key in keys[:-1]:
        if not isinstance(data.get(key), dict):
            data[key] = {}
        data = data[key]
    return data


def another_value(draw, data, keys):
    table_of(data, keys)[keys[-1]] = draw(VALUES)
    return keys


def unknown_key(draw, data, keys):
    name = draw(
        TEXT | st.sampled_from([keys[-1] + "s", keys[-1][:-1], keys[-1].upper(), "name", f" {keys[-1]}"])
    )
    table_of(data, keys)[name] = draw(VALUES)
    return (*keys[:-1], name)


def without(draw, data, keys):
    table_of(data, keys).pop(keys[-1], None)
    return keys


def elsewhere(draw, data, keys):
    """A value that stands at another key."""
    other = draw(st.sampled_from(KEYS))
    found = functools.reduce(
        lambda table, key: table.get(key, {}) if isinstance(table, dict) else 0, other, data
    )
    table_of(data, keys)[keys[-1]] = copy.deepcopy(found)
    return keys


def deeper(draw, data, keys):
    """A table around a value."""
    table = table_of(data, keys)
    table[keys[-1]] = {draw(TEXT | st.just(keys[-1])): table.get(keys[-1], 1)}
    return keys


def another_component(draw, data, keys):
    section = draw(st.sampled_from(["generator", "transition", "reward", "filter", "reducer"]))
    table_of(data, (section, "name"))["name"] = draw(st.sampled_from(COMPONENTS) | VALUES)
    return (section, "name")


CHANGES = {
    function.__name__: function
    for function in (another_value, unknown_key, without, elsewhere, deeper, another_component)
}


@st.composite
def damaged(draw):
    """A recipe's bytes, in which some have changed, or a line or its value."""
    content = TEXTS[draw(st.sampled_from(sorted(TEXTS)))].encode()
    for _ in range(draw(st.integers(1, 3))):
        content = DAMAGES[draw(st.sampled_from(sorted(DAMAGES)))](draw, content)
    return content


def flipped(draw, content):
    place = draw(st.integers(0, max(0, len(content) - 1)))
    return content[:place] + bytes([draw(st.integers(0, 255))]) + content[place + 1 :]


def cut(draw, content):
    return content[: draw(st.integers(0, len(content)))]


def without_some(draw, content):
    start = draw(st.integers(0, len(content)))
    return content[:start] + content[start + draw(st.integers(1, 40)) :]


def with_more(draw, content):
    start = draw(st.integers(0, len(content)))
    return content[:start] + draw(st.binary(max_size=6) | RAW.map(str.encode)) + content[start:]


def another_line(draw, content):
    lines = content.splitlines(keepends=True) or [b""]
    place = draw(st.integers(0, len(lines) - 1))
    other = lines[draw(st.integers(0, len(lines) - 1))]
    value = lines[place].partition(b"=")[0] + b"=" + draw(RAW).encode() + b"\n"
    lines[place : place + 1] = draw(st.sampled_from([[other], [lines[place], other], [value], []]))
    return b"".join(lines)


DAMAGES = {function.__name__: function for function in (flipped, cut, without_some, with_more, another_line)}
OVERRIDES = st.lists(
    st.builds(
        "{}{}{}".format,
        st.sampled_from([written(keys) for keys in KEYS] + [".".join(keys) for keys in KEYS]) | TEXT,
        st.sampled_from(["=", "=", "=", " = ", "==", ".", ""]),
        RAW | TEXT | st.sampled_from(COMPONENTS) | VALUES.map(str),
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module", autouse=True)
def _installed_once():
    """What is installed is looked up once: it takes most of the time of reading a recipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "installed", functools.cache(registry.installed))
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("mutilated") / "any.toml"


def read_or_refused(path, overrides=()):
    """Read a recipe, or return the lines with which it is refused."""
    try:
        recipe = read_recipe(path, overrides)
    except (RecipeError, PluginError) as error:
        lines = str(error).split("\n")
        for line in lines:
            assert line.startswith((f"{path}: ", "--set ")), line
            assert line.isprintable(), line
            assert len(line) < 1500, line
        return [line.removeprefix(f"{path}: ") for line in lines]
    again = path.with_name("again.toml")
    again.write_text(recipe.to_toml(), encoding="utf-8")
    assert read_recipe(again).to_toml() == recipe.to_toml()
    return []


def check_mutilated(path, mutilated):
    data, touched = mutilated
    path.write_text(write_toml(data), encoding="utf-8")
    said = read_or_refused(path)
    sections = {name for keys in touched for name in (keys[0], written(keys[:1]))}
    assert not said or any(name in " ".join(said) for name in sections), (said, touched)


def check_damaged(path, content):
    path.write_bytes(content)
    read_or_refused(path)


def check_overrides(path, overrides):
    path.write_text(TEXTS["everything"], encoding="utf-8")
    read_or_refused(path, overrides)


CHECKS = {
    "tables": (mutilated(), check_mutilated),
    "bytes": (damaged(), check_damaged),
    "--set": (OVERRIDES, check_overrides),
}


def examine(path, what, number):
    """Read so many of them; return how many were read and refused."""
    strategy, check = CHECKS[what]

    @settings(max_examples=number, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def every(found):
        check(path, found)

    every()


@pytest.mark.parametrize("what", CHECKS)
def test_what_is_mutilated_is_read_or_refused(path, what):
    examine(path, what, 100)


@pytest.mark.long
@pytest.mark.parametrize("what", CHECKS)
def test_thousands_that_are_mutilated_are_read_or_refused(path, what):
    examine(path, what, 1700)
