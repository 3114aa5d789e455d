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

"""Prediction of many images: stopped and continued, divided, with images that fail, in memory that does not grow."""

from __future__ import annotations

import csv
import gc
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from ignite.engine import Events
from spot_bundles import NETWORK, change, spot, spot_bundle
from warm_python import COPIED_WORKERS, WarmPython

import monai_landmarks
from monai_landmarks.apps.main import program
from monai_landmarks.data import LandmarkSet, atomic_write, read_landmark_table
from monai_landmarks.evaluation import bundle_prediction, cohort_prediction, predict_landmarks
from monai_landmarks.evaluation.prediction_records import ImageFile, PredictionRecords, RecordedPredictions, file_stamp
from monai_landmarks.handlers import SavedPrediction
from monai_landmarks.uncertainty import Doubt, LandmarkProbabilities

PROGRAM = Path(monai_landmarks.__file__).with_name("__main__.py")
COUNT = 7
OPTIONS = {"device": "cpu", "batch_size": 1, "workers": 0}
ARGUMENTS = ["--device", "cpu", "--batch-size", 1, "--workers", 1]
KILL = (
    "$type('Kill', (), {'attach': lambda self, engine: engine.add_event_handler("
    "__import__('ignite.engine').engine.Events.ITERATION_COMPLETED, lambda engine: __import__('os').kill("
    "__import__('os').getpid(), 9) if engine.state.iteration == 4 else None)})()"
)


class Picky(torch.nn.Conv2d):
    """The network of a spot bundle. It fails at an image without a spot."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if (image.std(dim=(1, 2, 3)) == 0).any():
            raise RuntimeError("too dark for this network")
        return super().forward(image)


class Census:
    """Count the living tensors, landmark sets and predictions after the fifth and the last image."""

    counts: list[int] = []

    def attach(self, engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.count)

    def count(self, engine) -> None:
        if engine.state.iteration not in (5, 14):
            return
        gc.collect()
        kinds = (torch.Tensor, LandmarkSet, SavedPrediction)
        self.counts.append(sum(issubclass(type(one), kinds) for one in gc.get_objects()))


def write_images(folder: Path, count: int = COUNT) -> Path:
    folder.mkdir()
    for i in range(count):
        spot((90, 120), (20.3 + 5 * i, 70.6)).save(folder / f"{i:02d}.png")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files except the records."""
    files = (path for path in folder.rglob("[!.]*") if path.is_file() and path.parent.name != "progress")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def same_files(one: Path, other: Path) -> None:
    found, expected = contents(one), contents(other)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a bundle, images, of which one is damaged, and the output of an undisturbed prediction."""
    folder = tmp_path_factory.mktemp("whole")
    root, images = spot_bundle(folder), write_images(folder / "images")
    (images / "03.png").write_bytes((images / "02.png").read_bytes()[:-60])
    result = predict_landmarks(root, images, folder / "out", **OPTIONS)
    assert [Path(image).name for image, _ in result.unreadable] == ["03.png"] and not result.unfinished
    names = {path.name for path in (folder / "out").glob("[!.]*")}
    tables = {"predictions.csv", "predictions_std.csv", "measurements.csv", "failed.csv", "report.html", "overlays"}
    assert names == {*(f"{i:02d}.mrk.json" for i in (0, 1, 2, 4, 5, 6)), *tables, "progress"}
    with (folder / "out" / "failed.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == [str(images / "03.png")]
    return root, images, folder / "out"


def test_a_killed_prediction_goes_on(whole, tmp_path):
    root, images, expected = whole
    handlers = json.loads((root / "configs" / "inference.json").read_text())["handlers"]
    (tmp_path / "kill.json").write_text(json.dumps({"handlers": [*handlers, KILL]}))
    out, command = tmp_path / "out", ["-m", "monai_landmarks", "predict", root, images, "--out", tmp_path / "out"]
    killed = WarmPython([*command, *ARGUMENTS, "--config", tmp_path / "kill.json"], tmp_path, tmp_path / "killed.txt")
    assert killed.wait(300) == -signal.SIGKILL, killed.output.read_text()
    assert len(list(out.glob("*.mrk.json"))) == 4 and not (out / "predictions.csv").exists()
    records = out / "progress" / "part_1_of_1.jsonl"
    records.write_bytes(records.read_bytes()[:-100])  # as if it had been killed while it wrote the last line
    done = {path: path.stat().st_mtime_ns for path in out.glob("*.mrk.json")}
    finished = CliRunner().invoke(program, [*map(str, [*command[2:], *ARGUMENTS])])
    assert finished.exit_code == 1 and "images that cannot be predicted (1):" in finished.stderr
    assert "note: 3 of 7 images were done before." in finished.stderr
    assert [path.stat().st_mtime_ns == time for path, time in sorted(done.items())] == [True, True, True, False]
    same_files(out, expected)


def test_two_parts_are_one(whole, tmp_path):
    root, images, expected = whole
    first = predict_landmarks(root, images, tmp_path / "out", **OPTIONS, part=(1, 2))
    assert first.unfinished == 3 and not (tmp_path / "out" / "predictions.csv").exists()
    assert first.notes[-1].startswith("3 of 7 images are not predicted yet")
    second = predict_landmarks(root, images, tmp_path / "out", **OPTIONS, part=(2, 2))
    assert not second.unfinished and len(second.unreadable) == 1
    same_files(tmp_path / "out", expected)
    with pytest.raises(ValueError, match="part is 3/2"):
        predict_landmarks(root, images, tmp_path / "out", **OPTIONS, part=(3, 2))


def test_the_processes_of_torchrun_are_one(whole, tmp_path):
    root, images, expected = whole
    command = ["-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", 0]
    command += [*COPIED_WORKERS, PROGRAM, "predict", root, images, "--out", tmp_path / "out", *ARGUMENTS]
    process = WarmPython(command, tmp_path, tmp_path / "printed.txt", {"OMP_NUM_THREADS": "1"})
    try:
        code = process.wait(300)
    finally:
        process.kill()
    printed = process.output.read_text()
    assert code == 1 and "images that cannot be predicted (1):" in printed, printed
    assert len(list((tmp_path / "out" / "progress").glob("*.jsonl"))) == 2
    same_files(tmp_path / "out", expected)


def test_the_same_command_again_does_what_is_new_or_lost(tmp_path):
    root, images, out = spot_bundle(tmp_path), write_images(tmp_path / "images", 4), tmp_path / "out"
    predict_landmarks(root, images, out, **OPTIONS)
    (out / "00.mrk.json").write_text("corrected in 3D Slicer")
    before = contents(out)
    (out / "01.mrk.json").unlink()
    spot((90, 120), (60.0, 20.0)).save(images / "02.png")  # another image
    spot((90, 120), (30.0, 20.0)).save(images / "09.png")
    result = predict_landmarks(root, images, out, **OPTIONS)
    assert "3 of 5 images were done before." in result.notes
    after = contents(out)
    assert [name for name in ("00", "01", "03") if after[f"{name}.mrk.json"] != before[f"{name}.mrk.json"]] == []
    table = read_landmark_table(out / "predictions.csv")
    assert [Path(image).name for image in table] == ["00.png", "01.png", "02.png", "03.png", "09.png"]
    np.testing.assert_allclose(table[str(images / "02.png")].points[0], (60, 20), atol=0.2)
    again = predict_landmarks(root, images, out, **OPTIONS, force=True)
    assert not any("before" in note for note in again.notes) and contents(out)["00.mrk.json"] != before["00.mrk.json"]
    assert (out / "00.mrk.json.bak").read_text() == "corrected in 3D Slicer"


def test_a_file_whose_name_changed_does_not_stay(tmp_path):
    """Another image of the same name is added in another folder."""
    root, images, out = spot_bundle(tmp_path), tmp_path / "images", tmp_path / "out"

    def add(name: str) -> None:
        (images / name).parent.mkdir(parents=True)
        spot((90, 120), (40.0, 20.0)).save(images / name)

    add("sub-01/film.png")
    predict_landmarks(root, images, out, **OPTIONS)
    assert [path.name for path in out.glob("*.mrk.json")] == ["film.mrk.json"]
    add("sub-02/film.png")
    (out / "film.mrk.json").write_text("corrected")
    for _ in range(2):
        predict_landmarks(root, images, out, **OPTIONS)
        assert {path.name for path in out.glob("*.mrk.json*")} == {
            "sub-01_film.mrk.json",
            "sub-02_film.mrk.json",
            "film.mrk.json.bak",
        }
    assert (out / "film.mrk.json.bak").read_text() == "corrected"


def test_files_of_other_origin_are_not_lost(tmp_path):
    root, images, out = spot_bundle(tmp_path), write_images(tmp_path / "images", 3), tmp_path / "out"
    out.mkdir()
    own = {
        "00.mrk.json": "an annotation",
        "predictions.csv": "a table",
        "failed.csv": "a list",
        "report.html": "a page",
    }
    for name, text in own.items():
        (out / name).write_text(text)

    def copies() -> dict[str, str]:
        return {path.name: path.read_text() for path in out.rglob("*.bak*")}

    kept = {f"{name}.bak": text for name, text in own.items()}
    first = predict_landmarks(root, images, out, **OPTIONS, part=(1, 2))
    assert "files that this program did not write, or that were changed since, were replaced; copies are kept" in str(
        first.notes
    )
    second = predict_landmarks(root, images, out, **OPTIONS, part=(2, 2))
    assert copies() == kept and str(out / "predictions.csv.bak") in second.notes[-1]
    assert out / "predictions.csv" in second.written and out / "predictions.csv.bak" not in second.written
    # what this program wrote is replaced without copies: other images, other options, another part
    spot((90, 120), (60.0, 20.0)).save(images / "01.png")
    predict_landmarks(root, images, out, **OPTIONS)
    again = predict_landmarks(root, images, out, **OPTIONS, spacing=0.5)
    assert copies() == kept and not any("copies are kept" in note for note in again.notes)
    (out / "00.mrk.json").write_text("corrected")
    (out / "overlays" / "overlay_01_00.png").write_text("painted")
    predict_landmarks(root, images, out, **OPTIONS, force=True)
    assert copies() == {**kept, "00.mrk.json.bak2": "corrected", "overlay_01_00.png.bak": "painted"}


def test_a_folder_keeps_the_predictions_of_its_images(tmp_path):
    """Tables, report and files always belong together."""
    root, images, out = spot_bundle(tmp_path), write_images(tmp_path / "images", 3), tmp_path / "out"
    others = write_images(tmp_path / "others", 1)  # another image of the same name
    predict_landmarks(root, images / "00.png", out, **OPTIONS)
    before = contents(out)
    refused = [(others, {})]
    refused += [(images / "01.png", options) for options in ({"force": True}, {"spacing": 0.5})]
    for wrong, options in refused:
        with pytest.raises(ValueError, match="other images .*00.png.*give another output folder") as error:
            predict_landmarks(root, wrong, out, **OPTIONS, **options)
        assert str(out) in str(error.value) and contents(out) == before
    # one after the other is the same as all in one call
    for name in ("01.png", "02.png"):
        notes = predict_landmarks(root, images / name, out, **OPTIONS).notes
    assert any(note.startswith("tables and report also have 2 images that were predicted before") for note in notes)
    together = tmp_path / "together"
    predict_landmarks(root, images, together, **OPTIONS)
    for table in ("predictions.csv", "predictions_std.csv"):
        assert (out / table).read_text() == (together / table).read_text()
    # an image that has changed since, and is not predicted again
    (images / "00.png").touch()
    with pytest.raises(ValueError, match="other images .*00.png"):
        predict_landmarks(root, images / "01.png", out, **OPTIONS)
    predict_landmarks(root, images, out, **OPTIONS)
    # moved images and removed ones
    images.rename(tmp_path / "moved")
    moved = predict_landmarks(root, tmp_path / "moved", out, **OPTIONS)
    assert "3 of 3 images were done before." in moved.notes and not any("anymore" in note for note in moved.notes)
    (tmp_path / "moved" / "01.png").unlink()
    fewer = predict_landmarks(root, tmp_path / "moved", out, **OPTIONS)
    assert any(note.startswith("1 images that were predicted before do not exist anymore") for note in fewer.notes)
    assert [Path(image).name for image in read_landmark_table(out / "predictions.csv")] == ["00.png", "02.png"]


def test_other_weights_or_options_are_noticed(tmp_path):
    root, images, out = spot_bundle(tmp_path), write_images(tmp_path / "images", 2), tmp_path / "out"
    predict_landmarks(root, images, out, **OPTIONS)
    weights = torch.load(root / "models" / "model.pt", weights_only=True)
    torch.save({key: 2 * value for key, value in weights.items()}, root / "models" / "model.pt")
    before = contents(out)
    result = predict_landmarks(root, images, out, **OPTIONS, spacing=0.5)
    assert any(note.startswith("weights, spacing changed since the last prediction") for note in result.notes)
    assert contents(out)["01.mrk.json"] != before["01.mrk.json"]
    part = predict_landmarks(root, images, out, **OPTIONS, part=(1, 2))  # without the spacing
    assert part.unfinished == 1 and any("part_1_of_1.jsonl was made with other" in note for note in part.notes)


def test_no_file_of_other_weights_or_another_image_stays(tmp_path):
    """`evaluate` would read it in place of the new ones."""
    root, images, out = spot_bundle(tmp_path), write_images(tmp_path / "images", 3), tmp_path / "out"
    out.mkdir()
    (out / "02.fcsv").write_text("an annotation")
    (out / "02.csv").write_text("a table of other origin")
    predict_landmarks(root, images, out, **OPTIONS)
    names = {f"0{k}.mrk.json" for k in range(3)}
    assert {path.name for path in out.glob("0?.*")} == {*names, "02.csv", "02.fcsv"}
    (out / "00.mrk.json").write_text("corrected")
    weights = torch.load(root / "models" / "model.pt", weights_only=True)
    torch.save({key: 2 * value for key, value in weights.items()}, root / "models" / "model.pt")
    (images / "01.png").write_bytes(b"no picture")
    result = predict_landmarks(root, images, out, **OPTIONS, formats=("csv",))
    assert [Path(image.image).name for image in result.unreadable] == ["01.png"]
    assert {path.name for path in out.glob("0?.*")} == {"00.mrk.json.bak", "02.fcsv.bak", "02.csv"}


def test_an_image_at_which_the_network_fails_is_named(tmp_path, monkeypatch):
    root, images, out = spot_bundle(tmp_path), write_images(tmp_path / "images", 5), tmp_path / "out"
    change(root, network_def={**NETWORK, "_target_": f"{__name__}.Picky"})
    spot((90, 120), (-900, -900)).save(images / "01.png")
    result = predict_landmarks(root, images, out, device="cpu", batch_size=3)
    assert [(Path(image).name, reason) for image, reason in result.unreadable] == [
        ("01.png", "too dark for this network")
    ]
    assert [Path(image).name for image in read_landmark_table(out / "predictions.csv")] == [
        f"0{i}.png" for i in (0, 2, 3, 4)
    ]
    # failures one after the other end it; the next call begins with other images
    for i in (0, 2):
        spot((90, 120), (-900, -900)).save(images / f"0{i}.png")
    monkeypatch.setattr(cohort_prediction, "_MOST_FAILURES", 2)
    with pytest.raises(RuntimeError, match="too dark"):
        predict_landmarks(root, images, out, **OPTIONS, force=True)
    result = predict_landmarks(root, images, tmp_path / "out", device="cpu", batch_size=1)
    assert len(result.unreadable) == 3 and len(read_landmark_table(out / "predictions.csv")) == 2


def test_memory_does_not_grow(tmp_path, monkeypatch):
    root, images = spot_bundle(tmp_path), write_images(tmp_path / "images", 14)
    config = json.loads((root / "configs" / "inference.json").read_text())
    change(root, handlers=[*config["handlers"], {"_target_": f"{__name__}.Census"}])
    monkeypatch.setattr(Census, "counts", [])
    predict_landmarks(root, images, tmp_path / "out", **OPTIONS)
    early, late = Census.counts
    assert late <= early


def make_prediction(dims: int) -> SavedPrediction:
    points = np.random.default_rng(0).normal(size=(3, dims))
    points[1] = np.nan
    matrices = np.tile(np.eye(dims) / 3, (3, 1, 1))
    landmarks = LandmarkSet(
        ("a", "b", "c"), points, "RAS", image="/d/x.png", scores=np.float32([0.1, np.nan, 2]), covariances=matrices,
        regions=2 * matrices, coverage=0.9,
    )  # fmt: skip
    doubt = Doubt(("upside down",), {2: "far away"})
    return SavedPrediction(
        "/d/x.png", "x", landmarks, np.eye(4) / 7, 0.1, doubt, LandmarkProbabilities(np.array([0.5, np.nan, 1 / 3]), 2)
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_a_record_has_all_of_a_prediction(dims, tmp_path):
    image, prediction = ImageFile("x.png", "/d/x.png", "x", "7-1"), make_prediction(dims)
    records = PredictionRecords(tmp_path, {"weights": "1"}, ("a", "b", "c"), (2, 3))
    rows = [{"measurement": "ANB", "value": np.float32(0.5), "class": "I"}]
    records.add(image, prediction, "mirrored", rows)
    records.add_failure(image._replace(key="y.png", path="/d/y.png"), "damaged")
    records.close()
    for part in ((2, 3), (1, 1)):
        found = PredictionRecords(tmp_path, {"weights": "1"}, ("a", "b", "c"), part)
        predictions, failed = found.results([image, image._replace(key="y.png", path="/d/y.png")])
        [one] = predictions
        assert (one.image, one.name, one.landmarks, one.plane, one.doubt) == (
            "/d/x.png", "x", prediction.landmarks, 0.1, prediction.doubt,
        )  # fmt: skip
        np.testing.assert_array_equal(one.affine, prediction.affine)
        np.testing.assert_array_equal(one.probabilities.values, prediction.probabilities.values)
        assert one.probabilities.radius == 2 and predictions.rows(0) == rows
        assert list(predictions.doubts()) == [("/d/x.png", "upside down", "mirrored")]
        assert failed == (("/d/y.png", "damaged"),)
        assert not found.is_done(image._replace(stamp="7-2"))  # the image has changed
    other = PredictionRecords(tmp_path, {"weights": "2"}, ("a", "b", "c"), (2, 3))
    assert other.changed == ["weights"] and not other.is_done(image)
    assert isinstance(predictions[:1], RecordedPredictions)


@pytest.mark.parametrize("header", ["ElementDataFile = scan.raw\r\n", "data file: ./scan.raw\n\n"])
def test_other_voxels_of_the_same_header_are_noticed(tmp_path, header):
    image = tmp_path / ("scan.mhd" if "Element" in header else "scan.nhdr")
    image.write_bytes(b"NDims = 3\n" + header.encode())
    (tmp_path / "scan.raw").write_bytes(bytes(8))
    (tmp_path / "scan.mrk.json").touch()
    before = file_stamp(image)
    (tmp_path / "scan.mrk.json").write_text("landmarks, not voxels")
    assert before and file_stamp(image) == before
    (tmp_path / "scan.raw").write_bytes(bytes(9))
    assert file_stamp(image) != before
    image.write_bytes(header.replace("scan.raw", "LOCAL").encode())
    assert file_stamp(image)
    assert file_stamp(tmp_path / "gone.mhd") == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of files on Windows")
def test_two_processes_do_not_write_the_same_part(tmp_path):
    image = ImageFile("x.png", "/d/x.png", "x", "7-1")
    records = PredictionRecords(tmp_path, {}, ("a",))
    records.add_failure(image, "damaged")
    child = os.fork()
    if child == 0:  # pragma: no cover  # another process
        try:
            PredictionRecords(tmp_path, {}, ("a",)).add_failure(image, "damaged")
        except ValueError as error:
            os._exit(7 if "another process is predicting" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    records.close()
    PredictionRecords(tmp_path, {}, ("a",)).add_failure(image, "damaged")
    assert len((tmp_path / "part_1_of_1.jsonl").read_text().splitlines()) == 3


def test_files_that_another_process_is_writing_are_not_listed(tmp_path):
    with atomic_write(tmp_path / "out" / "a.mrk.json") as temporary:
        temporary.write_text("half")
        assert os.listdir(tmp_path / "out") != [] and bundle_prediction._snapshot(tmp_path) == {}
    assert list(bundle_prediction._snapshot(tmp_path)) == [str(tmp_path / "out" / "a.mrk.json")]
