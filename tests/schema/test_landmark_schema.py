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

"""Schemas: reading them, the published JSON Schema beside the reader, the way to datalists, measuring and classes."""

from __future__ import annotations

import copy
import json
import pickle

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from monai.data import MetaTensor

from monai_landmarks.data import load_landmark_definition, save_datalist
from monai_landmarks.schema import (
    Landmark,
    LandmarkSchema,
    Measurement,
    MeasurementClass,
    json_schema_path,
    load_landmark_schema,
    parse_landmark_schema,
    shipped_schemas,
)

FACE = {
    "name": "face",
    "description": "Eyes and nose.",
    "source": "made up",
    "spatial_dims": 2,
    "symmetric": True,
    "groups": {"eyes": "#0072b2"},
    "landmarks": [
        {"name": "left eye", "abbreviation": "LE", "definition": "Left pupil.", "group": "eyes", "sigma_mm": 1.5},
        {"name": "right eye", "group": "eyes", "color": "#FF0000"},
        {"name": "nose"},
        {"name": "chin"},
    ],
    "pairs": [["left eye", "right eye"]],
    "chains": {"middle": ["nose", "chin"]},
    "measurements": [
        {
            "name": "apart",
            "expression": "distance('left eye', 'right eye')",
            "unit": "mm",
            "definition": "Pupillary distance.",
            "classes": [
                {"name": "narrow", "below": 58},
                {"name": "usual", "at_most": 68},
                {"name": "wide", "above": 68},
            ],
        },
        {"name": "slant", "expression": "angle('left eye', nose, 'right eye')", "unit": "degree"},
        {"name": "length", "expression": "distance(nose, chin) / apart", "unit": "ratio"},
    ],
}
DRAFT = jsonschema.Draft202012Validator(json.loads(json_schema_path().read_text()))


def write(tmp_path, content, name="face.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_file_is_read(tmp_path):
    schema = load_landmark_schema(write(tmp_path, FACE))
    assert schema == LandmarkSchema(
        name="face",
        spatial_dims=2,
        landmarks=(
            Landmark("left eye", "LE", "Left pupil.", "eyes", None, 1.5),
            Landmark("right eye", group="eyes", color="#FF0000"),
            Landmark("nose"),
            Landmark("chin"),
        ),
        pairs=(("left eye", "right eye"),),
        chains={"middle": ("nose", "chin")},
        groups={"eyes": "#0072b2"},
        measurements=(
            Measurement(
                "apart",
                "distance('left eye', 'right eye')",
                "mm",
                "Pupillary distance.",
                (
                    MeasurementClass("narrow", below=58.0),
                    MeasurementClass("usual", at_most=68.0),
                    MeasurementClass("wide", above=68.0),
                ),
            ),
            Measurement("slant", "angle('left eye', nose, 'right eye')", "degree"),
            Measurement("length", "distance(nose, chin) / apart", "ratio"),
        ),
        symmetric=True,
        description="Eyes and nose.",
        source="made up",
    )
    assert schema.colors == ["#0072b2", "#FF0000", None, None] and len(schema) == 4
    assert pickle.loads(pickle.dumps(schema)) == copy.deepcopy(schema) == schema


@pytest.mark.parametrize("name", ["face.yaml", "face.YML"])
def test_yaml_is_the_same(name, tmp_path):
    assert load_landmark_schema(write(tmp_path, yaml.safe_dump(FACE), name)) == parse_landmark_schema(FACE)


def changed(*steps):
    """FACE with a value put at a path, or taken out of it."""
    content = copy.deepcopy(FACE)
    *path, last, value = steps
    inner = content
    for key in path:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return content


# what JSON Schema can see: the reader and the published schema must both refuse it
BROKEN = [
    (changed("name", None), "name: is absent; expected it to be there."),
    (changed("landmarks", None), "landmarks: is absent"),
    (changed("spatial_dims", None), "spatial_dims: is absent"),
    (changed("spatial_dims", 4), "spatial_dims: is 4; expected 2 or 3."),
    (changed("symmetric", "yes"), "symmetric: 'yes' is not true or false."),
    (changed("spatial_dims", 2.5), "spatial_dims: 2.5 is not a whole number; expected one."),
    (changed("spatial_dims", "2"), "spatial_dims: '2' is not a number"),
    (changed("spatial_dims", True), "spatial_dims: True is not a number"),
    (changed("name", 7), "name: 7 is not text"),
    (changed("name", "  "), "name: '  ' is not text; expected text that is not blank."),
    (changed("landmark", []), "landmark: unknown key 'landmark'; did you mean 'landmarks'?"),
    (changed("zzz", []), "zzz: unknown key 'zzz'; expected name, spatial_dims, landmarks,"),
    (changed("landmarks", []), "landmarks: there is none"),
    (changed("landmarks", {}), "landmarks: {} is not a list; expected a list."),
    (changed("landmarks", 1, "nose"), "landmarks[1]: 'nose' is not an object"),
    (changed("landmarks", 1, "name", None), "landmarks[1].name: is absent"),
    (changed("landmarks", 2, {"nam": "nose"}), "landmarks[2].name: is absent; did you mean 'nam'?"),
    (
        changed("landmarks", 1, "abreviation", "RE"),
        "landmarks.right eye.abreviation: unknown key 'abreviation'; did you mean",
    ),
    (changed("landmarks", 1, "color", "red"), "landmarks.right eye.color: 'red' is not a color; expected '#rrggbb'"),
    (changed("landmarks", 1, "sigma_mm", 0), "landmarks.right eye.sigma_mm: is 0.0; expected a number of mm above 0."),
    (changed("landmarks", 1, "sigma_mm", "1"), "landmarks.right eye.sigma_mm: '1' is not a number"),
    (changed("groups", "eyes", "#12345"), "groups.eyes: '#12345' is not a color"),
    (changed("groups", ["eyes"]), "groups: ['eyes'] is not an object"),
    (changed("groups", " ", "#123456"), "groups: ' ' is not text"),
    (changed("pairs", 0, ["left eye"]), "pairs[0]: ['left eye']; expected two or more"),
    (changed("pairs", 0, ["left eye", "nose", "chin"]), "pairs[0]: ['left eye', 'nose', 'chin'] is not a pair"),
    (changed("pairs", 0, ["nose", "nose"]), "pairs: 'nose' is there more than once; expected it once."),
    (changed("chains", "middle", ["nose"]), "chains.middle: ['nose']; expected two or more names"),
    (changed("chains", "middle", ["nose", "chin", "nose"]), "chains.middle: 'nose' is there more than once"),
    (changed("chains", [["nose", "chin"]]), "chains: [['nose', 'chin']] is not an object"),
    (
        changed("measurements", 1, "unit", "cm"),
        "measurements.slant.unit: unknown unit 'cm'; expected one of mm, degree, ratio.",
    ),
    (changed("measurements", 1, "unit", None), "measurements.slant.unit: is absent"),
    (changed("measurements", 1, "expression", 5), "measurements.slant.expression: 5 is not text"),
    (changed("measurements", 1, "expression", "1" + "+1" * 600), "measurements.slant.expression: 1201 characters"),
    (changed("measurements", 0, "classes", 0, {"below": 1}), "measurements.apart.classes[0].name: is absent"),
    (
        changed("measurements", 0, "classes", 0, "below", "58"),
        "measurements.apart.classes.narrow.below: '58' is not a number",
    ),
    (
        changed("measurements", 0, "classes", 0, "under", 58),
        "measurements.apart.classes.narrow.under: unknown key 'under'",
    ),
    ([FACE], "the file: [{'name'"),
    (7, "the file: 7 is not an object"),
]
# what only the reader can see
WRONG = [
    (changed("landmarks", 1, "name", "nose"), "landmarks: 'nose' is there more than once; expected it once."),
    (changed("landmarks", 1, "group", "eye"), "landmarks.right eye.group: unknown group 'eye'; did you mean 'eyes'?"),
    (changed("pairs", 0, ["left eye", "right ey"]), "pairs: unknown landmark 'right ey'; did you mean 'right eye'?"),
    (changed("pairs", [["left eye", "right eye"], ["nose", "left eye"]]), "pairs: 'left eye' is there more than once"),
    (changed("chains", "middle", ["nose", "mouth"]), "chains.middle: unknown landmark 'mouth'."),
    (changed("measurements", 1, "name", "apart"), "measurements: 'apart' is there more than once"),
    (changed("measurements", 1, "name", "nose"), "measurements: 'nose' is the name of a landmark; expected another name."),
    (changed("measurements", 1, "unit", "mm"), "measurements.slant.unit: is 'mm', but the expression gives 'degree'."),
    (changed("measurements", 2, "expression", "apart * apart"), "measurements.length.unit: is 'ratio', but the expression gives 'mm^2'."),
    (changed("measurements", 1, "expression", "angle(nose, chn, nose)"), "measurements.slant.expression: unknown landmark 'chn'; did you mean 'chin'?"),
    (changed("measurements", 0, "classes", 0, "name", "wide"), "measurements.apart.classes: 'wide' is there more than once"),
]  # fmt: skip


@pytest.mark.parametrize("content, message", BROKEN + WRONG, ids=[message for _, message in BROKEN + WRONG])
def test_errors_name_file_and_place(content, message, tmp_path):
    path = write(tmp_path, content)
    with pytest.raises(ValueError) as error:
        load_landmark_schema(path)
    assert str(error.value).startswith(f"{path}: {message}")


def test_json_schema_is_itself_valid():
    jsonschema.Draft202012Validator.check_schema(DRAFT.schema)
    assert DRAFT.schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("content, message", BROKEN, ids=[message for _, message in BROKEN])
def test_json_schema_refuses_what_the_reader_refuses(content, message):
    assert not DRAFT.is_valid(content)


@pytest.mark.parametrize("content", [FACE, *(content for content, _ in WRONG)])
def test_json_schema_accepts_what_it_can_not_judge(content):
    DRAFT.validate(content)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        ('{"name": "a", "name": "b"}', "the key 'name' is given twice"),
        ("[" * 100_000, "nested too deep"),
        ('{"name": ' * 100_000, "nested too deep"),
        ('{"name": "a", "spatial_dims": NaN, "landmarks": []}', "spatial_dims: nan is not a number"),
        ('{"name": "a", "spatial_dims": 1e999, "landmarks": []}', "spatial_dims: inf is not a number"),
        ('{"name": "a", "spatial_dims": %s, "landmarks": []}' % ("9" * 400), "is not a number"),
    ],
)
def test_no_json_gives_a_clear_error(text, message, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(ValueError) as error:
        load_landmark_schema(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


def test_no_yaml_gives_a_clear_error(tmp_path):
    for text in ("a: [", "name: !!python/name:os.system", "\t", "!!bool x", "!!timestamp x", "!!int ''"):
        with pytest.raises(ValueError, match="face.yaml: not YAML"):
            load_landmark_schema(write(tmp_path, text, "face.yaml"))
    with pytest.raises(ValueError, match="face.yaml: nested too deep"):
        load_landmark_schema(write(tmp_path, "a: " + "[" * 1000, "face.yaml"))
    (tmp_path / "face.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ValueError, match="face.yaml: byte 6 is not UTF-8"):
        load_landmark_schema(tmp_path / "face.yaml")


def test_unknown_schema():
    with pytest.raises(ValueError, match="no shipped schema of this name; did you mean 'cephalometric_19'?"):
        load_landmark_schema("cephalometric19")


def test_datalist_definition_round_trip(tmp_path):
    definition = {"names": ["b", "a", "c d"], "pairs": [["a", "b"]], "coordinate_system": "LPS"}
    schema = LandmarkSchema.from_datalist_definition(definition, spatial_dims=3)
    assert schema.to_datalist_definition("LPS") == definition
    save_datalist(tmp_path / "datalist.json", {"landmarks": schema.to_datalist_definition("RAS"), "training": []})
    again = load_landmark_definition(tmp_path / "datalist.json")
    assert again == {**definition, "coordinate_system": "RAS"}
    assert LandmarkSchema.from_datalist_definition(again, 3) == schema


@pytest.mark.parametrize("name", shipped_schemas())
def test_shipped_schemas_make_datalist_definitions(name, tmp_path):
    schema = load_landmark_schema(name)
    save_datalist(tmp_path / "datalist.json", {"landmarks": schema.to_datalist_definition()})
    definition = load_landmark_definition(tmp_path / "datalist.json")
    assert definition == {"names": schema.names, "pairs": [list(p) for p in schema.pairs], "coordinate_system": "index"}


EYES = np.array([[0.0, 0], [60, 0], [30, 30], [30, 90]])


@pytest.mark.parametrize("make", [np.array, torch.tensor, lambda points: MetaTensor(torch.tensor(points))])
def test_measure(make):
    found = parse_landmark_schema(FACE).measure(make(EYES.tolist()))
    assert list(found) == ["apart", "slant", "length"]
    assert [float(known) for known in found.values()] == pytest.approx([60, 90, 1])
    assert {type(known) for known in found.values()} == {np.ndarray if make is np.array else torch.Tensor}


def test_measure_lists_integers_and_types():
    schema = parse_landmark_schema(FACE)
    assert schema.measure(EYES.astype(int).tolist())["apart"] == 60
    assert schema.measure(torch.tensor(EYES).int())["apart"].dtype == torch.float32
    assert schema.measure(torch.tensor(EYES).half())["apart"].dtype == torch.float32
    assert schema.measure(torch.tensor(EYES))["apart"].dtype == torch.float64


def test_measure_in_mm(device):
    schema = parse_landmark_schema(FACE)
    stretched = torch.tensor(EYES, device=device) / torch.tensor([0.5, 2.0], dtype=torch.float64, device=device)
    for found in (
        schema.measure(stretched, spacing=(0.5, 2)),
        schema.measure(MetaTensor(stretched, affine=torch.diag(torch.tensor([-0.5, 2.0, 1, 1])))),
        schema.measure(stretched[None], spacing=torch.tensor([[[0.5, 2.0]]])),
    ):
        assert float(found["apart"]) == pytest.approx(60) and float(found["slant"]) == pytest.approx(90)
        assert found["apart"].device.type == device.type
    assert float(schema.measure(stretched)["apart"]) == pytest.approx(120)


def test_measure_refuses_another_shape():
    with pytest.raises(ValueError, match=r"shape \(3, 2\); face expects \(\.\.\., 4, 2\)"):
        parse_landmark_schema(FACE).measure(EYES[:3])
    with pytest.raises(ValueError, match=r"face expects \(\.\.\., 4, 2\)"):
        parse_landmark_schema(FACE).measure(np.zeros((5, 4, 3)))


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_missing_landmarks(missing):
    batch = np.stack([EYES] * 4)
    batch[1, 3] = missing
    batch[2, 0] = missing
    batch[3, 2, 1] = missing
    found = parse_landmark_schema(FACE).measure(batch)
    assert np.isnan(found["apart"]).tolist() == [False, False, True, False]
    assert np.isnan(found["slant"]).tolist() == [False, False, True, True]
    assert np.isnan(found["length"]).tolist() == [False, True, True, True]


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_classes(make):
    schema = parse_landmark_schema(FACE)
    found = schema.classify({"apart": make([[57.9, 58.0, 68.0], [68.1, np.nan, -np.inf]]), "slant": make([1.0])})
    assert list(found) == ["apart"]
    assert found["apart"].tolist() == [[1, 2, 2], [3, 0, 1]] and isinstance(found["apart"], type(make([1])))


def test_the_first_class_that_holds_a_value_counts():
    bounds = (
        MeasurementClass("zero", at_least=0, at_most=0),
        MeasurementClass("low", below=2),
        MeasurementClass("four", above=4),
        MeasurementClass("rest"),
    )
    schema = LandmarkSchema(
        "x", 2, (Landmark("a"), Landmark("b")), measurements=(Measurement("m", "distance(a, b)", "mm", classes=bounds),)
    )
    values = {"m": np.array([-1, 0, 1, 2, 4, 5, np.nan])}
    assert schema.classify(values)["m"].tolist() == [2, 1, 2, 4, 4, 3, 0]


@pytest.mark.parametrize("level", ["[{}]", "{{<<: [{}]}}", "{{a: [{}]}}"])
def test_yaml_that_expands_without_end(tmp_path, level):
    """Each level refers nine times to the one before: 9 ** 30 values in two kilobytes."""
    lines = ["a0: &a0 {x: x}"]
    lines += [f"a{n}: &a{n} {level.format(','.join([f'*a{n - 1}'] * 9))}" for n in range(1, 31)]
    path = tmp_path / "a.yaml"
    path.write_text("\n".join([*lines, "name: *a30", "landmarks: [{name: dot}]"]) + "\n")
    with pytest.raises(ValueError, match=r"a\.yaml: its aliases expand to more than 100000 values"):
        load_landmark_schema(path)


def test_yaml_with_aliases(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "name: a\nspatial_dims: 2\nlandmarks: [&a {name: a, group: g}, {<<: *a, name: b}]\ngroups: {g: '#ff0000'}\n"
    )
    assert load_landmark_schema(path).names == ["a", "b"]
    path.write_text("name: &a [*a]\n")
    with pytest.raises(ValueError, match="expand to more than"):
        load_landmark_schema(path)


def test_a_spacing_replaces_the_affine():
    schema = LandmarkSchema(
        "s", 2, (Landmark("a"), Landmark("b")), measurements=(Measurement("d", "distance(a, b)", "mm"),)
    )
    affine = torch.diag(torch.tensor([-0.5, -0.5, 1.0, 1.0]))
    points = MetaTensor(torch.tensor([[[0.0, 0.0], [100.0, 0.0]]]), affine=affine)
    for own in (
        schema.measure(points),
        schema.measure(points, spacing=0.5),
        schema.measure(points.as_tensor(), spacing=0.5),
    ):
        torch.testing.assert_close(torch.as_tensor(own["d"]).double(), torch.tensor([50.0]).double())
