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

"""What a validation learns about the reliability of a model, and what a prediction does with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engines import NAMES, make_cases, make_evaluator
from monai.data import MetaTensor

from monai_landmarks.handlers import ReliabilityCopier, ReliabilitySaver, SafeCheckpointSaver
from monai_landmarks.transforms import CalibrateCovariancesd, ExamineLandmarksd, LandmarkProbabilityd
from monai_landmarks.uncertainty import (
    CovarianceCalibration,
    DoubtModel,
    ProbabilityModel,
    calibration_path,
    doubt_path,
)


def items(count, names=NAMES, seed=0):
    random = np.random.default_rng(seed)
    mean = np.random.default_rng(1).uniform(0, 60, (len(names), 2))
    return [
        {
            "image": f"{i}.png",
            "label": (mean + random.normal(0, 0.5, mean.shape)).tolist(),
            "label_names": list(names),
            "label_coordinate_system": "index",
            "spacing": [0.5, 2.0],
        }
        for i in range(count)
    ]


def run(tmp_path, cases=12, training=20, **options):
    saver = ReliabilitySaver(tmp_path / "models" / "model.pt", NAMES, items(training), **options)
    make_evaluator(make_cases(cases), [saver]).run()
    return tmp_path / "models" / "model.pt"


def test_files_beside_the_weights(tmp_path):
    weights = run(tmp_path)
    calibration = CovarianceCalibration.load(calibration_path(weights))
    assert calibration.names == tuple(NAMES) and calibration.cases == (12,) * len(NAMES)
    assert calibration.probability is not None and calibration.probability.radius == 2
    # case i has an error of i mm, and a variance of 0.25 mm^2: the largest errors are many standard deviations
    assert all(factor > 10 for factor in calibration.factors)
    model = DoubtModel.load(doubt_path(weights))
    assert model.shape is not None and model.shape.count == 20 and model.heatmaps is not None
    points = np.array(items(1, seed=5)[0]["label"]) * [-0.5, -2.0]  # RAS mm of a picture
    assert not model.examine(points, np.linspace(0.5, 0.9, len(NAMES)), np.tile(0.25 * np.eye(2), (len(NAMES), 1, 1)))


def test_old_files_of_other_weights_are_removed(tmp_path):
    weights = run(tmp_path)
    assert calibration_path(weights).is_file()
    run(tmp_path, cases=2)
    assert not calibration_path(weights).exists()
    assert DoubtModel.load(doubt_path(weights)).heatmaps is None
    run(tmp_path, cases=2, training=2)
    assert not doubt_path(weights).exists()


def test_new_weights_remove_what_belongs_to_old_ones(tmp_path):
    """As in a training on all images, which measures nothing."""
    weights = run(tmp_path)
    kept = weights.with_name("other_calibration.json")
    kept.write_text(calibration_path(weights).read_text())
    saver = SafeCheckpointSaver(
        str(weights.parent), {"model": torch.nn.Linear(1, 1)}, save_final=True, final_filename=weights.name
    )
    make_evaluator(make_cases(1), [saver]).run()
    assert sorted(path.name for path in weights.parent.iterdir()) == ["model.pt", kept.name]


def test_a_training_on_all_images_keeps_those_of_another(tmp_path):
    weights = run(tmp_path)
    before = [path(weights).read_text() for path in (calibration_path, doubt_path)]
    for name in ("model.pt", "other.pt"):  # replaced, or in addition
        saver = SafeCheckpointSaver(
            str(weights.parent), {"model": torch.nn.Linear(1, 1)}, save_final=True, final_filename=name
        )
        final = weights.with_name(name)
        make_evaluator(make_cases(1), [saver, ReliabilityCopier(final, weights)]).run()
        assert [path(final).read_text() for path in (calibration_path, doubt_path)] == before
    make_evaluator(make_cases(1), [ReliabilityCopier(tmp_path / "x.pt")]).run()
    assert not calibration_path(tmp_path / "x.pt").exists()
    with pytest.raises(ValueError, match="no x_calibration.json and no x_shape.json beside it"):
        ReliabilityCopier(weights, tmp_path / "x.pt")


def test_transforms(tmp_path):
    weights = tmp_path / "model.pt"
    item = {
        "pred_points": MetaTensor(torch.rand(1, 3, 2) * 100, affine=torch.eye(4)),
        "pred_scores": torch.ones(3),
        "pred_covariances": torch.eye(2).expand(3, 2, 2),
    }
    calibrate = {"keys": "pred_covariances", "weights": weights, "names": ["a", "b", "c"]}
    examine = {**calibrate, "keys": "pred_points"}
    for transform in (CalibrateCovariancesd(**calibrate), ExamineLandmarksd(**examine)):  # without files
        assert transform(item).keys() == item.keys()
        assert transform(item)["pred_covariances"] is item["pred_covariances"]
    CovarianceCalibration(("a", "b", "c"), (1.0, 4.0, 9.0), (40,) * 3, (False,) * 3).save(calibration_path(weights))
    found = CalibrateCovariancesd(**calibrate)(item)["pred_covariances"]
    assert found[:, 0, 0].tolist() == [1, 4, 9] and found[:, 0, 1].tolist() == [0, 0, 0]
    assert CalibrateCovariancesd(**calibrate, enabled=False)(item)["pred_covariances"] is item["pred_covariances"]
    DoubtModel(("a", "b", "c"), None).save(doubt_path(weights))
    assert not ExamineLandmarksd(**examine)(item)["pred_doubt"]
    probable = {**calibrate, "keys": "pred_scores"}
    assert "pred_probabilities" not in LandmarkProbabilityd(**probable)(item)  # the file has no model
    model = ProbabilityModel(("a", "b", "c"), 2.0, (0.0, 1.0, 0.0), np.tile([0.0, 1.0], (3, 1)))
    CovarianceCalibration(("a", "b", "c"), (1.0,) * 3, (40,) * 3, (False,) * 3, model).save(calibration_path(weights))
    found = LandmarkProbabilityd(**probable)(item)["pred_probabilities"]
    np.testing.assert_allclose(found.values, 1 - np.exp(-2))  # within two standard deviations
    assert "pred_probabilities" not in LandmarkProbabilityd(**probable, enabled=False)(item)
    for wrong in (CalibrateCovariancesd, ExamineLandmarksd, LandmarkProbabilityd):
        with pytest.raises(ValueError, match="other landmarks than the bundle"):
            wrong("pred_points", weights, ["a", "b", "x"])
