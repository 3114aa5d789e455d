# Copyright (c) monai_landmarks contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Groups of landmarks in the bundles of ``init``: structures that look alike, found by their centers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from summaries import GIB, MEMORY, summary, write

from monai_landmarks import bundle_path
from monai_landmarks.apps.main import program
from monai_landmarks.planning import (
    Machine,
    estimated_seconds,
    make_plan,
    measure_close_look,
    measure_plan,
    summarize_datalist,
    write_bundle,
)
from monai_landmarks.planning.bundle import bundle_configs
from monai_landmarks.planning.groups import _alike, _in_order, choose_groups

MACHINE = Machine("cpu", 8 * GIB)
BONES, PARTS = ("L1", "L2", "L3", "L4"), ("TL", "TR", "B")
NAMES = tuple(f"{bone}_{part}" for bone in BONES for part in PARTS)
PAIRS = tuple((f"{bone}_TL", f"{bone}_TR") for bone in BONES)
SHAPE = np.array([[-6.0, -2.0], [6.0, -2.0], [0.0, 4.0]])


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """Memory does not matter here, and its measurement takes time."""
    monkeypatch.setattr("monai_landmarks.planning.plan.measure_training", lambda *args: MEMORY)


def bones(images=10, scale=1.0, seed=0):
    """Landmarks (n, N, 2) of four bones, 20, 22 and 24 mm below each other."""
    random = np.random.default_rng(seed)
    centers = np.array([[0.0, 0.0], [1.0, 20.0], [0.0, 42.0], [-2.0, 66.0]]) + random.uniform(18, 22, (images, 1, 2))
    return (scale * (centers[:, :, None] + SHAPE)).reshape(images, -1, 2)


def data(points=None, **more):
    points = bones() if points is None else points
    # the world of a picture is RAS, so its axes run to the left and downward
    world = {"training_points": -points, "training_voxels": points}
    return summary((64, 128), images=18, **{"names": NAMES, "pairs": PAIRS, **world, **more})


def test_groups_are_structures_that_look_alike_and_follow_one_another():
    groups = choose_groups(data())
    assert groups.value == [[f"{bone}_{part}" for part in PARTS] for bone in BONES]
    assert "4 structures with the same 3 landmarks" in groups.reason
    known, unlike = bones().reshape(-1, 4, 3, 2), bones().reshape(-1, 4, 3, 2)
    unlike[:, 2] += SHAPE[:, ::-1] - SHAPE  # lies on its side
    few = {"names": ("a_l", "a_r", "b_l", "b_r", "c_l", "c_r"), "pairs": ()}
    # front_L1, ..., middle_L1, ...: the three sides of a column, not its bones
    sides = known.swapaxes(1, 2).reshape(-1, 12, 2)
    of_sides = {"names": tuple(f"{part}_{bone}" for part in PARTS for bone in BONES), "pairs": ()}
    tall = sides * [1, 3] + np.repeat([[0, 0], [8, 0], [16, 0]], 4, axis=0)
    # left and right exchanged in the lower half, as in a row of teeth, which are nearly alike because of their roots
    narrow = np.array([[-2.0, -6.0], [2.0, -6.0], [0.0, 12.0]])
    mirrored = bones().reshape(-1, 4, 3, 2) + narrow - SHAPE
    mirrored[:, 2:, :2] = mirrored[:, 2:, 1::-1]
    # unlike structures in images that are turned by any angle: their mean shapes are nearly the same, a point
    angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    turns = np.moveaxis(np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]), 2, 0)
    turned = np.einsum("nij,nkj->nki", turns, unlike.reshape(-1, 12, 2))
    partly = bones()
    partly[:, 4] = np.nan
    for other, reason in (
        (data(names=(*NAMES[:-1], "L4_X"), pairs=()), "not those of structures"),
        (data(bones()[:, :6], names=NAMES[:6], pairs=()), "not those of structures"),
        (data(bones()[:, :6], **few), "not those of structures"),
        (data(names=tuple("abcdefghijkl"), pairs=()), "not those of structures"),
        (data(known[:, [0, 2, 1, 3]].reshape(-1, 12, 2)), "do not look alike or do not follow"),
        (data(unlike.reshape(-1, 12, 2)), "do not look alike or do not follow"),
        (data(tall, **of_sides), "over a great length"),
        (data(np.zeros((10, 12, 2))), "do not look alike or do not follow"),
        (data(mirrored.reshape(-1, 12, 2)), "do not look alike or do not follow"),
        (data(turned), "do not look alike or do not follow"),
        (data(partly), "no training image shows all landmarks"),
        (data(None, training_points=None), "no training image shows all landmarks"),
    ):
        choice = choose_groups(other)
        assert choice.value == [] and reason in choice.reason
    choice = choose_groups(data(), is_possible=False)
    assert choice.value == [] and "only in 2-D" in choice.reason


def test_size_does_not_matter_nor_do_some_images_without_a_landmark():
    points = np.concatenate([bones(5), bones(5, scale=3.0)])
    points[4, 7] = np.nan
    assert len(choose_groups(data(points)).value) == 4


@pytest.mark.parametrize("method", ["scn", "farnet", "unet", "adaptive"])
def test_the_close_look_has_a_network_for_the_centers(method):
    plan = make_plan(data(), method, MACHINE, given={"width": 4})
    configs = bundle_configs(plan, "datalist.json")
    if method == "adaptive":
        assert not plan.has_groups and "centers" not in configs
        assert configs["close_look"]["coarse_config"] == ["$@bundle_root + '/configs/train.json'"]
        return
    look, centers = configs["close_look"], configs["centers"]
    assert plan.has_groups and look["coarse_config"][1:] == ["$@bundle_root + '/configs/centers.json'"]
    final = configs["all_training_images"]["coarse_config"]
    assert final[0] == look["coarse_config"][0] and final[2:] == look["coarse_config"][1:]
    for groups in (look["close_groups"], centers["center_groups"]):
        assert groups["groups"] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]] and groups["shared"]
    # 0.2 and half of the 20 mm from the first bone to the next; a bone is 12 mm wide
    assert (look["displacement"], look["far_displacement"]) == pytest.approx((4.0, 10.0), rel=0.01)
    extent = look["close_size"][0] * look["close_spacing"]
    assert extent >= 2 * (10 + 3 * 4) + 12 and look["coarse_weight"] == 0
    spines = json.loads((bundle_path("spine_xray_landmarks_farnet") / "configs" / "close_look.json").read_text())
    for name in ("turns", "close_sigma", "patches_per_image"):
        assert look[name] == spines[name]
    flip, warp = (
        next(t for t in centers["augmentation"] if t["_target_"].endswith(name)) for name in ("Flipd", "Warpd")
    )
    assert flip["pairs"] == [] and warp == next(t for t in configs["train"]["augmentation"] if "elastic_range" in t)
    assert centers["inferer"]["mirror"] == [0, 1, 2, 3]  # a bone is its own partner
    corners = next(t for t in look["augmentation"] if t["_target_"].endswith("Flipd"))
    assert corners["pairs"] == [[0, 1], [3, 4], [6, 7], [9, 10]]
    if method == "unet":
        assert centers["softmax"] is False and look["softmax"] is False


def test_what_is_compared():
    """Each property alone decides."""
    rows = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    upright, on_its_side, swapped = (bones().reshape(-1, 4, 3, 2) for _ in range(3))
    on_its_side[:, 2] += SHAPE[:, ::-1] - SHAPE
    swapped += np.array([[-2.0, -6.0], [2.0, -6.0], [0.0, 12.0]]) - SHAPE
    assert _alike(swapped.reshape(-1, 12, 2), rows)
    swapped[:, 2:, :2] = swapped[:, 2:, 1::-1]
    shuffled, tall = upright[:, [0, 2, 1, 3]], bones().reshape(-1, 4, 3, 2)
    tall[:, 2] += SHAPE * [0.3, 3.0] - SHAPE  # another shape, though each landmark has its place
    for points, in_order, alike in (
        (upright, True, True),
        (on_its_side, True, False),
        (swapped, True, False),
        (tall, True, False),
        (shuffled, False, True),
    ):
        points = points.reshape(-1, 12, 2)
        assert (_in_order(points, rows), _alike(points, rows)) == (in_order, alike)


@pytest.mark.parametrize("resampling", ["fit", "spacing"])
def test_usual_steps_are_in_voxels_of_the_grid(resampling):
    """Images of another size are scaled to the grid, each by its own factor, unless all have the same voxel size."""
    points = np.concatenate([bones(5), bones(5, scale=2.0)])
    sizes = ((64, 128),) * 5 + ((128, 256),) * 5 + ((64, 128),) * 8
    given = {"width": 4, "spatial_size": [128, 256], "resampling": resampling, "spacing_mm": 1.6}
    plan = make_plan(data(points, sizes=sizes), "scn", MACHINE, given=given)
    chain = bundle_configs(plan, "datalist.json")["centers"]["inferer"]["chain"]
    factor = 2.0 if resampling == "fit" else 1.5 / 1.6
    steps = factor * np.array([[1.0, 20.0], [-1.0, 22.0], [-2.0, 24.0]])
    np.testing.assert_allclose(chain["offsets"], [steps], atol=0.011)
    if resampling == "spacing":  # the larger images do not fit into half of the grid with these voxels
        given["spatial_size"] = [64, 128]
        plan = make_plan(data(points, sizes=sizes), "scn", MACHINE, given=given)
        smaller = bundle_configs(plan, "datalist.json")["centers"]["inferer"]["chain"]["offsets"]
        np.testing.assert_allclose(smaller, [(1 / 1.6 + 2 / 2.0) / 2 / factor * steps], atol=0.011)
    assert chain["chains"] == [[0, 1, 2, 3]] and chain["options"] == {"step_weight": 0.5}
    assert chain["min_distance"] == pytest.approx(0.4 * np.linalg.norm(steps[0]), abs=0.051)


def test_given_groups():
    order = [[f"{bone}_{part}" for bone in BONES] for part in PARTS]  # not those that the names suggest
    pairs = {"width": 4, "groups": order}
    plan = make_plan(data(), "scn", MACHINE, given=pairs)
    centers = bundle_configs(plan, "datalist.json")["centers"]
    assert centers["center_groups"]["groups"] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    flip = next(t for t in centers["augmentation"] if t["_target_"].endswith("Flipd"))
    assert flip["pairs"] == [[0, 1]] and centers["inferer"]["mirror"] == [1, 0, 2]
    straight = make_plan(data(pairs=()), "scn", MACHINE, given=pairs)
    assert "mirror" not in bundle_configs(straight, "datalist.json")["centers"]["inferer"]
    for off in ([], None):
        assert "centers" not in bundle_configs(
            make_plan(data(), "scn", MACHINE, given={"width": 4, "groups": off}), "datalist.json"
        )
    for wrong in (
        "L1",
        [["L1_TL"]],
        [list(NAMES)],
        [*order[:2], order[2][:-1]],
        [[*order[0], *order[1]], order[2]],
        [1],
        {"a": 1},
    ):
        with pytest.raises(ValueError, match=r"groups are .*; expected lists of the same length"):
            make_plan(data(), "scn", MACHINE, given={"width": 4, "groups": wrong})
    partly = bones()
    partly[:, ::3] = np.nan  # no bone is ever complete
    make_plan(data(partly), "scn", MACHINE, given=pairs | {"groups": [list(NAMES[i : i + 3]) for i in range(0, 12, 3)]})
    never = bones()
    never[:, 3:6] = np.nan
    with pytest.raises(ValueError, match=r"no training image shows \['L1_TL', 'L1_TR', 'L1_B'\] and \['L2_TL'"):
        given = [[f"{bone}_{part}" for part in PARTS] for bone in BONES]
        make_plan(data(never), "scn", MACHINE, given={"width": 4, "groups": given})
    for turns in (0.1, [], ["a"], None):
        with pytest.raises(ValueError, match=r"close_turns is .*; expected a list of angles"):
            make_plan(data(), "scn", MACHINE, given={"width": 4, "close_turns": turns})
    for size, stride in (([16, 64], 1), ([130, 256], 2), ([128, 256], 4)):
        config = bundle_configs(
            make_plan(data(), "scn", MACHINE, given={"width": 4, "spatial_size": size}), "datalist.json"
        )["centers"]
        assert config["network_def"]["stride"] == stride
    with pytest.raises(ValueError, match="groups are .*; they work"):
        make_plan(data(), "adaptive", MACHINE, given=pairs)


def draw(folder, images=6):
    """Pictures of two sizes with four bones, each landmark a bright spot."""
    folder.mkdir()
    items, points = [], bones(images, seed=1)
    for number, own in enumerate(points):
        scale = 1 + number % 2
        x, y = np.meshgrid(np.arange(scale * 48), np.arange(scale * 112))
        spots = np.max([np.exp(-((x - a) ** 2 + (y - b) ** 2) / (6 * scale**2)) for a, b in own * scale], axis=0)
        Image.fromarray((250 * spots).astype(np.uint8)).save(folder / f"{number}.png")
        items.append({"image": f"{number}.png", "spacing": 1.0, "label": (own * scale).tolist()})
    return write(folder / "datalist.json", NAMES, {"training": items[:4], "validation": items[4:]}, pairs=PAIRS)


def test_a_bundle_with_groups(tmp_path):
    """It trains both networks, validates and predicts all landmarks."""
    path = draw(tmp_path / "drawn")
    given = {"width": 8, "spatial_size": [64, 128], "max_epochs": 1, "batch_size": 2}
    plan = make_plan(summarize_datalist(path), "scn", MACHINE, given=given)
    folder = write_bundle(tmp_path / "bundle", plan, path)
    chain = json.loads((folder / "configs" / "centers.json").read_text())["inferer"]["chain"]
    # in pixels of the grid, which is 8 / 7 as high as the smaller pictures
    np.testing.assert_allclose(chain["offsets"], [128 / 112 * np.array([[1, 20], [-1, 22], [-2, 24]])], atol=0.01)
    page = (folder / "docs" / "README.md").read_text()
    assert "centers of the structures (`centers.json`" in page and "one that finds the landmarks of each" in page
    file = folder / "configs" / "centers.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_epochs": 1, "val_interval": 1}))
    files = [str(folder / "configs" / f"{name}.json") for name in ("train", "close_look")]
    flow = ConfigWorkflow(files, logging_file=False, workflow_type="train", bundle_root=str(folder), device="cpu")
    flow.parser["device"] = "$torch.device('cpu')"
    flow.initialize()
    flow.run()
    flow.finalize()
    assert (folder / "models" / "coarse" / "model.pt").is_file()
    result = CliRunner().invoke(
        program, ["predict", str(folder), str(tmp_path / "drawn"), "--spacing", "1", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "0.mrk.json").read_text())["markups"][0]["controlPoints"]
    assert [point["label"] for point in written] == list(NAMES)


def test_the_time_of_both_networks():
    plan = make_plan(data(), "scn", MACHINE, given={"width": 4, "spatial_size": [64, 128]})
    fine, centers = measure_close_look(plan)
    assert min(fine.train, fine.infer, centers.train, centers.infer) > 0
    value = {name: choice.value for name, choice in plan.choices.items()}
    epochs, patch = value["max_epochs"], np.prod(value["close_size"])
    expected = epochs * 10 * value["close_patches_per_image"] * patch * fine.train
    expected += 3 * 8 * (4 * 5 * patch * fine.infer + 64 * 128 * centers.infer)  # 4 bones, 5 turns
    own = bundle_configs(plan, "datalist.json")["centers"]["max_epochs"]
    expected += own * 10 * 64 * 128 * centers.train + 8 * 64 * 128 * centers.infer
    assert estimated_seconds(plan, measure_plan(plan), (fine, centers)) == pytest.approx(expected)


def test_init_says_what_it_trains(tmp_path):
    path = draw(tmp_path / "drawn")
    more = ["--set", "width=4", "--set", "spatial_size=[64,128]", "--out", str(tmp_path / "bundle"), "--device", "cpu"]
    result = CliRunner().invoke(program, ["init", str(path), *more])
    assert result.exit_code == 0, result.output
    assert "4 structures with the same 3 landmarks" in result.stdout
    assert "two trainings of the close look take about" in result.stdout and "do not need this one" in result.stdout
    assert "To train two other networks" in result.stdout


def test_configurations_are_whole():
    """No reference leads nowhere."""
    plan = make_plan(data(), "farnet", MACHINE, given={"width": 4})
    configs = bundle_configs(plan, "datalist.json")
    parser = ConfigParser({**configs["train"], **configs["centers"]})
    parser.update({"names": list(NAMES), "device": "$torch.device('cpu')", "bundle_root": "."})
    network = parser.get_parsed_content("network")
    assert network.reduction == 2  # of 64 x 128 pixels
    assert parser.get_parsed_content("inferer") is not None and parser.get_parsed_content("augmentation") is not None
