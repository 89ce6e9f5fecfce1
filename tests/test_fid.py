"""FID's parts beside public libraries: passing moments, the distance, the file of a reference, the two protocols."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from fid_formula import PLACES, features, photograph
from PIL import Image

from maskrl.errors import RecipeError
from maskrl.evaluations.fid_protocols import PROTOCOLS, gigagan, reduce, t2ibenchmark
from maskrl.evaluations.frechet import Statistics, frechet_distance, read_statistics, write_statistics
from maskrl.evaluations.running_covariance import RunningCovariance

REFERENCE = json.loads(Path(__file__).with_name("fixtures").joinpath("fid_reference.json").read_text())


def moments(array, batch=32):
    found = RunningCovariance.none(array.shape[1])
    for start in range(0, len(array), batch):
        found.add(array[start : start + batch])
    return found


def statistics(array):
    found = moments(array)
    return Statistics(found.mean, found.covariance(), None)


# moments


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_moments_that_pass_by_are_those_of_all_at_once(batch):
    array = features(300, 16, 0)
    found = moments(array, batch)
    assert found.count == 300
    np.testing.assert_allclose(found.mean, array.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance(), np.cov(array, rowvar=False), rtol=1e-11, atol=1e-13)


def test_a_mean_far_from_zero_costs_no_digits():
    array = features(300, 4, 0)
    np.testing.assert_allclose(moments(array + 1e7).covariance(), moments(array).covariance(), rtol=1e-7)


def test_moments_of_parts_merge_in_any_order_and_nothing_adds_nothing():
    array = features(90, 5, 0)
    parts = [moments(array[:20]), moments(array[20:21]), RunningCovariance.none(5), moments(array[21:])]
    whole = RunningCovariance.none(5)
    for part in reversed(parts):
        whole.merge(part)
    assert whole.count == 90
    np.testing.assert_allclose(whole.covariance(), np.cov(array, rowvar=False), rtol=1e-12)


# the distance


@pytest.mark.parametrize("row", REFERENCE["distances"], ids=lambda row: f"{row['n']}x{row['d']}")
@pytest.mark.parametrize("library", ["pytorch-fid", "clean-fid", "torch-fidelity", "torchmetrics"])
def test_the_distance_is_that_of_public_libraries(row, library):
    first, second = (statistics(features(row["n"], row["d"], seed)) for seed in (0, 1))
    assert frechet_distance(first, second) == pytest.approx(row[library], abs=1e-6)


def test_the_distance_is_the_same_both_ways():
    first, second = (statistics(features(200, 32, seed)) for seed in (0, 1))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), abs=1e-9)


def test_the_distance_of_what_is_equal_is_zero_also_with_fewer_images_than_numbers():
    few = statistics(features(5, 32, 0))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_the_distance_is_never_below_zero(seed):
    found = statistics(features(40, 16, seed))
    distance = frechet_distance(found, found)
    assert 0 <= distance < 1e-9
    assert f"{distance:.3f}" == "0.000"


def test_the_distance_of_spheres_is_known():
    first = Statistics(np.zeros(3), 4 * np.eye(3), None)
    second = Statistics(np.array([1.0, 2.0, 2.0]), 9 * np.eye(3), None)
    assert frechet_distance(first, second) == pytest.approx(9 + 3 * (2 - 3) ** 2)


# the reference's file


def test_a_reference_is_read_as_it_was_written_and_pytorch_fid_reads_it(tmp_path):
    made = Statistics(np.arange(3.0), np.eye(3), {"protocol": "gigagan"})
    write_statistics(tmp_path / "deep/r.npz", made)
    read = read_statistics(tmp_path / "deep/r.npz", 3)
    assert (read.mu == made.mu).all()
    assert (read.sigma == made.sigma).all()
    assert read.about == made.about
    with np.load(tmp_path / "deep/r.npz") as file:  # as fid_score.py does
        assert (file["mu"][:] == made.mu).all()


def write(path, **arrays):
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "there is no file of reference statistics"),
        (lambda p: p.write_text("no"), "is no .npz file of arrays, or damaged"),
        (lambda p: p.write_bytes(b"PK\x03\x04 cut"), "is no .npz file of arrays, or damaged"),
        (lambda p: p.write_bytes(np.arange(3.0).tobytes()), "is no .npz file of arrays, or damaged"),
        (lambda p: np.savez(p, mu=np.array([{"a": 1}]), sigma=np.eye(1)), "is no .npz file of arrays"),
        (lambda p: write(p, mean=np.zeros(3), cov=np.eye(3)), "holds no 'mu' and 'sigma' .* but mean, cov"),
        (lambda p: write(p), "but nothing"),
        (
            lambda p: write(p, mu=np.zeros(2), sigma=np.eye(2)),
            r"other features: mu \(2,\) and sigma \(2, 2\) for 3",
        ),
        (lambda p: write(p, mu=np.zeros(3), sigma=np.eye(2)), "is of other features"),
        (lambda p: write(p, mu=np.full(3, np.nan), sigma=np.eye(3)), "numbers that are not finite"),
        (lambda p: write(p, mu=np.array(list("abc")), sigma=np.eye(3)), "no real numbers as 'mu', but <U1"),
        (lambda p: write(p, mu=np.zeros(3), sigma=1j * np.eye(3)), "no real numbers as 'sigma', but complex"),
        (lambda p: write(p, mu=np.zeros(3), sigma=np.eye(3), maskrl="{"), "is damaged: .* no JSON$"),
        (lambda p: write(p, mu=np.zeros(3), sigma=np.eye(3), maskrl="[1]"), "is damaged: .* no JSON object"),
        (lambda p: write(p, mu=np.zeros(3), sigma=np.eye(3), maskrl=np.zeros(2)), "is damaged: .* no JSON"),
    ],
)
def test_a_reference_that_does_not_do_is_one_line(tmp_path, make, message):
    make(tmp_path / "r.npz")
    with pytest.raises(RecipeError, match=message) as error:
        read_statistics(tmp_path / "r.npz", 3)
    assert "\n" not in str(error.value)


def test_a_lone_array_is_no_reference(tmp_path):
    np.save(tmp_path / "r.npy", np.zeros(3))
    with pytest.raises(RecipeError, match=r"is no \.npz file"):
        read_statistics(tmp_path / "r.npy", 3)


# protocols


def as_image(width, height):
    return Image.fromarray(photograph(width, height))


@pytest.mark.parametrize("row", REFERENCE["resized"], ids=lambda row: "x".join(map(str, row["size"])))
def test_gigagan_is_its_own_crop_and_clean_fids_resize(row):
    ours = gigagan(as_image(*row["size"])) * 128 + 128
    assert [float(ours[k, r, c]) for r, c, k in PLACES] == pytest.approx(row["gigagan"], abs=1e-4)
    assert ours.astype(np.float64).mean() == pytest.approx(row["gigagan_mean"], abs=1e-5)


@pytest.mark.parametrize("row", REFERENCE["resized"], ids=lambda row: "x".join(map(str, row["size"])))
def test_t2ibenchmark_is_its_resizer(row):
    ours = (t2ibenchmark(as_image(*row["size"])) + 1) * 127.5
    assert [round(float(ours[k, r, c]), 3) for r, c, k in PLACES] == row["t2ibenchmark"]
    assert ours.astype(np.float64).mean() == pytest.approx(row["t2ibenchmark_mean"], abs=1e-5)


def test_t2ibenchmark_rounds_and_gigagan_does_not():
    image = as_image(512, 512)
    rounded = (t2ibenchmark(image) + 1) * 127.5
    np.testing.assert_allclose(rounded, np.rint(rounded), atol=1e-4)
    kept = gigagan(image) * 128 + 128
    assert np.abs(kept - np.rint(kept)).max() > 0.4


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", [(512, 512), (640, 480), (31, 77)])
def test_a_protocol_gives_inceptions_size_and_range(protocol, size):
    pixels = PROTOCOLS[protocol](as_image(*size))
    assert (pixels.shape, pixels.dtype) == ((3, 299, 299), np.float32)
    assert pixels.min() == -1
    assert pixels.max() == {"t2ibenchmark": 1, "gigagan": 127 / 128}[protocol]


@pytest.mark.parametrize(("width", "left"), [(300, (0, 0)), (301, (1, 1)), (302, (1, 2)), (303, (2, 2))])
def test_the_square_is_the_middle_one_as_each_script_rounds_it(width, left):
    """An odd rest: t2ibenchmark rounds the margin down, torchvision's crop to even."""
    array = np.broadcast_to((np.arange(width) % 256).astype(np.uint8)[None, :, None], (299, width, 3)).copy()
    found = (t2ibenchmark(Image.fromarray(array))[0, 0, 0] + 1) * 127.5
    assert round(float(found)) == left[0]
    square = array[:, left[1] : left[1] + 299]
    assert (gigagan(Image.fromarray(array)) == gigagan(Image.fromarray(square))).all()


def test_reducing_is_bicubic_and_rounded_and_gigagan_leaves_256_as_they_are():
    image = as_image(384, 384)
    small = reduce(image, 256)
    assert small == image.resize((256, 256), Image.Resampling.BICUBIC)
    assert (gigagan(small) != gigagan(image)).any()
    channel = Image.fromarray(np.asarray(small, dtype=np.float32)[:, :, 1].copy())
    expected = np.asarray(channel.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
    np.testing.assert_array_equal(gigagan(small)[1], (expected - 128) / 128)


# memory


def peak(number):
    tracemalloc.start()
    try:
        found = RunningCovariance.none(64)
        rng = np.random.default_rng(0)
        for _ in range(number // 50):
            found.add(rng.normal(size=(50, 64)))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_moments_take_no_more_memory_for_more_images():
    peak(100)
    few, many = peak(100), peak(3000)
    assert many < 1.05 * few + 4096
    assert many < 3000 * 64 * 8 / 2  # keeping the features would take twice that


@pytest.mark.parametrize("scale", [-1000.0, -1.0])
def test_what_is_no_covariance_is_refused_and_not_a_perfect_score(tmp_path, scale):
    np.savez(tmp_path / "bad.npz", mu=np.zeros(4), sigma=scale * np.eye(4))
    with pytest.raises(RecipeError, match=r"holds no covariance as 'sigma': an eigenvalue is -"):
        read_statistics(tmp_path / "bad.npz", 4)
    good, bad = (Statistics(np.zeros(4), factor * np.eye(4), None) for factor in (1.0, scale))
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(RecipeError, match="eigenvalue"):
            frechet_distance(*pair)


def test_rounding_below_zero_is_rounding(tmp_path):
    features = np.random.default_rng(0).normal(size=(3, 64))  # a covariance of rank 2
    sigma = np.cov(features, rowvar=False).astype(np.float32)
    np.savez(tmp_path / "thin.npz", mu=features.mean(axis=0), sigma=sigma)
    thin = read_statistics(tmp_path / "thin.npz", 64)
    assert frechet_distance(thin, thin) == pytest.approx(0, abs=1e-3)
