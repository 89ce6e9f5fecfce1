"""Checkpoints: whole or absent, verified to the last byte, and never pickled."""

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from toy_run import ToyGenerator

from maskrl import files
from maskrl.errors import TrainingError
from maskrl.runtime.checkpoint import MANIFEST, STATE, TENSORS, damaged, listed, load, save

TENSOR_CASES = {
    "parameter/a": torch.tensor([0.1, -0.0, 1e-42]),
    "parameter/b": torch.arange(6, dtype=torch.bfloat16).view(2, 3).t(),
    "optimizer/step/a": torch.tensor(3.0),
}
STATE_CASE = {"update": 3, "seconds": 0.1 + 0.2, "filter": {"history": [0.1, 1e-17]}, "text": "ä"}


@pytest.fixture(scope="module")
def generator():
    return ToyGenerator(ToyGenerator.Config())


def write(folder, generator, update, keep=9):
    return save(folder, update, generator, TENSOR_CASES, STATE_CASE, keep)


def test_what_is_loaded_is_what_was_saved(tmp_path, generator):
    loaded = load(write(tmp_path, generator, 3))
    assert loaded.state == STATE_CASE
    assert loaded.tensors.keys() == TENSOR_CASES.keys()
    for name, tensor in TENSOR_CASES.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)


def test_the_newest_are_kept(tmp_path, generator):
    for update in (2, 10, 100_000, 100_001):
        write(tmp_path, generator, update, keep=2)
    assert [path.name for path in listed(tmp_path)] == ["update_100000", "update_100001"]


def test_nothing_unfinished_has_the_final_name(tmp_path, generator):
    class Killed(ToyGenerator):
        def save(self, folder):
            super().save(folder)
            raise KeyboardInterrupt

    write(tmp_path, generator, 1)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Killed(Killed.Config()), 2)
    assert [path.name for path in listed(tmp_path)] == ["update_00001"]
    assert load(write(tmp_path, generator, 2)).state == STATE_CASE


def test_a_kill_while_a_checkpoint_is_removed_leaves_no_half_of_one(tmp_path, generator, monkeypatch):
    class Killed(BaseException):
        pass

    def die_halfway(folder, ignore_errors=False):
        inside = [path for path in Path(folder).rglob("*") if path.is_file()]
        if inside and not ignore_errors:
            inside[0].unlink()
            raise Killed

    for again, keep in ((1, 9), (2, 1)):  # written again, and removed since it is old
        write(tmp_path, generator, 1)
        with monkeypatch.context() as patch:
            patch.setattr("maskrl.runtime.checkpoint.shutil.rmtree", die_halfway)
            with pytest.raises(Killed):
                write(tmp_path, generator, again, keep=keep)
        assert all(damaged(path) is None for path in listed(tmp_path))
        write(tmp_path, generator, again, keep=keep)
        assert [path.name for path in listed(tmp_path)] == [f"update_0000{again}"]
        assert all(files.is_ours(path) for path in tmp_path.iterdir() if path not in listed(tmp_path))


def test_a_checkpoint_can_be_written_again(tmp_path, generator):
    write(tmp_path, generator, 2)
    assert load(write(tmp_path, generator, 2)).state == STATE_CASE


FILES = (TENSORS, STATE, MANIFEST, "generator/model.safetensors")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path):
    path.unlink()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [cut, flip, remove])
def test_every_damage_is_one_line_that_says_what_to_do(tmp_path, generator, file, damage):
    write(tmp_path, generator, 1)
    folder = write(tmp_path, generator, 2)
    damage(folder / file)
    with pytest.raises(
        TrainingError, match=r"update_00002.*is damaged.*from 'update_00001', which"
    ) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert file in str(caught.value) or file == MANIFEST


def test_a_damaged_older_checkpoint_is_not_recommended(tmp_path, generator):
    for update in (1, 2, 3):
        write(tmp_path, generator, update)
    for update in (2, 3):
        flip(tmp_path / f"update_0000{update}" / TENSORS)
    with pytest.raises(TrainingError, match="'update_00001'"):
        load(tmp_path / "update_00003")
    shutil.rmtree(tmp_path / "update_00001")
    with pytest.raises(
        TrainingError, match=r"delete that folder and metrics\.jsonl, and --resume begins again"
    ):
        load(tmp_path / "update_00003")


def test_a_manifest_that_lists_too_little_is_damage(tmp_path, generator):
    folder = write(tmp_path, generator, 1)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest[TENSORS]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(TrainingError, match=TENSORS):
        load(folder)


def test_nothing_is_pickled(tmp_path, generator):
    folder = write(tmp_path, generator, 1)
    files = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert files == {".json", ".safetensors"}


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, generator):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot write the checkpoint"):
        write(tmp_path / "file", generator, 1)


def test_a_full_disk_is_one_line_and_the_older_checkpoint_stays(tmp_path, generator):
    older = write(tmp_path, generator, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(TrainingError, match="cannot write the checkpoint"):
            save(tmp_path, 2, generator, {"large": torch.zeros(10_000)}, STATE_CASE, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert listed(tmp_path) == [older]
    assert load(older).state == STATE_CASE
