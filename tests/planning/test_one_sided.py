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
"""Landmarks on one side only are found from the training points, written into the bundle, and can be given."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from monai.bundle import ConfigParser
from PIL import Image
from summaries import summary, write

from monai_landmarks.apps.main import program
from monai_landmarks.planning import Machine, make_plan, write_bundle
from monai_landmarks.planning.one_sided import choose_one_sided, distances_to_plane

NAMES = ("front", "left eye", "right eye", "left ear", "right ear", "back", "heart", "mole")
PAIRS = [("left eye", "right eye"), ("right ear", "left ear")]  # in any order of left and right
SHAPE = np.array([[0, 8, 1], [-3, 6, 2], [3, 6, 2], [-5, 0, 3], [5, 0, 3], [0, -7, 2], [-2, 2, -6], [4, -3, 1]], float)


def heads(dims: int, count: int, seed: int = 0, noise: float = 0.1, bend: float = 0.0) -> np.ndarray:
    """Heads in random poses and sizes; the mole is on a random side. World points, (count, N, D)."""
    random = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        points = SHAPE[:, :dims] * random.uniform(0.8, 1.2) + random.normal(0, noise, (len(SHAPE), dims))
        points[-1, 0] *= random.choice([-1, 1])
        points[:, 0] += bend * random.normal() * points[:, 1] ** 2 / 50
        turn = np.linalg.qr(np.eye(dims) + random.normal(0, 0.15, (dims, dims)))[0]
        turn *= np.sign(np.diag(turn))
        result.append(points @ turn.T + random.uniform(-50, 50, dims))
    return np.array(result)


@pytest.mark.parametrize("bend", [0.0, 0.2])
@pytest.mark.parametrize("count", [5, 40])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_found_in_any_pose(dims: int, count: int, bend: float, seed: int) -> None:
    points = heads(dims, count, seed, bend=bend)
    choice = choose_one_sided(points[:, :-1], NAMES[:-1], PAIRS, 0.5)
    assert choice.value == ["heart"] and "heart by" in choice.reason
    swapped = choose_one_sided(points[:, :-1], NAMES[:-1], [(right, left) for left, right in PAIRS], 0.5)
    assert swapped == choice


def test_distance_is_that_of_the_shape() -> None:
    points = np.repeat(SHAPE[None], 3, axis=0)
    distance, half_width, spread = distances_to_plane(points, [[1, 2], [4, 3]], 6)
    assert distance == pytest.approx(-2) and 3 < half_width < 5 and spread == pytest.approx(0, abs=1e-9)
    assert distances_to_plane(points, [[1, 2], [4, 3]], 5)[0] == pytest.approx(0, abs=1e-9)


def test_landmarks_at_one_place_show_no_plane() -> None:
    """An image whose landmarks were all put at one place is left out, as is a pair that coincides."""
    points = heads(3, 20)
    expected = distances_to_plane(points[1:], [[1, 2], [3, 4]], 6)
    points[0] = points[0, :1]
    assert distances_to_plane(points, [[1, 2], [3, 4]], 6) == expected
    points[:, 2] = points[:, 1]
    assert distances_to_plane(points, [[1, 2], [3, 4]], 6) == distances_to_plane(points[1:], [[3, 4]], 6)
    assert np.isnan(distances_to_plane(points[:1], [[1, 2], [3, 4]], 6)).all()


def test_a_landmark_on_a_random_side_is_not_one_sided() -> None:
    assert choose_one_sided(heads(3, 60), NAMES, PAIRS, 0.5).value == ["heart"]


def test_missing_landmarks() -> None:
    points = heads(3, 20)
    points[::2, 1] = np.nan
    points[1::3, 6] = np.nan
    assert choose_one_sided(points[:, :-1], NAMES[:-1], PAIRS, 0.5).value == ["heart"]
    points[:, 6] = np.nan
    unknown = choose_one_sided(points[:, :-1], NAMES[:-1], PAIRS, 0.5)
    assert unknown.value == [] and "not measured" in unknown.reason and "heart" in unknown.reason
    assert "not measured" in choose_one_sided(None, NAMES, PAIRS, 0.5).reason


@pytest.mark.parametrize(
    ("names", "pairs", "flip", "reason"),
    [
        (NAMES, PAIRS, 0.0, "not mirrored"),
        (NAMES[1:5], PAIRS, 0.5, "have a partner"),
        (NAMES, [], 0.5, "declared to be in the plane"),
    ],
)
def test_nothing_to_find(names: tuple, pairs: list, flip: float, reason: str) -> None:
    choice = choose_one_sided(heads(2, 3)[:, : len(names)], names, pairs, flip)
    assert choice.value == [] and reason in choice.reason


@pytest.mark.parametrize("network", ["train", "close_look"])
def test_the_bundle_mirrors_without_it(tmp_path, network) -> None:
    points = heads(2, 12)[:, :-1]
    data = summary((400, 400), names=NAMES[:-1], pairs=tuple(PAIRS), training_points=points)
    plan = make_plan(data, machine=Machine("cpu", 2**33), given={"spatial_size": [64, 64], "intensity": [0, 255]})
    folder = write_bundle(tmp_path / "b", plan, tmp_path / "datalist.json")
    assert '| one_sided | `["heart"]` | beside the plane of symmetry: heart by' in (
        folder / "docs" / "README.md"
    ).read_text(encoding="utf-8")
    config = json.loads((folder / "configs" / f"{network}.json").read_text())["augmentation"][0]
    flip = ConfigParser({"flip": {**config, "prob": 1.0}}).get_parsed_content("flip")
    index = torch.tensor(SHAPE[None, :-1, :2]) + 10
    mirrored = flip({"image": torch.zeros(1, 21, 21), "label": index})["label"]
    assert mirrored[0].isnan().any(-1).nonzero().flatten().tolist() == [NAMES.index("heart")]
    torch.testing.assert_close(mirrored[0, 1], index[0, 1])  # the left eye is where the mirrored right one is


@pytest.mark.parametrize(
    ("given", "message"),
    [(["tail"], "'tail' is not a landmark"), (["left eye"], "'left eye' has a partner"), ("heart", "expected a list")],
)
def test_malformed_given_names(given: object, message: str) -> None:
    data = summary((400, 400), names=NAMES, pairs=tuple(PAIRS))
    with pytest.raises(ValueError, match=message):
        make_plan(data, machine=Machine("cpu", 2**33), given={"spatial_size": [64, 64], "one_sided": given})


def test_the_command_says_it_and_takes_it(tmp_path) -> None:
    items = []
    for number, head in enumerate(heads(2, 8)):
        Image.new("L", (100, 100)).save(tmp_path / f"{number}.png")
        # the axes of pictures run to the left and to the back
        items.append({"image": f"{number}.png", "label": (50 - (head - head.mean(0)) * 3)[:, :2].tolist()})
    datalist = write(
        tmp_path / "datalist.json", list(NAMES), {"training": items[:6], "validation": items[6:]}, pairs=PAIRS
    )
    settings = ("--device", "cpu", "--set", "spatial_size=[64,64]", "--set", "batch_size=1")
    run = [*("init", str(datalist), "--memory", "1"), *settings]
    found = CliRunner().invoke(program, [*run, "--out", str(tmp_path / "found")], catch_exceptions=False)
    assert "one_sided" in found.stdout and "heart by" in found.stdout
    given = CliRunner().invoke(
        program, [*run, "--out", str(tmp_path / "given"), "--one-sided", "mole", "--one-sided", "back"]
    )
    assert given.exit_code == 0, given.output
    rows = [
        json.loads((tmp_path / name / "configs" / "train.json").read_text())["augmentation"][0]["one_sided"]
        for name in ("found", "given")
    ]
    assert rows == [[NAMES.index("heart")], [NAMES.index("mole"), NAMES.index("back")]]


def table(path, axes: str) -> tuple[list[str], np.ndarray]:
    rows = list(csv.DictReader(path.open()))
    names = list(dict.fromkeys(row["landmark"] for row in rows))
    images = list(dict.fromkeys(row["image"] for row in rows))
    points = np.full((len(images), len(names), len(axes)), np.nan)
    for row in rows:
        if all(row[axis] for axis in axes):
            points[images.index(row["image"]), names.index(row["landmark"])] = [float(row[axis]) for axis in axes]
    return names, points


def test_mouse_skulls(mouse_skull_ct_root) -> None:
    names, points = table(mouse_skull_ct_root / "landmarks.csv", "xyz")
    rows = csv.reader((mouse_skull_ct_root / "mirror_pairs.csv").open())
    pairs = [(a, b) for a, b, _ in list(rows)[1:] if b and a < b]
    assert choose_one_sided(points, names, pairs, 0.5).value == ["LM49"]
    for left, _ in pairs:  # whatever has its partner left out is found, too, and nothing else
        rest = [pair for pair in pairs if pair[0] != left]
        kept = [i for i, name in enumerate(names) if name not in dict(pairs).values() or name in dict(rest).values()]
        found = choose_one_sided(points[:, kept], [names[i] for i in kept], rest, 0.5).value
        assert set(found) == {left, "LM49"}


def test_bent_spines(aasce_spine_root) -> None:
    names, points = table(aasce_spine_root / "landmarks.csv", "xy")
    pairs = [(n, n.replace("TL", "TR").replace("BL", "BR")) for n in names if n.endswith("L")]
    centers = points.reshape(len(points), -1, 4, 2).mean(2)
    points = np.concatenate([points, centers], axis=1)
    names = [*names, *(f"center {i}" for i in range(centers.shape[1]))]
    single = [pair for pair in pairs if not pair[0].startswith("T6_")]
    assert set(choose_one_sided(points, names, single, 0.5).value) == {"T6_TL", "T6_TR", "T6_BL", "T6_BR"}
