"""FID over folders: a small extractor in the place of Inception, except where Inception itself is looked at."""

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from fid_formula import photograph
from PIL import Image
from pytorch_fid import inception as library

from maskrl import files
from maskrl.errors import RecipeError, TrainingError
from maskrl.evals import shares
from maskrl.evals.flat import formats, open_any
from maskrl.evals.folder import evaluate_folder
from maskrl.evals.reference import make_reference
from maskrl.evals.results import read_result
from maskrl.evaluations import fid, inception
from maskrl.evaluations.fid import Fid, Measure, open_reference
from maskrl.evaluations.fid_protocols import t2ibenchmark
from maskrl.evaluations.frechet import Statistics, frechet_distance, read_statistics, write_statistics
from maskrl.grpo.processes import SingleProcess
from maskrl.types import Prompt

ALONE = SingleProcess()


class Means:
    """The mean of each channel, and of what lies left and right: six numbers."""

    width = 6
    modules = ()

    def __init__(self):
        self.seen = 0
        self.dies_after = None

    def __call__(self, pixels):
        self.seen += len(pixels)
        if self.dies_after is not None and self.seen > self.dies_after:
            raise KeyboardInterrupt
        halves = np.array_split(pixels.astype(np.float64), 2, axis=3)
        left, right = (half.mean(axis=(2, 3)) for half in halves)
        return np.concatenate([left, right - left], axis=1)


def measure(protocol="t2ibenchmark", extractor=None, reduced_to=None, weights="6726825d" + 56 * "0"):
    return Measure(protocol, reduced_to, extractor or Means(), weights)


def paint(folder, number, seed=0, size=(12, 10), suffix="png"):
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(number):
        array = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(array).save(folder / f"{i:04d}.{suffix}")
    return folder


def direct(folder):
    """Compute mean and covariance with all features in memory."""
    images = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]
    found = Means()(np.stack([t2ibenchmark(image) for image in images]))
    return Statistics(found.mean(axis=0), np.cov(found, rowvar=False), None)


def judge(folder, reference, out, chosen=None, process=ALONE, prompts=None, calls=None):
    return evaluate_folder(
        fid_of(reference, chosen or measure()),
        open_any(folder, prompts),
        out,
        {"checkpoint": "base"},
        batch=4,
        process=process,
        progress=lambda done, total: None if calls is None else calls.append((done, total)),
    ).result


def fid_of(reference, chosen):
    """FID by a network that a test has built itself."""
    found = object.__new__(Fid)
    found.config, found.measured, found.modules, found.width = Fid.Config.model_construct(), chosen, (), 6
    found.reference = open_reference(reference, chosen)
    return found


def gather(images, chosen, out, settings, process=ALONE):
    more = {"turned": False, "process": process, "progress": lambda done, total: None}
    return shares.gather(images, chosen.features, chosen.width, out, settings, **more)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Forty images, and the statistics of thirty others; a share is written every eight images."""
    monkeypatch.setattr(shares, "SAVED_EVERY", 8)
    monkeypatch.setattr(shares, "BATCH", 4)
    paint(tmp_path / "images", 40)
    write_statistics(tmp_path / "true.npz", direct(paint(tmp_path / "true", 30, seed=1)))
    return tmp_path


def test_the_number_is_the_distance_of_all_features_at_once(world):
    calls = []
    result = judge(world / "images", world / "true.npz", world / "out", calls=calls)
    expected = frechet_distance(direct(world / "images"), direct(world / "true"))
    assert result.numbers["fid"].mean == pytest.approx(expected, rel=1e-9)
    assert np.isnan(result.numbers["fid"].se)
    assert calls[0] == (4, 40)
    assert calls[-1] == (40, 40)
    saved = json.loads((world / "out/summary.json").read_text())
    assert saved["numbers"]["fid"]["se"] is None
    assert (saved["label"], saved["images"]) == ("FID (t2ibenchmark)", 40)
    assert saved["settings"] == {
        "protocol": "t2ibenchmark",
        "reduced_to": None,
        "weights_sha256": "6726825d" + 56 * "0",
        "reference_sha256": files.sha256(world / "true.npz"),
        "images": 40,
        "prompts_sha256": None,
        "formats": ["png"],
    }
    assert saved["provenance"]["image_sides"] == [10, 12]
    assert "papers have 30,000" in saved["provenance"]["notes"][0]
    assert {"pytorch-fid", "torchvision", "pillow", "torch"} <= saved["versions"].keys()
    assert not (world / "out/unfinished").exists()


@pytest.mark.parametrize(
    ("images", "weights", "name"),
    [
        (30_000, "6726825d1", "FID-30K (gigagan)"),
        (29_999, "6726825d1", "FID (gigagan)"),
        (30_000, "1", "FID-other (gigagan)"),
    ],
)
def test_what_a_number_may_be_called(images, weights, name):
    found = object.__new__(Fid)
    found.measured = measure("gigagan", weights=weights)
    assert found.label((), images) == name


# resuming


def test_a_killed_evaluation_is_gone_on_with_and_looks_at_little_twice(world):
    whole = judge(world / "images", world / "true.npz", world / "whole")
    dying = measure()
    dying.extractor.dies_after = 30
    with pytest.raises(KeyboardInterrupt):
        judge(world / "images", world / "true.npz", world / "out", dying)
    assert not (world / "out/summary.json").exists()
    again = measure()
    result = judge(world / "images", world / "true.npz", world / "out", again)
    assert again.extractor.seen == 40 - 24  # 28 were seen, 24 of them written down
    assert result.numbers["fid"].mean == pytest.approx(whole.numbers["fid"].mean, rel=1e-9)


@pytest.mark.parametrize("worlds", [2, 3])
def test_processes_share_the_images_and_another_number_of_them_goes_on(world, worlds):
    pictures, settings = open_any(world / "images", None), {"a": 1}

    def go(process, extractor):
        part, out = measure(extractor=extractor), world / "out"
        return gather(pictures, part, out, settings, process)

    shares = [Means() for _ in range(worlds)]
    shares[0].dies_after = 8
    with pytest.raises(KeyboardInterrupt):
        go(SingleProcess(0, worlds), shares[0])
    go(SingleProcess(worlds - 1, worlds), shares[-1])  # one after the other
    rest = Means()
    found = go(ALONE, rest)
    assert found.covariance.count == 40
    assert found.done.all()
    assert 0 < rest.seen < 32
    expected = direct(world / "images")
    np.testing.assert_allclose(found.covariance.covariance(), expected.sigma, rtol=1e-9)
    np.testing.assert_allclose(found.covariance.mean, expected.mu, rtol=1e-12)
    assert found.sides == (10, 12)


def copy_an_image(folder):
    shutil.copy(folder / "0000.png", folder / "a.png")


@pytest.mark.parametrize(
    ("protocol", "change"), [("gigagan", lambda folder: None), ("t2ibenchmark", copy_an_image)]
)
def test_what_other_settings_or_other_images_left_is_not_gone_on_with(world, protocol, change):
    dying = measure()
    dying.extractor.dies_after = 30
    with pytest.raises(KeyboardInterrupt):
        judge(world / "images", world / "true.npz", world / "out", dying)
    change(world / "images")
    again = measure(protocol)
    left = sorted((world / "out/unfinished").iterdir())
    with pytest.raises(
        RecipeError, match=r"left unfinished: they differ in .*, choose another --out, or delete"
    ):
        judge(world / "images", world / "true.npz", world / "out", again)
    assert sorted((world / "out/unfinished").iterdir()) == left
    shutil.rmtree(world / "out/unfinished")  # as the message says
    judge(world / "images", world / "true.npz", world / "out", again)
    assert again.extractor.seen == len(list((world / "images").iterdir()))


def test_a_damaged_share_is_named(world):
    dying = measure()
    dying.extractor.dies_after = 30
    with pytest.raises(KeyboardInterrupt):
        judge(world / "images", world / "true.npz", world / "out", dying)
    share = world / "out/unfinished/0.npz"
    share.write_bytes(share.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"0\.npz' is damaged; delete it"):
        judge(world / "images", world / "true.npz", world / "out")


def test_results_of_other_settings_are_not_overwritten(world):
    judge(world / "images", world / "true.npz", world / "out")
    judge(world / "images", world / "true.npz", world / "out")  # the same again is welcome
    with pytest.raises(RecipeError, match="they differ in protocol"):
        judge(world / "images", world / "true.npz", world / "out", measure("gigagan"))


# memory


def peak(folder, out):
    tracemalloc.start()
    try:
        gather(open_any(folder, None), measure(), out, {})
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_thirty_times_the_images_take_no_more_memory_than_their_names(tmp_path, monkeypatch):
    monkeypatch.setitem(fid.PROTOCOLS, "t2ibenchmark", lambda image: np.asarray(image).transpose(2, 0, 1))
    paint(tmp_path / "first", 1)
    for name, number in (("few", 100), ("many", 3000)):
        (tmp_path / name).mkdir()
        for i in range(number):
            (tmp_path / name / f"{i:05d}.png").hardlink_to(tmp_path / "first/0000.png")
    few, many = (peak(tmp_path / name, tmp_path / f"out-{name}") for name in ("few", "many"))
    assert many - few < 3000 * 512


# references


def test_a_reference_is_made_from_a_folder_and_says_how(world):
    made = make_reference(
        open_any(world / "true", None),
        measure(),
        world / "made.npz",
        process=ALONE,
        progress=lambda done, total: None,
    )
    read = read_statistics(world / "made.npz", 6)
    np.testing.assert_allclose(read.sigma, direct(world / "true").sigma, rtol=1e-9)
    assert read.about == made.about
    assert (read.about["protocol"], read.about["images"]) == ("t2ibenchmark", 30)
    assert not list(world.glob("*.unfinished"))
    with pytest.raises(RecipeError, match="was made with protocol 't2ibenchmark', not 'gigagan'"):
        open_reference(world / "made.npz", measure("gigagan"))
    with pytest.raises(RecipeError, match="was made with weights_sha256"):
        open_reference(world / "made.npz", measure(weights="other"))


def test_a_reference_is_made_by_one_command_at_a_time(world):
    with (
        files.owned(world / "made.npz.unfinished"),
        pytest.raises(TrainingError, match="is being written by"),
    ):
        make_reference(
            open_any(world / "true", None),
            measure(),
            world / "made.npz",
            process=ALONE,
            progress=lambda done, total: None,
        )
    assert not (world / "made.npz").exists()


# folders


def test_grey_photographs_jpeg_and_other_files_are_welcome(tmp_path):
    paint(tmp_path / "images", 3, suffix="jpg")
    Image.new("L", (9, 9), 100).save(tmp_path / "images/grey.JPEG")
    (tmp_path / "images/captions.txt").write_text("a\nb")
    pictures = open_any(tmp_path / "images", None)
    assert (len(pictures.pairs()), formats(pictures)) == (4, ["jpeg"])
    assert (pictures.read("grey.JPEG")[:, 0, 0] * 255).tolist() == [100, 100, 100]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: shutil.rmtree(f), "there is no image folder"),
        (lambda f: [p.unlink() for p in f.iterdir()], "holds: 0 image, and a covariance needs two"),
        (lambda f: [p.unlink() for p in sorted(f.iterdir())[1:]], "holds: 1 image, and"),
        (lambda f: (f / "0003.png").write_text("no"), "0003.png' is no whole image"),
        (lambda f: (f / "0003.png").write_bytes((f / "0002.png").read_bytes()[:99]), "is no whole image"),
        (lambda f: Image.new("RGBA", (9, 9)).save(f / "0003.png"), "0003.png' is RGBA, neither RGB nor grey"),
        (lambda f: Image.new("P", (9, 9)).save(f / "0003.png"), "0003.png' is P, neither"),
        (lambda f: Image.new("CMYK", (9, 9)).save(f / "a.jpg"), "a.jpg' is CMYK, neither"),
    ],
)
def test_a_folder_that_does_not_do_is_one_line_and_no_result(world, change, message):
    change(world / "images")
    with pytest.raises((RecipeError, TrainingError), match=message) as error:
        judge(world / "images", world / "true.npz", world / "out")
    assert "\n" not in str(error.value)
    assert not (world / "out/summary.json").exists()


def test_every_prompt_needs_an_image(world):
    prompts = [Prompt(f"prompt {i}") for i in range(41)]
    with pytest.raises(RecipeError, match="holds 40 PNG or JPEG images; 41 prompts need as many"):
        open_any(world / "images", prompts)
    known = open_any(world / "images", prompts[:40]).comparable()["prompts_sha256"]
    assert known not in (None, open_any(world / "images", prompts[1:]).comparable()["prompts_sha256"])


def test_images_in_genevals_layout_bring_their_prompts(tmp_path):
    for i in range(2):
        paint_one = tmp_path / f"images/{i:05d}/samples"
        paint_one.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(paint_one / "00000.png")
        Image.new("RGB", (8, 8)).save(paint_one.parent / "grid.png")
        (paint_one.parent / "metadata.jsonl").write_text(json.dumps({"prompt": f"prompt {i}"}))
    prompts = [Prompt(f"prompt {i}") for i in range(2)]
    pictures = open_any(tmp_path / "images", prompts)
    assert [name for _, name in pictures.pairs()] == ["00000/samples/00000.png", "00001/samples/00000.png"]
    with pytest.raises(RecipeError, match="of other prompts than --prompts has"):
        open_any(tmp_path / "images", prompts[::-1])


# Inception


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights in the layout of pytorch-fid's file."""
    torch.manual_seed(0)
    network = torchvision.models.inception_v3(
        weights=None, num_classes=1008, aux_logits=False, init_weights=False
    )
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


def test_inception_is_the_librarys_own(weights, monkeypatch):
    ours = inception.Inception(weights)
    monkeypatch.setattr(library, "load_state_dict_from_url", lambda url, progress: torch.load(weights))
    theirs = library.InceptionV3(resize_input=False, normalize_input=False).eval()
    pixels = np.stack([t2ibenchmark(Image.fromarray(photograph(*size))) for size in ((64, 80), (320, 240))])
    expected = theirs(torch.from_numpy(pixels))[0].flatten(1).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(ours(pixels), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "there is no weights file"),
        (lambda p: p.write_text("no"), "cannot be read"),
        (
            lambda p: torch.save({"fc.weight": torch.zeros(2)}, p),
            "does not fit FID's Inception .* give pt_incep",
        ),
        (lambda p: torch.save([1, 2], p), "holds no plain state dict"),
    ],
)
def test_weights_that_do_not_do_are_one_line(tmp_path, make, message):
    make(tmp_path / "w.pth")
    with pytest.raises(RecipeError, match=message) as error:
        inception.Inception(tmp_path / "w.pth")
    assert "\n" not in str(error.value)


def test_weights_that_cannot_be_fetched_say_what_to_download(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr(library, "FID_WEIGHTS_URL", (tmp_path / "none/pt_inception-x.pth").as_uri())
    with pytest.raises(
        RecipeError, match=r"download file:.*pt_inception-x\.pth and give .* --weights FILE"
    ) as error:
        inception.find_weights(None)
    assert "\n" not in str(error.value)


def test_weights_are_fetched_once_and_kept_if_they_are_the_right_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    source = tmp_path / "pt_inception-x.pth"
    source.write_text("weights")
    monkeypatch.setattr(library, "FID_WEIGHTS_URL", source.as_uri())
    with pytest.raises(RecipeError, match="invalid hash value"):
        inception.find_weights(None)
    monkeypatch.setattr(inception, "OFFICIAL", files.sha256(source)[:8])
    kept = inception.find_weights(None)
    assert kept.read_text() == "weights"
    source.unlink()
    assert inception.find_weights(None) == kept
    assert inception.find_weights(Path("mine.pth")) == Path("mine.pth")


# on the command line


@pytest.fixture
def command(cli, world, monkeypatch):
    """Run the command with the small extractor, and any file for its weights."""
    monkeypatch.setattr(fid, "Inception", lambda weights: Means())
    (world / "w.pth").write_text("weights")

    def run(*arguments):
        return cli("eval", *arguments, "--weights", world / "w.pth")

    return run


def test_reference_evaluation_and_comparison(command, cli, world, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    made = command("fid_statistics", world / "true", "--out", world / "made.npz", "--device", "cpu")
    assert (made.code, "statistics of 30 images" in made.out) == (0, True), made.err
    paint(world / "others", 40, seed=3)
    for name in ("images", "others"):
        asked = ("--images", world / name, "--reference", world / "made.npz", "--out", world / f"out-{name}")
        shown = command("fid", *asked)
        assert shown.code == 0, shown.err
        assert "N = 40: FID falls with the number of images" in shown.out
        assert "40 images" in " ".join(shown.out.split())
    compared = cli("eval", "compare", world / "out-images/fid", world / "out-others/fid")
    assert compared.code == 0, compared.err
    assert "fid" in compared.out
    assert "9.24" not in compared.out  # a paper's row is for 30,000 images


def test_so_few_prompts_that_there_is_no_covariance_are_refused_before_painting(command, world, toy_recipe):
    one, out = toy_recipe.with_name("one.txt"), world / "out-of-one"
    one.write_text("red tiles\n")
    asked = ("fid", "--reference", world / "true.npz", "--recipe", toy_recipe, "--prompts", one, "--out", out)
    refused = command(*asked)
    assert refused.code == 2
    assert "there would be: 1 image, and a covariance needs two" in " ".join(refused.err.split())
    assert not out.exists()
    done = command(*asked, "--images-per-prompt", 2)
    assert done.code == 0, done.err


def test_the_papers_row_is_shown_beside_thirty_thousand_images(cli, world):
    result = judge(world / "images", world / "true.npz", world / "out")
    saved = json.loads((world / "out/summary.json").read_text())
    (world / "out/summary.json").write_text(json.dumps({**saved, "label": "FID-30K (t2ibenchmark)"}))
    shown = cli("eval", "compare", world / "out", world / "out")
    assert result.images == 40
    for part in ("9.24", "8.32", "not comparable"):
        assert part in shown.out


def test_other_protocols_and_other_numbers_of_images_are_not_compared(command, cli, world):
    asked = ("fid", "--images", world / "images", "--reference", world / "true.npz", "--out")
    assert command(*asked, world / "a").code == 0
    assert command(*asked, world / "b", "--protocol", "gigagan", "--reduce-to", 8).code == 0
    refused = cli("eval", "compare", world / "a/fid", world / "b/fid")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    for part in ("label", "protocol", "reduced_to"):
        assert part in refused.err
    (world / "images/0000.png").unlink()
    assert command(*asked, world / "c").code == 0
    assert "differ in images" in cli("eval", "compare", world / "a/fid", world / "c/fid").err


def test_what_it_paints_it_paints_once_for_each_prompt(command, toy_recipe, world):
    asked = ("--recipe", toy_recipe, "--prompts", toy_recipe.with_name("prompts.txt"))
    painted = command("fid", *asked, "--reference", world / "true.npz", "--out", world / "out")
    assert painted.code == 0, painted.err
    result = read_result(world / "out/fid")
    assert (result.images, result.settings["images_per_prompt"]) == (3, 1)
    assert {"prompts_sha256", "num_steps", "guidance", "seed"} <= result.settings.keys()
    assert result.provenance["generator"]["class"].endswith("ToyGenerator")
    assert result.provenance["recipe"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--reference", "none.npz"), "there is no file of reference statistics 'none.npz'"),
        (
            ("--protocol", "P-A"),
            "eval.fid.protocol: FID has no protocol 'P-A'; choose t2ibenchmark or gigagan",
        ),
        (("--images", "none"), "there is no image folder 'none'"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_one_line(command, world, change, message):
    asked = {"--images": world / "images", "--reference": world / "true.npz"} | dict([change])
    refused = command("fid", *(part for pair in asked.items() for part in pair))
    assert (refused.code, refused.err) == (2, f"maskrl: {message}\n")


def test_statistics_are_written_as_npz(command, world):
    refused = command("fid_statistics", world / "true", "--out", world / "r.txt")
    assert (refused.code, "statistics are a .npz file" in refused.err) == (2, True)


def test_statistics_that_are_there_are_not_overwritten(command, world):
    asked = ("fid_statistics", world / "true", "--out", world / "made.npz", "--device", "cpu")
    assert command(*asked).code == 0
    before = (world / "made.npz").read_bytes()
    refused = command(*asked)
    message = f"maskrl: --out {str(world / 'made.npz')!r} is there already; delete it, or choose another\n"
    assert (refused.code, refused.err) == (2, message)
    assert (world / "made.npz").read_bytes() == before


def test_a_missing_reference_is_said_before_weights_are_fetched(cli, world, monkeypatch):
    monkeypatch.setattr(fid, "find_weights", lambda path: pytest.fail("weights were asked for"))
    refused = cli("eval", "fid", "--images", world / "images", "--reference", world / "none.npz")
    assert refused.code == 2
    assert refused.err == f"maskrl: there is no file of reference statistics {str(world / 'none.npz')!r}\n"


@pytest.mark.slow
def test_the_command_with_inception(cli, world, weights):
    paint(world / "few", 3)
    asked = ("--weights", weights, "--device", "cpu")
    made = cli("eval", "fid_statistics", world / "few", "--out", world / "self.npz", *asked)
    assert made.code == 0, made.err
    asked = ("--images", world / "few", "--reference", world / "self.npz", "--weights", weights)
    shown = cli("eval", "fid", *asked, "--device", "cpu")
    assert shown.code == 0, shown.err
    result = read_result(world / "few/results/fid")
    assert result.numbers["fid"].mean == pytest.approx(0, abs=1e-3)
    assert result.label == "FID-other (t2ibenchmark)"


def test_a_name_that_is_no_text_is_one_line(tmp_path):
    for name in (b"a.png", b"b.png", b"bad\xff.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / os.fsdecode(name))
    with pytest.raises(
        RecipeError, match=r"the file name 'bad\\udcff\.png' in .* is no text in UTF-8: rename it"
    ):
        open_any(tmp_path, None)


@pytest.mark.parametrize("pixels", [1000, 30_000])  # PIL warns of one, and refuses the other
def test_an_image_of_too_many_pixels_is_one_line(tmp_path, monkeypatch, pixels):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (200, 200)).save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    with pytest.raises(TrainingError, match=r"a\.png' is too large to be read safely: .*; reduce it"):
        open_any(tmp_path, None).read("a.png")


def test_formats_are_told_by_contents(tmp_path):
    image = Image.new("RGB", (20, 20))
    image.save(tmp_path / "a.png", format="JPEG")
    image.save(tmp_path / "b.jfif", format="JPEG")
    assert formats(open_any(tmp_path, None)) == ["jpeg"]
    image.save(tmp_path / "c.jpg", format="PNG")
    assert formats(open_any(tmp_path, None)) == ["jpeg", "png"]


def test_names_with_the_spaces_of_screenshots_are_text(tmp_path):
    names = ["a 1.04\u202fPM.png", "b\u00a0c.png", "d\u3000e.png"]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert sorted(open_any(tmp_path, None).names[0]) == sorted(names)


def test_what_macos_keeps_beside_an_image_is_none(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    assert list(open_any(tmp_path, None).names[0]) == ["a.png", "b.png"]
