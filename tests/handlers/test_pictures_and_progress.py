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
"""Overlays, curve and progress of MONAI engines."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engines import Regressor, make_cases, make_evaluator, make_trainer
from ignite.engine import Engine, Events
from matplotlib.patches import Ellipse
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from monai.handlers import ValidationHandler

from monai_landmarks.handlers import OverlaySaver, ResumeTraining, TrainingCurve, TrainingProgress
from monai_landmarks.visualize import draw_views


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "select, expected", [("spread", ["case4", "case2", "case0"]), ("worst", ["case4", "case3", "case2"])]
)
def test_overlays(tmp_path, dims, select, expected):
    saver = OverlaySaver(tmp_path, num_images=3, select=select, covariance_key="pred_covariances")
    evaluator = make_evaluator(make_cases(dims=dims), [saver])
    evaluator.run(1)
    evaluator.run(2)
    names = [f"overlay_0{i + 1}_{name}.png" for i, name in enumerate(expected)]
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == sorted([*names, "overlays.png"])


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("again", [False, True], ids=["same handler", "new handler"])
def test_a_picture_of_another_origin_is_kept(tmp_path, caplog, again):
    """Pictures that the handler drew are replaced, also by a later run."""
    evaluator = make_evaluator(make_cases(), [OverlaySaver(tmp_path, num_images=2)])
    evaluator.run(1)
    (tmp_path / "overlays.png").write_text("painted")
    if again:
        evaluator = make_evaluator(make_cases(), [OverlaySaver(tmp_path, num_images=2)])
    evaluator.run(2)
    assert {path.name: path.read_text() for path in tmp_path.glob("*.bak*")} == {"overlays.png.bak": "painted"}
    assert f"copies are kept: {tmp_path / 'overlays.png.bak'}." in caplog.text
    caplog.clear()
    evaluator.run(3)
    assert len(list(tmp_path.glob("*.bak*"))) == 1 and ".bak" not in caplog.text


def test_overlays_lie_on_the_image(tmp_path, monkeypatch):
    """World points of the prediction and index points of the ground truth are both drawn in pixels of the image."""
    views = []
    monkeypatch.setattr("monai_landmarks.handlers.overlay_saver.draw_views", lambda v, *_: views.extend(v) or _Figure())
    cases = make_cases(2)
    saver = OverlaySaver(tmp_path, single=False, covariance_key="pred_covariances")
    make_evaluator(cases, [saver]).run(1)
    plane = next(view for view in views if view.title == "case1: 1.00 mm").planes[0]
    np.testing.assert_allclose(plane.truth, cases[1]["label"][0].numpy())
    offset = np.array([0.6, 0.8]) / -0.5  # mm to pixels
    np.testing.assert_allclose(plane.pred[:2], plane.truth[:2] + offset)
    np.testing.assert_allclose(plane.covariances, [np.eye(2)] * 3, atol=1e-12)  # 0.25 mm^2


def test_ellipses_are_those_of_the_world(tmp_path, monkeypatch):
    """Pixels of 0.4 x 1.5 mm in a turned image: the edge of a region in mm lies on the ellipse that is drawn in pixels."""
    figures = []

    def draw(*args):
        figures.append(draw_views(*args))
        return figures[-1]

    monkeypatch.setattr("monai_landmarks.handlers.overlay_saver.draw_views", draw)
    cosine, sine = np.cos(0.5), np.sin(0.5)
    affine = np.eye(4)
    affine[:2, :2] = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([-0.4, 1.5])
    affine[:2, 3] = 30.0, -8.0
    point, root = np.array([22.0, 1.0]), np.array([[1.2, 0.0], [-0.7, 0.3]])

    def predict(item):
        item["pred_points"] = MetaTensor(torch.as_tensor(point[None, None]), affine=torch.eye(4))
        item["pred_covariances"] = torch.as_tensor(root @ root.T)[None]
        return item

    image = MetaTensor(torch.rand(1, 30, 20), affine=torch.as_tensor(affine), meta={"filename_or_obj": "a.png"})
    case = {"image": image, "label": MetaTensor(torch.ones(1, 1, 2), affine=torch.as_tensor(affine))}
    saver = OverlaySaver(tmp_path, covariance_key="pred_covariances", single=False)
    make_evaluator([case], [saver], batch_size=1, postprocessing=predict).run(1)
    (ellipse,) = (patch for patch in figures[0].axes[0].patches if isinstance(patch, Ellipse))
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    edge = point + 2 * np.stack([np.cos(turn), np.sin(turn)], axis=1) @ root.T  # mm, two standard deviations
    pixels = np.linalg.solve(affine[:2, :2], (edge - affine[:2, 3]).T).T
    np.testing.assert_allclose(ellipse.center, np.linalg.solve(affine[:2, :2], point - affine[:2, 3]))
    radius = np.linalg.norm(ellipse.get_patch_transform().inverted().transform(pixels), axis=1)
    np.testing.assert_allclose(radius, 1)


class _Figure:
    def savefig(self, path):
        path.write_bytes(b"")


def test_a_missed_landmark_does_not_make_an_image_the_worst(tmp_path):
    """The other landmarks of the first case have no error."""

    def miss(engine):
        for item in engine.state.output:
            if item["image"].meta["filename_or_obj"].endswith("case0.png"):
                item["pred_points"][0, 0] = torch.inf

    evaluator = make_evaluator(make_cases(), [OverlaySaver(tmp_path, num_images=2, select="worst")])
    evaluator.add_event_handler(IterationEvents.MODEL_COMPLETED, miss)
    evaluator.run(1)
    names = {"overlays.png", "overlay_01_case4.png", "overlay_02_case3.png"}
    assert {path.name for path in tmp_path.glob("[!.]*")} == names


def test_overlays_without_truth(tmp_path):
    saver = OverlaySaver(tmp_path, num_images=2, label_key=None, single=False)
    make_evaluator(make_cases(), [saver]).run(1)
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["overlays.png"]
    with pytest.raises(ValueError, match="spread, worst, first"):
        OverlaySaver(tmp_path, select="best")


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def training(folder, max_epochs, stop_at=None, curve_first=True, progress=()):
    torch.manual_seed(0)
    network = Regressor()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    evaluator = make_evaluator(make_cases(), network=network)
    curve = TrainingCurve(folder / "curve.png", evaluator, seconds=1e-9 if curve_first else 60)
    handlers = [curve, ValidationHandler(1, evaluator)]
    resume = ResumeTraining({"model": network, "optimizer": optimizer}, folder, evaluator)
    handlers = [resume, *(handlers if curve_first else handlers[::-1]), *progress]
    trainer = make_trainer(make_cases(), network, optimizer, max_epochs, handlers)
    if stop_at is not None:
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: engine.terminate() if engine.state.iteration == stop_at else None
        )
    return trainer, evaluator


@pytest.mark.parametrize("curve_first", [True, False])
def test_curve_goes_on_after_resuming(tmp_path, curve_first):
    losses = {}

    def collect(engine):
        losses.setdefault(engine.state.epoch, []).append(float(engine.state.output[0]["loss"]))

    for max_epochs, stop_at in ((5, 8), (5, None)):  # three iterations per epoch: stopped in the third epoch
        trainer, _ = training(tmp_path, max_epochs, stop_at, curve_first)
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: losses.pop(engine.state.epoch, None))
        trainer.add_event_handler(Events.ITERATION_COMPLETED, collect)
        trainer.run()
    rows = read(tmp_path / "curve.csv")
    assert [(float(row["epoch"]), int(row["iteration"])) for row in rows] == [(e, 3 * e) for e in range(1, 6)]
    for row in rows:
        assert float(row["loss"]) == pytest.approx(np.mean(losses[float(row["epoch"])]), rel=1e-4)
        assert float(row["metric"]) == pytest.approx(29 / 14, rel=1e-4)
    assert (tmp_path / "curve.png").stat().st_size > 1000


@pytest.mark.usefixtures("unpainted")
def test_a_new_training_starts_a_new_curve(tmp_path):
    training(tmp_path, 2, curve_first=False)[0].run()
    (tmp_path / "training_state.pt").unlink()
    training(tmp_path, 1, curve_first=False)[0].run()
    assert len(read(tmp_path / "curve.csv")) == 1


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize(
    "output, loss",
    [
        (0.5, 0.5),
        ({"loss": torch.tensor([1.0, 2.0])}, 1.5),
        ([{"loss": 3}, {"loss": 3}], 3.0),
        ({"pred": 1.0}, None),
        ("no loss", None),
        ([], None),
    ],
)
def test_curve_of_a_training_without_validation(tmp_path, output, loss):
    trainer = Engine(lambda engine, batch: output)
    TrainingCurve(tmp_path / "curve.png").attach(trainer)
    trainer.run([0, 1], max_epochs=2)
    rows = [{key: row[key] for key in ("epoch", "loss", "metric")} for row in read(tmp_path / "curve.csv")]
    text = "" if loss is None else f"{loss:g}"
    assert rows == [{"epoch": str(epoch), "loss": text, "metric": ""} for epoch in (1, 2)]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.usefixtures("unpainted")
def test_progress_lines(tmp_path):
    stream = io.StringIO()
    trainer, evaluator = training(tmp_path, 2, curve_first=False)
    TrainingProgress(evaluator, stream=stream, seconds=0).attach(trainer)
    trainer.run()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("training: iteration 1/6 (17 %), epoch 1/2, loss ") and "left" in lines[0]
    assert "val_mre 2.071" in lines[3] and "left" not in lines[-1]
    stream = io.StringIO()
    trainer, evaluator = training(tmp_path, 4, curve_first=False)  # resumed
    TrainingProgress(evaluator, stream=stream, seconds=0).attach(trainer)
    trainer.run()
    assert stream.getvalue().startswith("training: iteration 7/12 (58 %), epoch 3/4")


@pytest.mark.usefixtures("unpainted")
def test_progress_bar(tmp_path):
    stream = Terminal()
    trainer, evaluator = training(tmp_path, 2, curve_first=False)
    TrainingProgress(evaluator, stream=stream).attach(trainer)
    trainer.run()
    last = stream.getvalue().rstrip().split("\r")[-1]
    assert "100%" in last and "6/6" in last and "val_mre 2.071" in last and "left" in last


def test_loss_is_smoothed_and_time_left_counts_from_the_resumption(monkeypatch):
    """Ten seconds per iteration; the training is resumed after iteration 4 of 10."""
    now, losses = [0.0], iter([2.0, 4.0, 0.0, 0.0, 0.0, 0.0])
    monkeypatch.setattr("monai_landmarks.handlers.training_progress.time", SimpleNamespace(monotonic=lambda: now[0]))

    def step(engine, batch):
        now[0] += 10.0
        return {"loss": next(losses)}

    stream, trainer = io.StringIO(), Engine(step)
    TrainingProgress(stream=stream, seconds=0).attach(trainer)
    trainer.load_state_dict({"epoch": 2, "epoch_length": 2, "max_epochs": 5})
    trainer.run([0, 1])
    lines = stream.getvalue().splitlines()
    # 2, then 0.95 * 2 + 0.05 * 4, then 0.95 of it
    assert ["loss 2," in lines[0], "loss 2.1," in lines[1], "loss 1.995," in lines[2]] == [True] * 3
    assert lines[0].endswith("0:10 elapsed, about 0:50 left") and "iteration 5/10 (50 %)" in lines[0]
    assert lines[1].endswith("0:20 elapsed, about 0:40 left") and lines[4].endswith("0:50 elapsed, about 0:10 left")
    assert lines[-1].endswith("1:00 elapsed")


def test_progress_of_an_evaluation(monkeypatch):
    monkeypatch.setattr("monai_landmarks.handlers.training_progress.time", SimpleNamespace(monotonic=lambda: 0.0))
    stream = io.StringIO()
    evaluator = make_evaluator(make_cases(), [TrainingProgress(stream=stream, seconds=0, desc="evaluation")])
    evaluator.run(1)
    assert stream.getvalue().splitlines()[0].startswith("evaluation: iteration 1/3 (33 %), 0:00 elapsed")
