"""Prompts come from text, JSONL and prompt sets; a file that cannot be used names its line."""

import json

import pytest

from maskrl.component import validate
from maskrl.errors import RecipeError, UnknownComponent
from maskrl.runtime.prompts import load_prompts, training_prompts
from maskrl.sections import PromptsConfig
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
    with pytest.raises(
        RecipeError, match=r"no text under 'text'; it has 'prompt': set prompts.column = \"prompt\"$"
    ):
        load_prompts("p.jsonl", "text", tmp_path)


ROWS = [{"caption": "a cat, asleep", "language": "en"}, {"caption": "ein Käfer", "language": "de"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.json", json.dumps(ROWS)),
        ("p.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("p.csv", 'caption,language\r\n"a cat, asleep",en\r\nein Käfer,de\r\n'),
        ("P.TSV", "\ufefflanguage\tcaption\nen\ta cat, asleep\nde\tein Käfer\n"),
    ],
)
def test_rows_with_columns_are_read_alike_from_every_format(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = load_prompts(name, "caption", tmp_path)
    assert found == [Prompt(row["caption"], {"language": row["language"]}) for row in ROWS]
    (german,) = training_prompts(config(tmp_path, train=name, column="caption", where={"language": "de"}))
    assert german.text == "ein Käfer"
    with pytest.raises(RecipeError, match=r"the prompt 'a cat, asleep' of .* has no column 'licence'"):
        training_prompts(config(tmp_path, train=name, column="caption", where={"licence": "cc0"}))


def test_an_array_of_texts_is_a_list_of_prompts(tmp_path):
    (tmp_path / "p.json").write_text('["a cat", " a dog "]')
    assert load_prompts("p.json", base=tmp_path) == [Prompt("a cat"), Prompt("a dog")]


def test_numbers_in_a_table_of_text_are_found(tmp_path):
    (tmp_path / "p.csv").write_text("text,year\na cat,1999\na dog,2001\n")
    assert training_prompts(config(tmp_path, train="p.csv", where={"year": 2001}))[0].text == "a dog"


def test_a_prompt_set_is_filtered_by_its_metadata(tmp_path):
    found = training_prompts(config(tmp_path, train="shapes_geneval", where={"tag": "counting"}))
    assert {prompt.metadata["tag"] for prompt in found} == {"counting"}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"where": {"language": "en"}}, "prompts.where: .* has a prompt a line and no columns; leave it out"),
        ({"split": "test"}, "prompts.split = 'test': only a dataset has splits"),
    ],
)
def test_settings_that_a_text_file_cannot_follow_are_refused(tmp_path, settings, complaint):
    (tmp_path / "p.txt").write_text("a cat\n")
    with pytest.raises(RecipeError, match=complaint):
        training_prompts(config(tmp_path, train="p.txt", **settings))


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
        ("p.jsonl", b"[" * 100_000, r"p\.jsonl:1: is no JSON that can be read: RecursionError"),
        ("p.json", b"", "holds no prompts"),
        ("p.json", b'{"text": "a cat"}', r"p\.json: is no JSON array; one object a line is a \.jsonl file"),
        ("p.json", b'["a cat", 3]', r"p\.json\[1\]: is no JSON object"),
        (
            "p.json",
            b'[{"caption": "a cat"}]',
            r"p\.json\[0\]: has no text under .*; it has 'caption': set prompts",
        ),
        ("p.csv", b"text,n\na cat,1,2\n", r"p\.csv:2: has more cells than the header"),
        ("p.csv", b'text\n"a cat', r"p\.csv:\d: cannot be read as a table"),
        ("p.tsv", b"n\ttext\n1\n", r"p\.tsv:2: has no text under"),
        ("p.csv", b"text,n\n", "holds no prompts"),
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
    return validate(PromptsConfig, settings, {"base": folder})


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
