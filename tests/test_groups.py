"""The record of what an update learnt from: as it is written, and as a report shows it."""

import json

from PIL import Image

from maskrl.recipe import read_recipe
from maskrl.report.groups import extremes, newest, recorded_groups
from maskrl.report.page import render
from maskrl.training.groups import LARGEST
from maskrl.training.loop import train


def test_every_so_many_updates_leave_their_groups(tmp_path, toy_recipe):
    recipe = read_recipe(toy_recipe, ["tracking.samples_every=2", "training.updates=4"])
    train(recipe, tmp_path / "run", resume=False, display=False)
    folder = tmp_path / "run" / "groups"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("update_00002.json", "update_00002.png", "update_00004.json", "update_00004.png"),
    ]
    record = json.loads((folder / "update_00004.json").read_text())
    with Image.open(folder / "update_00004.png") as sheet:
        assert sheet.size == (record["width"] * 4, record["height"] * 2)
    assert max(record["width"], record["height"]) <= LARGEST
    found = recorded_groups(tmp_path / "run", [])
    assert [group.update for group in found] == [2, 2, 4, 4]
    assert [len(group.images) for group in found] == [4, 4, 4, 4]
    for group in record["groups"]:  # the better one has the larger advantage
        pairs = sorted(zip(group["rewards"], group["advantages"], strict=True))
        assert [adv for _, adv in pairs] == sorted(group["advantages"])
    best, worst = extremes(found)
    rewards = sorted(image.value for group in found for image in group.images)
    assert (best[0].value, worst[0].value) == (rewards[-1], rewards[0])
    assert [group.update for group in newest(found)] == [4, 4]
    assert "Groups of update 4" in render([tmp_path / "run"])


def test_the_image_beside_a_reward_is_its_own(tmp_path):
    """Red images have reward 1, blue ones 0."""
    folder = tmp_path / "groups"
    folder.mkdir()
    sheet = Image.new("RGB", (16, 8), (0, 0, 255))
    sheet.paste((255, 0, 0), (8, 0, 16, 8))
    sheet.save(folder / "update_00001.png")
    group = {"prompt": "red", "rewards": [0.0, 1.0], "advantages": [-1.0, 1.0], "kept": True}
    (folder / "update_00001.json").write_text(
        json.dumps({"update": 1, "width": 8, "height": 8, "groups": [group]})
    )
    ((blue, red),) = (group.images for group in recorded_groups(tmp_path, []))
    assert blue.address != red.address
    assert (blue.reward, red.reward, red.advantage) == ("0", "1", "+1")
    assert (blue.change, red.change) == ("worse", "better")
    (folder / "update_00001.png").write_bytes((folder / "update_00001.png").read_bytes()[:40])
    assert recorded_groups(tmp_path, []) == []
