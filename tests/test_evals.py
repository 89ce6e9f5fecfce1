"""Evaluations of a generator that paints 2 x 2 coloured tiles, with a detector that reads the tiles."""

import json
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import built
import numpy as np
import pytest
import torch
from torch import nn

from maskrl.errors import RecipeError, TrainingError
from maskrl.evals.comparison import compare
from maskrl.evals.generate import generate
from maskrl.evals.images import open_folder
from maskrl.evals.live import Asked, evaluate, evaluate_together
from maskrl.evals.ranks import ALONE
from maskrl.evals.results import Report, Result, read_report, write_report
from maskrl.evals.sampled import sample_folder
from maskrl.evaluations.geneval import GenEvalBenchmark, judge_image
from maskrl.evaluations.numbers import numbers
from maskrl.files import write_text
from maskrl.geneval.metadata import TASKS
from maskrl.geneval.record import Record
from maskrl.grpo.config import SamplingConfig, resolve
from maskrl.interfaces import Condition, Detection, Detector, MaskedGenerator, Number
from maskrl.training.display import shown, worse
from maskrl.types import GeneratorSpec, Prompt, SamplerDefaults, Stream

TILE = 6
COLORS = {"red": (0.9, 0.11, 0.1), "green": (0.1, 0.9, 0.13), "blue": (0.1, 0.17, 0.9)}
CLASS_OF = {"red": "poppy", "green": "leaf", "blue": "sky"}
PALETTE = torch.tensor([(1.0, 1.0, 1.0), *COLORS.values()], dtype=torch.float64)


class Rows(Condition):
    def __init__(self, features):
        self.features = features

    def select(self, rows):
        return Rows(self.features[rows])


class Mosaic(MaskedGenerator):
    """Four tokens, each the colour of a tile; float64, so that no batch size rounds differently."""

    spec = GeneratorSpec(4, 4, 4, (2, 2), (2 * TILE, 2 * TILE), SamplerDefaults(num_steps=2))
    frozen = ()

    def __init__(self, config, seed=0):
        super().__init__(config)
        self.encoded = Counter()
        self.module = nn.Sequential(nn.Linear(4 * 5 + 3, 16), nn.Tanh(), nn.Linear(16, 4 * 4)).double()
        with torch.no_grad():
            for index, parameter in enumerate(self.module.parameters()):
                rng = Stream(seed, ("weights", index)).generator()
                parameter.copy_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64))

    def encode(self, prompts):
        self.encoded.update(prompt.text for prompt in prompts)
        return Rows(torch.stack([torch.rand(3, generator=Stream(0, (p.text,)).generator()) for p in prompts]))

    def logits(self, tokens, condition, step, guidance, positions=None):
        known = nn.functional.one_hot(tokens, 5).flatten(1).double()
        out = self.module(torch.cat([known, condition.features.double()], dim=1)).view(len(tokens), 4, 4)
        return out if positions is None else out[positions]

    def decode(self, tokens, condition):
        grid = PALETTE[tokens].view(-1, 2, 2, 3).permute(0, 3, 1, 2)
        return grid.repeat_interleave(TILE, dim=2).repeat_interleave(TILE, dim=3)

    def save(self, folder):
        raise AssertionError("an evaluation saves no network")


class Tiles(Detector):
    """Every coloured tile is an object; its colour decides its class."""

    classes = tuple(CLASS_OF.values())
    colors = tuple(COLORS)

    def detect(self, image):
        found = {}
        for row in (0, TILE):
            for column in (0, TILE):
                tile = image[:, row, column]
                if tile.min() < 0.5:
                    box = (column, row, column + TILE, row + TILE)
                    mask = np.zeros((2 * TILE, 2 * TILE), dtype=np.bool_)
                    found.setdefault(CLASS_OF[self._name(tile)], []).append(Detection(box, 0.95, mask))
        return found

    def color(self, image, detection, class_name):
        return self._name(image[:, int(detection.box[1]), int(detection.box[0])])

    def _name(self, pixel):
        return min(COLORS, key=lambda name: float((pixel - torch.tensor(COLORS[name])).abs().sum()))


def clause(name, count=1, **more):
    return {"class": name, "count": count, **more}


def task_prompts(tag, include, *exclude):
    metadata = {"tag": tag, "include": include} | ({"exclude": list(exclude)} if exclude else {})
    return [Prompt(f"{tag} {i}", metadata) for i in range(3)]


PROMPTS = [
    *task_prompts("single_object", [clause("poppy")]),
    *task_prompts("two_object", [clause("poppy"), clause("leaf")]),
    *task_prompts("counting", [clause("sky", 2)], clause("sky", 3)),
    *task_prompts("colors", [clause("leaf", color="green")]),
    *task_prompts("position", [clause("poppy"), clause("sky", position=["left of", 0])]),
    *task_prompts("color_attr", [clause("poppy", color="red"), clause("sky", color="blue")]),
]
STREAM = Stream(3, ("test",))
SAMPLING = resolve(SamplingConfig(), Mosaic.spec)


def run(generator=None, prompts=PROMPTS, stream=STREAM, batch=10, **more):
    settings = {"sampling": SAMPLING, "num_steps": 2, "images_per_prompt": 4}
    generator, detector = generator or Mosaic(Mosaic.Config()), Tiles(Tiles.Config())
    return evaluate(
        built.geneval(detector), generator, prompts, stream=stream, batch=batch, **(settings | more)
    )


def paint(prompts, streams, batch):
    parts = list(generate(Mosaic(Mosaic.Config()), prompts, streams, 2, SAMPLING, 0.0, batch))
    assert [i for indices, _ in parts for i in indices] == list(range(len(prompts)))
    return torch.cat([images for _, images in parts])


@pytest.mark.parametrize("batch", [1, 4, 7, 1000])
def test_batch_size_changes_no_image(batch):
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    streams = [STREAM.child(i) for i in range(len(prompts))]
    assert torch.equal(paint(prompts, streams, batch), paint(prompts, streams, 5))


def test_an_image_depends_on_its_own_prompt_and_stream():
    streams = [STREAM.child(i) for i in range(len(PROMPTS))]
    every = paint(PROMPTS, streams, 100)
    some = [11, 2, 5]
    assert torch.equal(paint([PROMPTS[i] for i in some], [streams[i] for i in some], 100), every[some])
    assert len(torch.unique(every, dim=0)) > 5


def test_a_prompt_is_encoded_once_in_a_batch():
    generator = Mosaic(Mosaic.Config())
    run(generator, batch=8)
    assert generator.encoded == Counter(prompt.text for prompt in PROMPTS)


def test_an_evaluation_repeats_and_its_batch_size_changes_nothing():
    first, again, other_batch = run(), run(), run(batch=7)
    assert first == again == other_batch
    assert (first.result.images, len(first.rows)) == (72, 72)
    assert 0 < first.headline.mean < 1
    assert first.headline.se > 0
    assert run(stream=Stream(4)).rows != first.rows


def painted_folder(folder, prompts=PROMPTS, images_per_prompt=4):
    settings = {"sampling": SAMPLING, "num_steps": 2, "images_per_prompt": images_per_prompt}
    settings |= {"process": ALONE, "progress": lambda done, total: None}
    sample_folder(folder, Mosaic(Mosaic.Config()), prompts, stream=STREAM, batch=10, **settings)
    return open_folder(folder)


def test_images_and_prompts_have_their_own_streams(tmp_path):
    painted = painted_folder(tmp_path, [PROMPTS[0], PROMPTS[0]], images_per_prompt=40)
    first, second = (torch.stack([painted.read(name) for name in names]) for names in painted.names)
    assert len(torch.unique(first, dim=0)) > 1
    assert not torch.equal(first, second)


def test_progress_counts_the_images():
    calls = []
    run(batch=50, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(50, 72), (72, 72)]


def test_the_official_folder_gives_the_same_verdicts(tmp_path):
    report, painted = run(), painted_folder(tmp_path)
    places = {path.name for path in tmp_path.iterdir()} - {"settings.json"}
    assert places == {f"{i:05d}" for i in range(len(PROMPTS))}
    by_text = {prompt.text: prompt for prompt in PROMPTS}
    for row in report.rows:
        record = Record(**row)
        image = painted.read(record.filename)
        assert judge_image(image, by_text[record.prompt], Tiles(Tiles.Config()), record.filename) == record
        beside = (tmp_path / record.filename).parent.parent / "metadata.jsonl"
        assert json.loads(beside.read_text()) == json.loads(record.metadata)
    assert report.rows[5]["filename"] == "00001/samples/00001.png"


def test_a_report_is_read_as_it_was_written(tmp_path):
    report = run()
    provenance = {**report.result.provenance, "recipe": "abc", "checkpoint": "base"}
    report = replace(report, result=replace(report.result, provenance=provenance))
    write_report(report, tmp_path / "new" / "folder")
    assert read_report(tmp_path / "new" / "folder") == report
    rows = (tmp_path / "new" / "folder" / "results.jsonl").read_text().splitlines()
    assert len(rows) == 72
    assert list(json.loads(rows[0])) == [
        "filename", "tag", "prompt", "correct", "reason", "metadata", "details",
    ]  # fmt: skip
    summary = json.loads((tmp_path / "new" / "folder" / "summary.json").read_text())
    assert (summary["evaluation"], summary["label"]) == ("geneval", report.result.label)
    assert next(iter(summary["numbers"])) == "overall"
    assert summary["numbers"]["overall"] == {"mean": report.headline.mean, "se": report.headline.se}
    assert summary["numbers"]["counting"]["se"] == report.numbers["counting"].se
    assert summary["provenance"]["recipe"] == "abc"
    assert summary["provenance"]["generator"]["class"].endswith(":Mosaic")
    assert "generator" not in summary["settings"]
    assert summary["settings"]["seed"] == 3
    assert summary["settings"]["detector"]["class"].endswith(":Tiles")
    assert "torch" in summary["versions"]


def test_a_standard_error_that_does_not_exist_is_null(tmp_path):
    report = run(prompts=PROMPTS[::3])
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["numbers"]["overall"]["se"] is None
    assert math.isnan(read_report(tmp_path).headline.se)


@pytest.mark.parametrize("name", ["results.jsonl", "summary.json"])
def test_damaged_results_are_refused(tmp_path, name):
    write_report(run(), tmp_path)
    whole = (tmp_path / name).read_text()
    for damaged in (whole[: len(whole) // 2], whole[: whole.rindex("{")], ""):
        (tmp_path / name).write_text(damaged)
        with pytest.raises(TrainingError, match="damaged"):
            read_report(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises((TrainingError, RecipeError), match=name):
        read_report(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(TrainingError, match="taken"):
        write_report(run(), tmp_path / "taken" / "folder")
    with pytest.raises(TrainingError, match="taken"):
        painted_folder(tmp_path / "taken" / "folder")


@pytest.mark.parametrize("missing", TASKS)
def test_a_missing_task_stops_the_evaluation_before_it_paints(missing):
    generator = Mosaic(Mosaic.Config())
    with pytest.raises(TrainingError, match=missing):
        run(generator, prompts=[prompt for prompt in PROMPTS if prompt.metadata["tag"] != missing])
    assert not generator.encoded


def test_a_prompt_without_metadata_is_refused():
    with pytest.raises(RecipeError, match="'a cat'"):
        run(prompts=[*PROMPTS, Prompt("a cat")])


def synthetic(correct):
    """A report whose task ``t`` has the images ``correct[t]``: prompts x images."""
    rows = [
        asdict(Record(f"{t}-{p}/{i}", task, f"{p}", bool(value), "", json.dumps([task, p]), "{}"))
        for t, task in enumerate(TASKS)
        for p, images in enumerate(correct[t])
        for i, value in enumerate(images)
    ]
    found = numbers(built.geneval(Tiles(Tiles.Config())), rows)
    return Report(Result("geneval", "GenEval-toy", found, len(rows), {"num_steps": 2}, {}, {}), tuple(rows))


def changes(before, after):
    """Compare two reports: by name the differences, and the tasks that have become worse."""
    lines = shown(compare(GenEvalBenchmark, before, after))
    return {line.name: line.difference for line in lines}, [
        line.name for line in worse(GenEvalBenchmark, lines)
    ]


def test_comparison_pairs_by_prompt():
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 2, size=(2, 6, 5, 4))
    compared, fell = changes(synthetic(before), synthetic(after))
    gains = after.mean(axis=2) - before.mean(axis=2)
    standard_errors = gains.std(axis=1, ddof=1) / math.sqrt(5)
    assert [compared[task].mean for task in TASKS] == pytest.approx(gains.mean(axis=1))
    assert [compared[task].se for task in TASKS] == pytest.approx(standard_errors)
    assert compared["overall"].mean == pytest.approx(gains.mean())
    assert compared["overall"].se == pytest.approx(np.sqrt((standard_errors**2).sum()) / 6)
    assert fell == list(np.array(TASKS)[gains.mean(axis=1) < 0])
    assert fell
    assert compared["overall"].mean == pytest.approx(
        synthetic(after).headline.mean - synthetic(before).headline.mean
    )


def test_an_evaluation_does_not_differ_from_itself():
    compared, fell = changes(run(), run())
    assert (compared["overall"], fell) == (Number(0, 0), [])


def test_gains_that_cancel_are_no_fall():
    before = [[(1, 1, 1), (0, 0, 0)]] * 6
    after = [[(1, 1, 0), (1, 0, 0)]] * 6  # 2/3 - 1 + 1/3 is -5.6e-17
    assert changes(synthetic(before), synthetic(after))[1] == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"stream": Stream(4)}, "seed"),
        ({"sampling": replace(SAMPLING, guidance_eval=1.0)}, "guidance"),
        ({"num_steps": 3}, "num_steps"),
        ({"images_per_prompt": 3}, "images_per_prompt"),
        ({"prompts": PROMPTS[::-1]}, "prompts_sha256"),
        ({"sampling": replace(SAMPLING, tau_init=0.5)}, "tau_init"),
    ],
)
def test_only_the_generator_may_differ(change, name):
    with pytest.raises(RecipeError, match=name):
        compare(GenEvalBenchmark, run(), run(**change))


def test_another_generator_can_be_compared():
    compared, _ = changes(run(), run(Mosaic(Mosaic.Config(), seed=1)))
    assert compared["overall"].se > 0


class Blind(Tiles):
    """A detector that knows it is broken."""

    def self_test(self):
        raise TrainingError("the detector fails its self-test: it sees nothing")


def test_a_detector_that_fails_its_self_test_gives_no_score():
    generator = Mosaic(Mosaic.Config())
    settings = {"sampling": SAMPLING, "num_steps": 2, "images_per_prompt": 4, "batch": 10}
    with pytest.raises(TrainingError, match="it sees nothing"):
        evaluate(built.geneval(Blind(Blind.Config())), generator, PROMPTS, stream=STREAM, **settings)
    assert not generator.encoded


def test_a_report_tells_what_its_numbers_are_called():
    assert run().result.label == "GenEval-custom"
    labelled = type("Labelled", (Tiles,), {"label": "GenEval-tiles"})
    settings = {"sampling": SAMPLING, "num_steps": 2, "images_per_prompt": 4, "batch": 10}
    report = evaluate(
        built.geneval(labelled(labelled.Config())),
        Mosaic(Mosaic.Config()),
        PROMPTS,
        stream=STREAM,
        **settings,
    )
    assert report.result.label == "GenEval-tiles"
    with pytest.raises(RecipeError, match="label"):
        compare(GenEvalBenchmark, run(), report)


def test_several_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    def write(_):
        for _ in range(200):
            write_text(tmp_path / "same.txt", "the same")

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    assert [path.name for path in tmp_path.iterdir()] == ["same.txt"]
    assert (tmp_path / "same.txt").read_text() == "the same"


def test_evaluations_that_see_the_same_images_have_them_painted_once(monkeypatch):
    generator, detector = Mosaic(Mosaic.Config()), Tiles(Tiles.Config())
    few, many = built.geneval(detector), built.geneval(detector)
    decoded = []
    decode = generator.decode
    monkeypatch.setattr(
        generator, "decode", lambda tokens, of: decoded.append(len(tokens)) or decode(tokens, of)
    )
    settings = {"sampling": SAMPLING, "num_steps": 2, "stream": STREAM, "batch": 7}
    together = evaluate_together([Asked(few, 1), Asked(many, 4)], generator, PROMPTS, **settings)
    assert sum(decoded) == 4 * len(PROMPTS)
    assert together == [run(images_per_prompt=1), run(images_per_prompt=4)]
