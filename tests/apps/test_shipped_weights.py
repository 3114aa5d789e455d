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

"""From a fresh clone, with nothing trained: prediction by name, measurements, doubts and a report."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from markups_schema import MARKUPS_SCHEMA
from PIL import Image

from monai_landmarks.apps.main import program
from monai_landmarks.data import hand_phantom, read_landmark_table, write_landmark_table
from monai_landmarks.data.landmarks.landmark_set import LandmarkSet
from monai_landmarks.evaluation.bundle_facts import read_bundle_facts, resolve_bundle, shipped_bundles
from monai_landmarks.label.models import bundle_spatial_dims
from monai_landmarks.schema import load_landmark_schema

ROOT = Path(__file__).parents[2]
NAME = "hand_xray_landmarks_scn"
SHIPPED = sorted({path.parents[1] for path in ROOT.glob("bundles/*/models/pretrained*.pt")})


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """Three films of phantom hands, one of them upside down, predicted by a copy of the bundle in which nobody trained."""
    folder = tmp_path_factory.mktemp("shipped")
    bundle = folder / NAME
    shutil.copytree(
        ROOT / "bundles" / NAME, bundle, ignore=shutil.ignore_patterns("eval", "data", "model*.pt", "model_*")
    )
    (folder / "films").mkdir()
    sets = {}
    for name, seed in (("a", 11), ("b", 12), ("turned", 13)):
        pixels, points = phantom(seed)
        if name == "turned":
            pixels, points = pixels[::-1, ::-1], np.array(pixels.shape)[::-1] - 1 - points
        Image.fromarray(pixels).save(folder / "films" / f"{name}.png")
        sets[f"{name}.png"] = LandmarkSet(read_names(bundle), points, "index")
    write_landmark_table(folder / "truth.csv", sets)
    arguments = [
        str(bundle),
        str(folder / "films"),
        "--spacing",
        "0.92",
        "--out",
        str(folder / "out"),
        "--fail-on-doubt",
    ]
    result = CliRunner().invoke(program, ["predict", *arguments, "--device", "cpu"])
    return folder, result


def phantom(seed):
    """Pixels (y, x) of a film, and points (x, y)."""
    image, landmarks = hand_phantom(seed)
    return np.round(255 * image.T).astype(np.uint8), landmarks.points


def read_names(bundle):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    return tuple(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())


def test_predict_by_name_and_say_which_film_is_turned(predicted):
    folder, result = predicted
    assert result.exit_code == 2, result.output
    doubts = result.output[result.output.index("predictions in doubt") :]
    assert "predictions in doubt (1):" in doubts and "turned.png" in doubts and "a.png" not in doubts
    assert "turned by 180 degrees, the film is not in doubt" in doubts
    assert "not calibrated" not in result.output and "not examined" not in result.output
    found, true = (read_landmark_table(folder / path) for path in ("out/predictions.csv", "truth.csv"))
    for image, landmarks in found.items():
        errors = np.linalg.norm(landmarks.points - true[Path(image).name].points, axis=1)
        assert np.median(errors) < 2 or image.endswith("turned.png")
    rows = list(csv.DictReader((folder / "out" / "predictions_std.csv").open()))
    assert {Path(row["image"]).stem for row in rows if row["doubt"]} == {"turned"}
    scores = {(image, name): score for image, one in found.items() for name, score in zip(one.names, one.scores)}
    assert all(float(row["score"]) == pytest.approx(scores[row["image"], row["landmark"]], abs=1e-4) for row in rows)
    sure = [float(row["probability"]) for row in rows if not row["doubt"]]
    assert {row["within_mm"] for row in rows} == {"2.0000"} and 0.9 < np.mean(sure) < 1
    page = (folder / "out" / "report.html").read_text()
    assert "1 of 3 predictions are in doubt" in page and "within 2 mm" in page and "finger_2_length" in page
    assert page.index("<h3>turned</h3>") < page.index("<h3>a</h3>")
    assert sorted(path.name for path in (folder / "out" / "overlays").glob("overlay_01_*")) == ["overlay_01_turned.png"]


def test_measurements_and_their_lines(predicted):
    folder, _ = predicted
    rows = list(csv.DictReader((folder / "out" / "measurements.csv").open()))
    true = read_landmark_table(folder / "truth.csv")["a.png"].reorder(
        ["proximal_phalanx_2_base", "distal_phalanx_2_tip"]
    )
    length = 0.92 * np.linalg.norm(true.points[1] - true.points[0])
    (row,) = (row for row in rows if row["image"].endswith("a.png") and row["measurement"] == "finger_2_length")
    assert abs(float(row["value"]) - length) < 4 and float(row["low"]) < float(row["value"]) < float(row["high"])
    content = json.loads((folder / "out" / "a.mrk.json").read_text())
    jsonschema.validate(content, MARKUPS_SCHEMA)
    (line,) = (node for node in content["markups"] if node.get("name") == "finger_2_length")
    ends = np.array([point["position"] for point in line["controlPoints"]])
    assert line["type"] == "Line"
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(float(row["value"]), abs=1e-3)


def test_report(predicted):
    folder, _ = predicted
    arguments = [str(folder / "out"), str(folder / "truth.csv"), "--images", str(folder / "films"), "--spacing", "0.92"]
    options = ["--schema", "hand_37", "--cases", "1", "--resamples", "50", "--out", str(folder / "report.html")]
    result = CliRunner().invoke(program, ["report", *arguments, *options])
    assert result.exit_code == 0, result.output
    page = (folder / "report.html").read_text()
    assert "1 of 3 predictions are in doubt" in page and "Doubtful images" in page
    assert "Measurements of each image" in page and "Ellipses of 90 %" in page


@pytest.mark.parametrize("bundle", SHIPPED, ids=lambda path: path.name)
def test_every_bundle_predicts_by_name_and_doubts_noise(bundle, tmp_path):
    """Nothing but noise: files of every kind, in 2-D and 3-D, terms that are said once, and a doubt."""
    if read_bundle_facts(bundle).weights != "shipped":
        pytest.skip("somebody trained in this folder")
    dims = bundle_spatial_dims(bundle)
    voxel = json.loads((bundle / "configs" / "inference.json").read_text()).get("voxel_spacing", 1.0)
    image = write_noise(tmp_path, dims, voxel)
    spacing = ["--spacing", "1"] if dims == 2 else []  # the file of a volume states it
    arguments = [bundle.name, str(image), *spacing, "--out", str(tmp_path / "out"), "--fail-on-doubt"]
    result = CliRunner().invoke(program, ["predict", *arguments, "--device", "cpu"])
    assert result.exit_code == 2, result.output
    terms = read_bundle_facts(bundle).terms
    assert result.output.count(f"have their own terms: {terms}") == (terms != "Apache-2.0")
    for note in ("not calibrated", "not examined"):
        assert note not in result.output
    assert "noise" in (tmp_path / "out" / "report.html").read_text()
    table = tmp_path / "out" / "measurements.csv"
    schema = json.loads((bundle / "configs" / "metadata.json").read_text())["landmark_schema"]
    assert table.exists() == bool(load_landmark_schema(schema).measurements)
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    content = json.loads((tmp_path / "out" / "noise.mrk.json").read_text())
    jsonschema.validate(content, MARKUPS_SCHEMA)
    drawn = [node for node in content["markups"] if node["type"] in ("Line", "Angle")]
    measured = {row["measurement"]: row for row in rows if row["value"]}
    assert all(float(row["low"]) <= float(row["high"]) for row in rows if row["low"])
    assert {node["name"] for node in drawn} <= set(measured)
    names = Counter(node["name"] for node in drawn)
    for node in drawn:
        row, ends = measured[node["name"]], np.array([point["position"] for point in node["controlPoints"]])
        if names[node["name"]] == 1 and node["type"] == "Line" and row["unit"] == "mm":
            assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(abs(float(row["value"])), abs=1e-2)


def test_a_bundle_for_volumes_takes_no_spacing(tmp_path):
    write_noise(tmp_path, 3, 2.0)
    arguments = [
        "lumbar_mri_landmarks_scn",
        str(tmp_path / "noise.nii.gz"),
        "--spacing",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(program, ["predict", *arguments])
    assert result.exit_code == 1 and "takes no spacing, because it is for volumes" in result.output
    assert not (tmp_path / "out").exists()


def write_noise(folder, dims, voxel):
    random = np.random.default_rng(0)
    if dims == 2:
        Image.fromarray(random.integers(0, 255, (160, 120), dtype=np.uint8)).save(folder / "noise.png")
        return folder / "noise.png"
    noise = random.integers(0, 255, (40, 64, 64)).astype(np.uint8)
    nib.save(nib.Nifti1Image(noise, np.diag([voxel, voxel, voxel, 1.0])), folder / "noise.nii.gz")
    return folder / "noise.nii.gz"


def test_a_volume_from_a_clone(tmp_path):
    """3-D: a network that sees one bright spot, and finds the five vertebrae at known distances from it."""
    name, voxel = "lumbar_mri_landmarks_scn", 2.0
    bundle = tmp_path / name
    shutil.copytree(ROOT / "bundles" / name / "configs", bundle / "configs")
    path, offsets = bundle / "configs" / "inference.json", (12, 6, 0, -6, -12)
    network = {"in_channels": 1, "out_channels": 5, "kernel_size": [1, 1, 25], "padding": [0, 0, 12], "bias": False}
    changes = {"network_def": {"_target_": "torch.nn.Conv3d", **network}, "voxel_spacing": voxel}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes, "patch_size": [32, 32, 64]}))
    weight = torch.zeros(5, 1, 1, 1, 25)
    for channel, offset in enumerate(offsets):
        weight[channel, 0, 0, 0, 12 - offset] = 1.0
    (bundle / "models").mkdir()
    torch.save({"weight": weight}, bundle / "models" / "model.pt")
    place = np.array([14.0, 17.0, 30.0])
    distances = ((np.stack(np.meshgrid(*map(np.arange, (32, 32, 64)), indexing="ij"), axis=-1) - place) ** 2).sum(-1)
    affine = np.array([[-voxel, 0, 0, 9], [0, voxel, 0, -7], [0, 0, voxel, 5], [0, 0, 0, 1.0]])  # to RAS, x to the left
    (tmp_path / "volumes").mkdir()
    nib.save(nib.Nifti1Image((1000 * np.exp(-distances / 8)).astype(np.float32), affine), tmp_path / "volumes/a.nii.gz")
    out = tmp_path / "out"
    arguments = ["predict", str(bundle), str(tmp_path / "volumes"), "--out", str(out), "--device", "cpu"]
    result = CliRunner().invoke(program, arguments)
    assert result.exit_code == 0, result.output

    content = json.loads((out / "a.mrk.json").read_text())
    jsonschema.validate(content, MARKUPS_SCHEMA)
    points, line = content["markups"]
    true = (affine @ [*place, 1])[:3] + voxel * np.array(offsets)[:, None] * [0, 0, 1]
    found = np.array([point["position"] for point in points["controlPoints"]])
    found = found * ([-1, -1, 1] if points["coordinateSystem"] == "LPS" else [1, 1, 1])
    np.testing.assert_allclose(found, true, atol=0.3)
    (row,) = csv.DictReader((out / "measurements.csv").open())
    assert row["measurement"] == line["name"] == "lumbar_length" and line["type"] == "Line"
    ends = np.array([point["position"] for point in line["controlPoints"]])
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(float(row["value"]), abs=1e-3)
    low, value, high = (float(row[key]) for key in ("low", "value", "high"))
    assert low < value < high and value == pytest.approx(48, abs=0.3)
    page = (out / "report.html").read_text()
    assert "lumbar_length" in page and "data:image/png" in page


def test_models_lists_what_there_is():
    result = CliRunner().invoke(program, ["models"])
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.output.splitlines()}
    assert {"hand", "X-ray", "37"} <= set(lines[NAME].split()) and "CT" in lines["mouse_ct_landmarks_scn"]
    assert sorted(facts.name for facts in shipped_bundles()) == sorted(
        path.parent.name for path in (ROOT / "bundles").glob("*/configs")
    )
    assert resolve_bundle(NAME).name == NAME
    with pytest.raises(ValueError, match="no such folder and no bundle of this name.*hand_xray"):
        resolve_bundle("hand")


def test_weights_that_are_only_in_a_clone_are_named(tmp_path, monkeypatch):
    """As in an installation from the wheel."""
    bundle = tmp_path / "ceph_xray_landmarks_scn"
    shutil.copytree(ROOT / "bundles" / bundle.name / "configs", bundle / "configs")
    assert read_bundle_facts(bundle).elsewhere and read_bundle_facts(bundle).weights == "none"
    Image.new("L", (64, 64)).save(tmp_path / "film.png")
    result = CliRunner().invoke(
        program, ["predict", str(bundle), str(tmp_path / "film.png"), "--out", str(tmp_path / "o")]
    )
    assert result.exit_code == 1 and "A clone of the repository contains them" in result.output
    monkeypatch.setattr("monai_landmarks.evaluation.bundle_facts._shipped_folders", lambda: [bundle])
    listed = CliRunner().invoke(program, ["models"]).output
    assert "The weights of ceph_xray_landmarks_scn have their own terms. A clone" in listed


@pytest.mark.parametrize("bundle", SHIPPED, ids=lambda path: path.name)
def test_weights_are_small_numbers_with_card_and_terms(bundle):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    card, terms = (bundle / "models" / "README.md").read_text(), metadata["weights_terms"]
    in_wheel = f"{bundle.name}/models/pretrained*" in (ROOT / "setup.cfg").read_text()
    assert in_wheel == (terms == "Apache-2.0") == (not (bundle / "large_files.yml").exists())
    for weights in sorted((bundle / "models").glob("pretrained*.pt")):
        state = torch.load(weights, weights_only=True)
        assert weights.stat().st_size <= 16 * 2**20
        if not weights.stem.endswith("sigma"):
            assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
            assert (
                in_wheel or hashlib.sha256(weights.read_bytes()).hexdigest() in (bundle / "large_files.yml").read_text()
            )
    # card, metadata and list agree
    (line,) = (line for line in CliRunner().invoke(program, ["models"]).output.splitlines() if bundle.name in line)
    ((unit, error),) = ((key.removeprefix("mean_error_"), value) for key, value in metadata["eval_metrics"].items())
    assert error > 0 and f"mean {error:.2f} {unit}" in card and terms in card
    assert all(f"\n| {row} |" in card for row in ("data", "training", "seed", "error", "not tried on", "terms"))
    if read_bundle_facts(bundle).weights == "shipped":  # nobody trained in this folder
        assert f"{error:g} {unit}" in line and terms in line


def test_weights_are_small_altogether():
    assert sum(path.stat().st_size for path in ROOT.glob("bundles/*/models/pretrained*")) <= 60 * 2**20


def test_what_is_trained_comes_before_what_is_shipped(tmp_path):
    bundle = tmp_path / "b"
    (bundle / "models").mkdir(parents=True)
    shutil.copytree(ROOT / "bundles" / NAME / "configs", bundle / "configs")
    assert read_bundle_facts(bundle).weights == "none" and read_bundle_facts(bundle).error == ""
    (bundle / "models" / "pretrained.pt").touch()
    assert read_bundle_facts(bundle).weights == "shipped" and read_bundle_facts(bundle).terms == "Apache-2.0"
    (bundle / "models" / "model.pt").touch()
    assert read_bundle_facts(bundle).weights == "trained" and read_bundle_facts(bundle).terms == ""
