"""Prompts come from text, JSONL and prompt sets; a file that cannot be used names its line."""

import json

import pytest

from maskrl.errors import RecipeError, UnknownComponent
from maskrl.recipe import PromptsConfig
from maskrl.runtime.prompts import load_prompts, training_prompts
from maskrl.types import Prompt


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    (tmp_path / "p.txt").write_bytes("\ufeffa cat\r\n\n  ein Käfer\u2028now \n".encode())
    assert load_prompts("p.txt", base=tmp_path) == [Prompt("a cat"), Prompt("ein Käfer\u2028now")]


def test_a_jsonl_file_has_metadata(tmp_path):
    rows = [
        {"text": "two cats", "tag": "counting", "include": [{"class": "cat", "count": 2}]},
        {"text": "a dog"},
    ]
    (tmp_path / "p.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    first, second = load_prompts("p.jsonl", base=tmp_path)
    assert first.metadata == {"tag": "counting", "include": [{"class": "cat", "count": 2}]}
    assert second == Prompt("a dog")


def test_the_column_names_the_text(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"caption": "a cat", "text": 3}')
    assert load_prompts("p.jsonl", "caption", tmp_path) == [Prompt("a cat", {"text": 3})]


def test_genevals_own_file_needs_no_column(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"tag": "colors", "prompt": "a red cat"}')
    assert load_prompts("p.jsonl", base=tmp_path) == [Prompt("a red cat", {"tag": "colors"})]
    with pytest.raises(RecipeError, match=r"no text under 'text'$"):
        load_prompts("p.jsonl", "text", tmp_path)


def test_a_prompt_set_is_known_by_name(tmp_path):
    assert load_prompts("shapes_geneval", base=tmp_path)[0].metadata["tag"] == "single_object"


def test_a_prompt_set_may_be_a_class_in_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from maskrl.interfaces import PromptSet\n"
        "from maskrl.types import Prompt\n"
        "class Mine(PromptSet):\n"
        "    def prompts(self): return [Prompt('mine')]\n"
    )
    assert load_prompts("mine.py:Mine", base=tmp_path) == [Prompt("mine")]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("p.txt", b"", "holds no prompts"),
        ("p.txt", b" \n\n", "holds no prompts"),
        ("p.jsonl", b"", "holds no prompts"),
        ("p.txt", b"a cat\na \xe9t\xe9\n", r"p\.txt:2: is not UTF-8"),
        ("p.txt", "a cat".encode("utf-16"), r"p\.txt:1: is not UTF-8"),
        ("p.jsonl", b'{"text": "a"}\n{"text"', r"p\.jsonl:2: is no JSON"),
        ("p.jsonl", b'{"txt": "a"}', r"p\.jsonl:1: has no text under 'text' or 'prompt'"),
        ("p.jsonl", b'{"text": " "}', r"p\.jsonl:1: has no text under 'text'"),
        ("p.jsonl", b'{"text": 3, "prompt": "a"}', r"p\.jsonl:1: has no text under 'text'"),
        ("p.jsonl", b"[1]", r"p\.jsonl:1: is no JSON object"),
    ],
)
def test_a_useless_file_says_why(tmp_path, name, content, complaint):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=complaint):
        load_prompts(name, base=tmp_path)


def test_a_missing_source_says_what_it_was_taken_for(tmp_path):
    with pytest.raises(RecipeError, match=r"there is no prompt file 'p\.txt'"):
        load_prompts("p.txt", base=tmp_path)
    with pytest.raises(UnknownComponent, match="did you mean 'shapes_train'"):
        load_prompts("shapes_tran", base=tmp_path)


def config(folder, **settings):
    """Read a section [prompts] as a recipe in ``folder`` would."""
    return PromptsConfig.model_validate(settings, context={"base": folder})


@pytest.fixture
def dataset(tmp_path):
    """A dataset in a folder, as it lies on the hub: data files by split."""
    folder = tmp_path / "captions"
    folder.mkdir()
    rows = [
        {"short": f"cat {i}", "long": f"a cat that has number {i}", "language": "en" if i % 2 else "de"}
        for i in range(10)
    ]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_a_dataset_is_streamed_until_there_are_enough(dataset):
    found = training_prompts(config(dataset, train="captions", column="short", limit=3))
    assert found == [Prompt("cat 0"), Prompt("cat 1"), Prompt("cat 2")]


def test_columns_and_filters_of_a_dataset(dataset):
    settings = {"train": "captions", "column": ["short", "long"], "where": {"language": "en"}, "limit": 3}
    assert training_prompts(config(dataset, **settings)) == [
        Prompt("cat 1"),
        Prompt("a cat that has number 1"),
        Prompt("cat 3"),
    ]
    longer = training_prompts(config(dataset, **settings, min_words=3))
    assert [prompt.text for prompt in longer] == [f"a cat that has number {i}" for i in (1, 3, 5)]
    shorter = training_prompts(config(dataset, **settings, max_words=2))
    assert [prompt.text for prompt in shorter] == [f"cat {i}" for i in (1, 3, 5)]


def test_a_text_file_is_filtered_by_length_as_well(tmp_path):
    (tmp_path / "p.txt").write_text("one\none two\none two three\n")
    found = training_prompts(config(tmp_path, train="p.txt", min_words=2, limit=1))
    assert found == [Prompt("one two")]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"column": "prompt"}, r"no column 'prompt'; it has 'short', 'long', 'language'"),
        ({"column": "short", "where": {"licence": "cc0"}}, "no column 'licence'"),
        ({"column": "short", "split": "test"}, "split 'test', cannot be read"),
        ({"column": "short", "min_words": 9}, "no prompt of .* is left after filtering"),
    ],
)
def test_a_dataset_that_does_not_fit_is_one_clear_line(dataset, settings, complaint):
    with pytest.raises(RecipeError, match=complaint) as error:
        training_prompts(config(dataset, train="captions", limit=5, **settings))
    assert "\n" not in str(error.value)


def test_a_hub_id_is_accepted_with_a_limit_and_a_hub_out_of_reach_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="say how many prompts to take"):
        config(tmp_path, train="owner/captions")
    chosen = config(tmp_path, train="owner/captions", limit=5)
    with pytest.raises(
        RecipeError, match="the dataset 'owner/captions', split 'train', cannot be read"
    ) as error:
        training_prompts(chosen)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="there is no file"):
        config(tmp_path, train="captoins", limit=5)
    with pytest.raises(ValueError, match="less than min_words"):
        config(tmp_path, train="owner/captions", limit=5, min_words=4, max_words=3)
