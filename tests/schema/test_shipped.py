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

"""The shipped schemas: the published JSON Schema, the names that the package uses elsewhere, and what they measure."""

from __future__ import annotations

import csv
import json

import jsonschema
import numpy as np
import pytest

from monai_landmarks.data import ISBI2015_LANDMARKS, read_landmark_table
from monai_landmarks.data.datasets.aasce.datalist import AASCE_LANDMARKS, AASCE_PAIRS
from monai_landmarks.data.datasets.phantom import (
    HAND_LANDMARKS,
    SPINE_LANDMARKS,
    SPINE_PAIRS,
    hand_phantom,
    spine_phantom,
)
from monai_landmarks.data.landmarks.formats.afids import AFIDS_LANDMARKS, AFIDS_PAIRS
from monai_landmarks.schema import compare_measurements, json_schema_path, load_landmark_schema, shipped_schemas

FOLDER = json_schema_path().parent / "shipped"


def schema_of(name):
    return load_landmark_schema(name)


def read_points(path, names):
    """Images and their points (B, N, 2) of a table in long form."""
    with path.open() as file:
        rows = {(row["image"], row["landmark"]): (float(row["x"]), float(row["y"])) for row in csv.DictReader(file)}
    images = sorted({image for image, _ in rows})
    return images, np.array([[rows[image, name] for name in names] for image in images])


@pytest.mark.parametrize("name", shipped_schemas())
def test_shipped_schemas_keep_the_published_layout(name):
    content = json.loads((FOLDER / f"{name}.json").read_text())
    jsonschema.Draft202012Validator(json.loads(json_schema_path().read_text())).validate(content)
    assert (FOLDER / content["$schema"]).resolve() == json_schema_path().resolve()
    assert content["name"] == name and content["description"]
    schema = schema_of(name)
    assert name.endswith(f"_{len(schema)}")
    definitions = [known.definition for known in (*schema.landmarks, *schema.measurements) if known.definition]
    assert all(text.endswith(".") for text in definitions) and len(set(definitions)) == len(definitions)
    if name != "mouse_skull_45":  # the only one whose definitions are left to the paper
        assert len(definitions) == len(schema) + len(schema.measurements)
    assert all(color is not None for color in schema.colors) or not schema.groups


def test_there_are_some():
    assert len(shipped_schemas()) == len(list(FOLDER.iterdir())) == 7


def test_names_and_pairs_are_those_of_the_package():
    assert tuple(schema_of("cephalometric_19").names) == ISBI2015_LANDMARKS
    assert tuple(schema_of("hand_37").names) == HAND_LANDMARKS
    assert tuple(schema_of("spine_20").names) == SPINE_LANDMARKS and schema_of("spine_20").pairs == SPINE_PAIRS
    assert tuple(schema_of("aasce_68").names) == AASCE_LANDMARKS and schema_of("aasce_68").pairs == AASCE_PAIRS
    assert tuple(schema_of("afids_32").names) == AFIDS_LANDMARKS and schema_of("afids_32").pairs == AFIDS_PAIRS
    assert schema_of("cephalometric_19").pairs == schema_of("hand_37").pairs == schema_of("lumbar_5").pairs == ()


def test_afids_sides():
    schema = schema_of("afids_32")
    by_name = {m.name: m for m in schema.landmarks}
    sides = {name: m.group for name, m in by_name.items()}
    assert [list(sides.values()).count(side) for side in ("midline", "left", "right")] == [10, 11, 11]
    assert len(schema.pairs) == 11
    for left, right in schema.pairs:
        assert (sides[left], sides[right]) == ("left", "right") and left[1:] == right[1:] and left[0] + right[0] == "LR"
        assert by_name[left].definition.replace(" left ", " right ") == by_name[right].definition


def test_hand_rays_run_from_the_wrist_to_the_tip():
    schema = schema_of("hand_37")
    _, hand = hand_phantom(3)
    where = dict(zip(hand.names, hand.points))
    for finger in range(1, 6):
        chain = schema.chains[f"ray {finger}"]
        assert {m.name for m in schema.landmarks if m.group == f"ray {finger}"} == set(chain)
        height = [where[name][1] for name in chain]  # y downward, fingers up
        assert height == sorted(height, reverse=True) and len(chain) == (4 if finger == 1 else 5)
    values = schema.measure(hand.points)
    lengths = [values[f"finger_{finger}_length"] for finger in range(1, 6)]
    assert np.argmax(lengths) == 2 and values["digit_ratio"] == lengths[1] / lengths[3]


def test_aasce_sides_run_down_the_spine():
    chains = schema_of("aasce_68").chains
    for side in "LR":
        chain = chains["left side" if side == "L" else "right side"]
        assert chain == tuple(name for name in AASCE_LANDMARKS if name.endswith(side))


def test_cobb_angles_of_the_aasce_schema(aasce_spine_root):
    """As they stand in the tables of the data, which a routine of its own made."""
    schema = schema_of("aasce_68")
    images, points = (known[::4] for known in read_points(aasce_spine_root / "landmarks.csv", schema.names))
    with (aasce_spine_root / "splits.csv").open() as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    found = schema.measure(points)
    assert list(found) == ["cobb_main", "cobb_second", "cobb_third"]
    for number, (name, least) in enumerate(zip(found, (0.97, 0.9, 0.75)), 1):
        table = np.array([float(rows[image][f"cobb{number}"]) for image in images])
        assert (np.abs(found[name] - table) < 1).mean() > least, name


def test_spine_measurements():
    _, _, spine = spine_phantom(5, size=(24, 24, 40), spacing=(6, 6, 6))
    values = schema_of("spine_20").measure(spine.points)
    where = dict(zip(spine.names, spine.points))
    assert values["L3_span"] == pytest.approx(
        np.linalg.norm(np.subtract(*(where[f"L3_transverse_{s}_tip"] for s in ("left", "right"))))
    )
    assert schema_of("lumbar_5").measure(np.stack([where[f"L{i}_body_center"] for i in range(1, 6)]))[
        "lumbar_length"
    ] == pytest.approx(values["lumbar_length"])
    straight = spine.points * [0, 0, 1]
    assert schema_of("spine_20").measure(straight)["lumbar_bend"] == pytest.approx(0) and values["lumbar_bend"] > 1


def test_mouse_names_and_pairs_are_those_of_the_data(mouse_skull_ct_root):
    schema = schema_of("mouse_skull_45")
    sets = read_landmark_table(mouse_skull_ct_root / "landmarks.csv", "RAS")
    assert {tuple(known.names) for known in sets.values()} == {tuple(schema.names)}
    with (mouse_skull_ct_root / "mirror_pairs.csv").open() as file:
        rows = [(row["landmark"], row["mirror_landmark"]) for row in csv.DictReader(file)]
    given = {frozenset(row) for row in rows if all(row) and row[0] != row[1]}
    assert {frozenset(pair) for pair in schema.pairs} == given
    mean = dict(zip(schema.names, np.mean([known.points for known in sets.values()], axis=0)))
    assert all(mean[left][0] < mean[right][0] for left, right in schema.pairs)  # RAS: x grows to the right


def test_lumbar_names_are_those_of_the_data(lumbar_mri_root):
    sets = read_landmark_table(lumbar_mri_root / "landmarks.csv", "RAS")
    assert {tuple(known.names) for known in sets.values()} == {tuple(schema_of("lumbar_5").names)}


# a face in profile, looking to the right, in mm of an image: x to the right, y downward
FACE = {
    "sella": (80, 100),
    "nasion": (150, 92),
    "orbitale": (138, 122),
    "porion": (62, 126),
    "subspinale_A": (150, 148),
    "supramentale_B": (143, 190),
    "pogonion": (142, 205),
    "menton": (132, 215),
    "gnathion": (138, 212),
    "gonion": (78, 178),
    "incision_inferius": (150, 172),
    "incision_superius": (154, 174),
    "upper_lip": (168, 165),
    "lower_lip": (165, 178),
    "subnasale": (163, 152),
    "soft_tissue_pogonion": (156, 203),
    "posterior_nasal_spine": (102, 146),
    "anterior_nasal_spine": (152, 142),
    "articulare": (68, 138),
}
EIGHT = ("ANB", "SNB", "SNA", "ODI", "APDI", "FHI", "FMA", "MW")


def faces(count=200):
    rng = np.random.default_rng(1)
    return np.array([FACE[name] for name in ISBI2015_LANDMARKS]) + rng.normal(0, 4, (count, 19, 2))


def eight_measures(points):
    """The measures as the challenge writes them down, for a face that looks to the right in an image with y downward.

    L1 to L19 are the landmarks by their published numbers; angles by the arc cosine, signs by the cross product.
    """
    landmark = {f"L{i}": points[..., i - 1, :] for i in range(1, 20)}

    def vector(a, b):
        return landmark[f"L{b}"] - landmark[f"L{a}"]

    def length(v):
        return np.hypot(v[..., 0], v[..., 1])

    def angle(v, w):
        return np.degrees(np.arccos((v * w).sum(-1) / length(v) / length(w)))

    def clockwise(v, w):
        return v[..., 0] * w[..., 1] - v[..., 1] * w[..., 0] >= 0

    snb, sna = angle(vector(2, 1), vector(2, 6)), angle(vector(2, 1), vector(2, 5))
    frankfort, palate, facial, ab = vector(4, 3), vector(17, 18), vector(2, 7), vector(5, 6)
    falls = angle(frankfort, palate) * np.where(clockwise(frankfort, palate), 1, -1)
    leans = angle(facial, ab) * np.where(clockwise(facial, ab), -1, 1)
    incisors = vector(11, 12)
    return {
        "ANB": sna - snb,
        "SNB": snb,
        "SNA": sna,
        "ODI": angle(vector(8, 10), -ab) + falls,
        "APDI": angle(-frankfort, facial) + leans + falls,
        "FHI": length(vector(1, 10)) / length(vector(2, 8)),
        "FMA": angle(vector(1, 2), vector(10, 9)),
        "MW": length(incisors) * np.where(incisors[..., 0] < 0, -1, 1),
    }


def test_eight_measures_are_those_of_the_challenge():
    points = faces()
    found, expected = schema_of("cephalometric_19").measure(points), eight_measures(points)
    assert tuple(found) == EIGHT
    for name in EIGHT:
        # the sign of MW is taken along the Frankfort horizontal, which here is 3 degrees off the image's
        clear = np.abs(np.diff(points[:, 10:12, 0])).ravel() > 1 if name == "MW" else slice(None)
        np.testing.assert_allclose(found[name][clear], expected[name][clear], rtol=1e-9, err_msg=name)
    for sign in (-1, 1):  # both signs of all that has one do occur
        assert all((sign * found[name] > 0).any() for name in ("ANB", "MW"))


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(lambda p: p[..., ::-1], id="axes swapped"),
        pytest.param(lambda p: p * [-1, 1], id="looking to the left"),
        pytest.param(lambda p: p * [1, -1], id="y upward"),
        pytest.param(lambda p: -p + 7, id="upside down"),
        pytest.param(lambda p: p @ [[0.8, 0.6], [-0.6, 0.8]], id="turned"),
    ],
)
def test_eight_measures_do_not_depend_on_how_the_image_is_stored(stored):
    schema, points = schema_of("cephalometric_19"), faces()
    found, expected = schema.measure(stored(points)), schema.measure(points)
    for name in EIGHT:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_palate_and_jaw_turn_the_angles_the_clinical_way():
    """A palate that falls forward raises ODI and APDI; a lower jaw farther forward raises APDI, SNB and lowers ANB."""
    schema = schema_of("cephalometric_19")
    face = np.array([FACE[name] for name in ISBI2015_LANDMARKS], dtype=float)
    before = schema.measure(face)

    def moved(name, shift):
        other = face.copy()
        other[schema.names.index(name)] += shift
        after = schema.measure(other)
        return {key: float(after[key] - before[key]) for key in EIGHT}

    for lower in (-15.0, 15.0):  # from well above to well below the Frankfort horizontal
        change = moved("anterior_nasal_spine", (0, lower))
        assert np.sign(change["ODI"]) == np.sign(change["APDI"]) == np.sign(lower)
        assert change["ODI"] == pytest.approx(change["APDI"])
    for forward in (-15.0, 15.0):
        change = moved("supramentale_B", (forward, 0))
        assert np.sign(change["APDI"]) == np.sign(change["SNB"]) == -np.sign(change["ANB"]) == np.sign(forward)
    assert moved("incision_superius", (-8, 0))["MW"] < 0
    assert moved("gnathion", (0, 10))["FMA"] > 0


@pytest.mark.parametrize(
    "measurement, values",
    {
        "ANB": {3.2: 1, 5.7: 1, 5.71: 2, 3.19: 3, -4: 3},
        "SNB": {74.6: 1, 78.7: 1, 74.5: 2, 78.8: 3},
        "SNA": {79.4: 1, 83.2: 1, 83.3: 2, 79.3: 3},
        "ODI": {68.4: 1, 80.5: 1, 80.6: 2, 68.3: 3},
        "APDI": {77.6: 1, 85.2: 1, 77.5: 2, 85.3: 3},
        "FHI": {0.65: 1, 0.75: 1, 0.76: 2, 0.64: 3},
        "FMA": {26.8: 1, 31.4: 1, 31.5: 2, 26.7: 3},
        "MW": {2.0: 1, 4.5: 1, 0.0: 2, -1: 3, 1.9: 3, 4.6: 4},
    }.items(),
)
def test_classes_of_the_challenge(measurement, values):
    found = schema_of("cephalometric_19").classify({measurement: np.array(list(values))})[measurement]
    assert found.tolist() == list(values.values())


@pytest.fixture(scope="module")
def doctors(isbi2015_root):
    """Points (300, 19, 2) in mm of the senior and of the junior doctor."""
    found = []
    for annotator in ("senior", "junior"):
        _, points = read_points(isbi2015_root / f"landmarks_{annotator}.csv", ISBI2015_LANDMARKS)
        found.append(0.3 * points)
    return found


def test_real_cephalograms(doctors):
    schema = schema_of("cephalometric_19")
    for points in doctors:
        found, expected = schema.measure(points), eight_measures(points)
        for name in EIGHT[:-1]:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(np.abs(found["MW"]), np.abs(expected["MW"]))
        # where the tips lie one above the other, the heads' tilt decides which one is in front
        assert (np.sign(found["MW"]) != np.sign(expected["MW"])).mean() < 0.02
        # what the two disputed sides of an angle would give is outside of what a face can be
        assert (
            15 < found["ODI"].min()
            and found["ODI"].max() < 120
            and 50 < found["APDI"].min() < found["APDI"].max() < 125
        )
        classes = schema.classify(found)
        assert set(classes) == set(EIGHT) and all((known > 0).all() for known in classes.values())


def test_doctors_agree_more_often_than_chance(doctors):
    senior, junior = doctors
    report = compare_measurements(schema_of("cephalometric_19"), junior, senior)
    for comparison in report.comparisons.values():
        counts = comparison.confusion
        share = counts / counts.sum()
        by_chance = float(share.sum(1) @ share.sum(0)[:-1])
        assert comparison.missed == 0 and len(comparison.errors) == 300
        assert comparison.agreement > by_chance + 0.2
