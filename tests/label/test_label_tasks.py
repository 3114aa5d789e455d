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

"""The datastore and the tasks of the MONAI Label app, without a server."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from label_data import NAMES, SHAPES, oblique, random_points, write_bundle_of_spots, write_image

from monai_landmarks.data import LandmarkSet, read_item_landmarks, write_landmarks
from monai_landmarks.label import tasks
from monai_landmarks.label.datastore import LandmarkDatastore
from monai_landmarks.label.models import find_models
from monai_landmarks.label.tasks import (
    LandmarkBatchInfer,
    LandmarkInfer,
    LandmarkScoring,
    LandmarkStrategy,
    LandmarkTrain,
)
from monai_landmarks.networks.nets import CloseLookNet

pytest.importorskip("monailabel", reason="MONAI Label is not installed; ./setup.sh label installs it")
from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

POINTS = random_points(np.random.default_rng(1), SHAPES[3])
MODELS = {"spots": NAMES}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle_of_spots(tmp_path_factory.mktemp("bundle") / "spots")


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    write_image(tmp_path / "studies" / "one.nii.gz", POINTS)
    write_image(tmp_path / "studies" / "two.nii.gz", POINTS)
    write_image(tmp_path / "studies" / "scan.v2.png.PNG", POINTS[:, :2])
    return tmp_path / "studies"


def store(studies: Path) -> LandmarkDatastore:
    return LandmarkDatastore(studies, lambda: MODELS)


def label(path: Path, names: tuple[str, ...] = NAMES) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_landmarks(path, LandmarkSet(NAMES, POINTS, "index").to_world(oblique()).to("LPS").reorder(names))
    return str(path)


def test_two_processes_lose_nothing(studies: Path, tmp_path: Path) -> None:
    server, task = store(studies), store(studies)
    server.save_label("one", label(tmp_path / "a.mrk.json"), "final", {"by": "ann"})
    task.update_image_info("two", {"landmark_uncertainty": {"m": {"mm": 1.0}}})  # the task has not read the label
    server.update_image_info("one", {"strategy": {}})
    for again in (store(studies), server, task):
        again.reload()
        assert again.status()["label_tags"] == {"final": 1} and again.get_label_info("one", "final")["by"] == "ann"
        assert again.get_image_info("two")["landmark_uncertainty"] == {"m": {"mm": 1.0}}
    assert issubclass(LandmarkDatastore, LocalDatastore)
    assert not [file for file in studies.iterdir() if file.name.endswith(".json") and file.name != "datastore_v2.json"]


def test_images_and_labels_by_name(studies: Path, tmp_path: Path) -> None:
    label(studies / "labels" / "final" / "two.mrk.json")  # put there by hand
    label(studies / "labels" / "final" / "nobody.mrk.json")
    found = LandmarkDatastore(studies, lambda: MODELS, auto_reload=True)  # as in the server
    assert sorted(found.list_images()) == ["one", "scan.v2.png", "two"] and found.get_labeled_images() == ["two"]
    path = tmp_path / "b.v1.fcsv"
    label(path)
    found.save_label("two", str(path), "final", {})
    assert sorted(file.name for file in (studies / "labels" / "final").iterdir()) == ["nobody.mrk.json", "two.fcsv"]
    found.remove_label("two", "final")
    assert found.get_labeled_images() == [] and store(studies).get_labeled_images() == []
    with pytest.raises(HTTPException, match="no image 'three'"):
        found.save_label("three", str(path), "final", {})
    with pytest.raises(HTTPException, match="is not an image; use a file of type"):
        found.add_image("three", str(path), {})


def test_nothing_outside_the_folder_is_an_image_or_written(
    studies: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "outside").mkdir()
    secret = write_image(tmp_path / "outside" / "secret.nii.gz", POINTS)
    (studies / "labels").mkdir()
    (studies / "labels" / "linked").symlink_to(tmp_path / "outside")
    (studies / "new.nii.gz").symlink_to(tmp_path / "outside" / "new.nii.gz")
    write_image(studies / "line\nbreak.png", POINTS[:, :2])
    found = store(studies)
    assert sorted(found.list_images()) == ["one", "scan.v2.png", "two"]
    assert "break.png is left out: image 'line\\nbreak' " in caplog.text
    file = label(tmp_path / "a.mrk.json")
    for message, status, write in (
        ("leads out of the folder", 403, lambda: found.save_label("one", file, "linked", {})),
        ("leads out of the folder", 403, lambda: found.add_image("new", str(secret), {})),
        ("^400: tag '../x'", 400, lambda: found.save_label("one", file, "../x", {})),
        ("^400: image '../x'", 400, lambda: found.add_image("../x", str(secret), {})),
    ):
        with pytest.raises(HTTPException, match=message) as caught:
            write()
        assert caught.value.status_code == status
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["secret.nii.gz"]
    (studies / "one.nii.gz").unlink()
    (studies / "one.nii.gz").symlink_to(secret)  # an image that was known
    found.refresh()
    for again in (found, store(studies)):
        assert sorted(again.list_images()) == ["scan.v2.png", "two"]


def test_an_image_is_not_replaced_by_another_one(studies: Path, tmp_path: Path) -> None:
    found, before = store(studies), (studies / "one.nii.gz").read_bytes()
    found.save_label("one", label(tmp_path / "a.mrk.json"), "final", {"client_id": "ann"})
    (tmp_path / "other").mkdir()
    volume = write_image(tmp_path / "other" / "one.nii.gz", POINTS + 1)
    for image in (volume, write_image(tmp_path / "other" / "one.jpg", POINTS[:, :2])):
        with pytest.raises(HTTPException, match="there is another image 'one', the file one.nii.gz") as caught:
            found.add_image("one", str(image), {})
        assert caught.value.status_code == 409
    write_image(studies / "late.png", POINTS[:, :2])  # put there by hand, and not seen yet
    with pytest.raises(HTTPException, match="there is another image 'late'"):
        found.add_image("late", str(volume), {})
    volume.write_bytes(before)
    assert found.add_image("one", str(volume), {"from": "ann"}) == "one"  # 3D Slicer may send an image again
    assert found.get_image_info("one")["from"] == "ann" and found.get_label_info("one", "final")["client_id"] == "ann"
    assert (studies / "one.nii.gz").read_bytes() == before and not (studies / "one.jpg").exists()


def test_two_files_of_one_id(studies: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = store(studies)
    for name in ("one.jpg", "new.png", "new.bmp"):
        write_image(studies / name, POINTS[:, :2])
    for _ in range(2):
        found.refresh()
    assert found.get_image_uri("one") == str(studies / "one.nii.gz") and len(found.list_images()) == 4
    assert found.get_image_uri("new") == str(studies / "new.bmp")
    assert caplog.text.count("is left out") == 2
    for left_out, used in (("one.jpg", "one.nii.gz"), ("new.png", "new.bmp")):
        assert f"{left_out} is left out: {used} differs only in its suffix; rename one of the two" in caplog.text


def test_a_label_that_another_one_replaces_is_kept(studies: Path, tmp_path: Path) -> None:
    found, file, kept = store(studies), label(tmp_path / "a.mrk.json"), studies / "labels" / "replaced" / "final"
    by_hand = label(studies / "labels" / "final" / "one.mrk.json", NAMES[:1])  # not seen yet
    texts = [Path(by_hand).read_text(), Path(file).read_text()]
    found.save_label("one", file, "final", {"client_id": "ann"})
    assert found.get_label_info("one", "final")["replaced"]["client_id"] is None
    time_of_ann = found.get_label_info("one", "final")["ts"]
    found.save_label("two", file, "final", {"client_id": "ann"})
    found.save_label("two", file, "final", {"client_id": "bob"})  # the same label
    assert "replaced" not in found.get_label_info("two", "final")
    found.save_label("one", label(tmp_path / "b.mrk.json", NAMES[1:]), "final", {"client_id": "bob"})
    expected = {"client_id": "ann", "ts": time_of_ann, "copy": "labels/replaced/final/one.2.mrk.json"}
    assert found.get_label_info("one", "final")["replaced"] == expected
    assert [path.read_text() for path in sorted(kept.iterdir())] == texts
    assert sorted(path.name for path in kept.iterdir()) == ["one.1.mrk.json", "one.2.mrk.json"]
    assert store(studies).status()["label_tags"] == {"final": 2}  # a copy is no label


def test_label_is_whole_or_not_there(studies: Path, tmp_path: Path) -> None:
    found = store(studies)
    good = label(tmp_path / "a.mrk.json", names=NAMES[:1])
    found.save_label("one", good, "final", {})
    info = found.get_label_info("one", "final")
    assert info["model"] == "spots" and info["landmarks"] == [NAMES[0]] and info["missing"] == [NAMES[1]]
    Path(good).write_text(Path(good).read_text()[:200])
    with pytest.raises(HTTPException, match="was not saved: line 5: not valid JSON") as caught:
        found.save_label("one", good, "final", {})
    assert str(tmp_path) not in caught.value.detail
    assert found.get_label_info("one", "final")["landmarks"] == [NAMES[0]]
    assert (studies / "labels" / "final" / "one.mrk.json").read_text().endswith("}\n")


def test_spacingd_under_monai_label(bundle: Path, studies: Path, tmp_path: Path) -> None:
    """MONAI's Spacingd fails on an item in which "image_path" is a text."""
    root = shutil.copytree(bundle, tmp_path / "classification_detection")
    config = json.loads((root / "configs" / "inference.json").read_text())
    spacing = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"}
    config["preprocessing"]["transforms"].insert(3, spacing)
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    file, result = LandmarkInfer(str(root), {})({"image": str(studies / "one.nii.gz")})
    os.remove(file)
    expected = POINTS @ oblique()[:3, :3].T + oblique()[:3, 3]
    np.testing.assert_allclose([one["position"] for one in result["landmarks"]], expected, atol=0.2)


def test_weights_of_another_network(bundle: Path, studies: Path, tmp_path: Path) -> None:
    root = shutil.copytree(bundle, tmp_path / "other")
    torch.save({"weight": torch.zeros(1)}, root / "models" / "model.pt")
    with pytest.raises(RuntimeError, match="loading state_dict"):
        LandmarkInfer(str(root), {})({"image": str(studies / "one.nii.gz")})


def test_scores_follow_the_weights(bundle: Path, studies: Path, tmp_path: Path) -> None:
    root = shutil.copytree(bundle, tmp_path / "spots")
    tasks = {"spots": LandmarkInfer(str(root), {})}
    scoring, found = LandmarkScoring(lambda: tasks), store(studies)
    assert sorted(scoring({}, found)) == ["one", "scan.v2.png", "two"] and scoring.pending(found) == []
    mm = found.get_image_info("one")["landmark_uncertainty"]["spots"]["mm"]
    assert mm > 0 and "error" in found.get_image_info("scan.v2.png")["landmark_uncertainty"]["spots"]
    later = time.time() + 10
    os.utime(root / "models" / "model.pt", (later, later))
    found.save_label("two", label(tmp_path / "a.mrk.json"), "final", {})
    assert scoring.pending(found) == ["one", "scan.v2.png"]
    assert scoring({"model": "unknown"}, found) == {} and LandmarkScoring(dict)({}, found) == {}
    assert LandmarkScoring(dict).pending(found) == []


def test_batch_goes_on_after_an_error(studies: Path) -> None:
    asked: list[dict[str, Any]] = []

    def infer(request: dict[str, Any], _: Any) -> dict[str, Any]:
        asked.append(request)
        if request["image"] == "one":
            raise HTTPException(422, "too dark")
        return {"label": request["image"]}

    result = LandmarkBatchInfer()({"model": "m", "multi_gpu": True}, store(studies), infer)
    assert result == {"one": {"error": "too dark"}, "scan.v2.png": {"label": "scan.v2.png"}, "two": {"label": "two"}}
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert {request["device"].split(":")[0] for request in asked} == {expected}


def test_a_bundle_with_only_a_close_look_is_offered_and_learns_on(tmp_path: Path) -> None:
    root, studies = write_bundle_of_spots(tmp_path / "spots", ".png"), tmp_path / "studies"
    path, models = root / "configs" / "close_look.json", root / "models"
    network = json.loads((root / "configs" / "inference.json").read_text())["network_def"]
    config = {**json.loads(path.read_text()), "coarse_network_def": network, "fine_network_def": network}
    path.write_text(json.dumps({**config, "coarse_weight": 0.0, "patches_per_image": 2}))
    plain = torch.load(models / "model.pt", weights_only=True)
    both = {f"coarse.{name}": value for name, value in plain.items()}
    # the fine network would exchange the two spots, if it saw both
    both |= {f"fine.{name}": 3 * value for name, value in plain.items()}
    torch.save(both, models / "pretrained_close_look.pt")
    (models / "model.pt").unlink()
    (copy,) = find_models(str(root), tmp_path / "app").values()
    assert not (root / "models" / "coarse").exists() and not (models / "model.pt").exists()
    points = random_points(np.random.default_rng(3), SHAPES[2])
    for name in ("one", "two", "three", "four"):
        write_image(studies / f"{name}.png", points)
    task = LandmarkInfer(str(copy), {})
    assert isinstance(task.network, CloseLookNet)
    found = task.landmarks(task.predict(str(studies / "one.png"), "cpu"))
    np.testing.assert_allclose(found.points[:, :2], -0.5 * points, atol=0.4)

    datastore = store(studies)
    label_of = LandmarkSet(NAMES, np.c_[points, np.zeros(2)] * [1, 1, 0], "LPS")
    write_landmarks(tmp_path / "a.mrk.json", label_of)
    for name in ("one", "two", "three", "four"):
        datastore.save_label(name, str(tmp_path / "a.mrk.json"), "final", {})
    request = {"model": "spots", "max_epochs": 1, "device": "cpu", "pretrained": True, "val_split": 0.0}
    LandmarkTrain(str(copy), {})(request, datastore)
    after = torch.load(copy / "models" / "model_final.pt", weights_only=True)
    assert set(after) == set(both)
    for name, value in both.items():
        assert torch.equal(after[name], value) == name.startswith("coarse.")


def test_what_a_training_learns_from(bundle: Path, studies: Path, tmp_path: Path) -> None:
    train, found = LandmarkTrain(str(bundle), {}), store(studies)
    with pytest.raises(ValueError, match="no labels to train with"):
        train._fetch_datalist({}, found)
    found.save_label("one", label(tmp_path / "a.mrk.json", names=NAMES[1:]), "final", {})
    label(studies / "labels" / "final" / "two.mrk.json", names=())  # a point list without points
    write_landmarks(tmp_path / "p.mrk.json", LandmarkSet(NAMES, [[-3.0, -4.0, 0.0], [-20.0, -30.0, 0.0]], "RAS"))
    found.save_label("scan.v2.png", str(tmp_path / "p.mrk.json"), "final", {})  # no image for this bundle
    found.refresh()
    (item,) = train._fetch_datalist({}, found)
    assert item["image"] == str(studies / "one.nii.gz") and "spacing" not in item
    read = read_item_landmarks({**item, "label_names": NAMES, "label_coordinate_system": "RAS"})  # as handlers read it
    np.testing.assert_allclose(read.points, [[np.nan] * 3, (oblique() @ [*POINTS[1], 1])[:3]])
    assert set(train.config()) == {"device", "pretrained", "max_epochs", "val_split"}


def test_a_picture_has_the_spacing_of_the_bundle(bundle: Path, studies: Path) -> None:
    train = LandmarkTrain(str(bundle), {})
    train.spatial_dims = 2
    for spacing, expected in ((None, [1.0, 1.0]), (0.5, [0.5, 0.5]), ([0.5, 0.25], [0.5, 0.25])):
        train.picture_spacing = spacing
        assert train._item_spacing(str(studies / "scan.v2.png.PNG")) == {"spacing": expected}


def test_a_broken_label_is_left_out(bundle: Path, studies: Path, caplog: pytest.LogCaptureFixture) -> None:
    label(studies / "labels" / "final" / "one.mrk.json")
    (studies / "labels" / "final" / "two.mrk.json").write_text("{")  # put there by hand, which nothing checks
    write_landmarks(studies / "labels" / "final" / "scan.v2.png.mrk.json", LandmarkSet(NAMES, POINTS, "LPS"))
    train, found = LandmarkTrain(str(bundle), {}), store(studies)
    assert [Path(item["image"]).name for item in train.labeled_items(found)] == ["one.nii.gz"]
    assert "a label is left out of the training: " in caplog.text and "two.mrk.json" in caplog.text


def test_labels_that_would_stop_a_training_are_left_out(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A slice across the axes of the world, a slice for a model of volumes, and labels outside their image."""
    studies = tmp_path / "studies"
    final = studies / "labels" / "final"
    final.mkdir(parents=True)
    affines = {"axial": np.diag([-0.5, -0.5, 4, 1]), "outside": np.diag([-0.5, -0.5, 4, 1])}
    affines["sagittal"] = affines["axial"][[2, 0, 1, 3]]
    for name, affine in affines.items():
        nib.save(nib.Nifti1Image(np.zeros((48, 40, 1), np.float32), affine), studies / f"{name}.nii.gz")
        points = np.array([[10, 12, 0], [30, 20, 0]]) + (100 if name == "outside" else 0) * np.array([1, 0, 0])
        write_landmarks(final / f"{name}.mrk.json", LandmarkSet(NAMES, points, "index").to_world(affine).to("LPS"))
    write_image(studies / "volume.nii.gz", POINTS)
    label(final / "volume.mrk.json")
    train, found = LandmarkTrain(str(bundle), {}), store(studies)
    for dims, taken, reasons in (
        (3, "volume", {"axial": "2-D", "outside": "2-D", "sagittal": "does not lie in the x-y plane"}),
        (2, "axial", {"volume": "3-D", "outside": "no landmark lies in", "sagittal": "does not lie in the x-y plane"}),
    ):
        caplog.clear()
        train.spatial_dims = dims
        assert [Path(item["image"]).name for item in train.labeled_items(found)] == [f"{taken}.nii.gz"]
        warnings = {record.message for record in caplog.records if "left out" in record.message}
        assert len(warnings) == len(reasons)
        for name, reason in reasons.items():
            assert any(f"{name}.mrk.json: " in warning and reason in warning for warning in warnings), (name, warnings)


def test_a_training_from_random_weights_loads_none(bundle: Path, tmp_path: Path) -> None:
    train, handlers = LandmarkTrain(str(bundle), {}), []
    train._load_checkpoint(str(bundle / "models" / "model.pt"), False, handlers)
    train._load_checkpoint(str(tmp_path / "absent.pt"), True, handlers)
    assert handlers == []
    train._load_checkpoint(str(bundle / "models" / "model.pt"), True, handlers)
    assert len(handlers) == 1


def test_there_may_be_no_next_image(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert LandmarkStrategy("first", lambda info, model: 0.0, dict)({}, store(tmp_path / "empty")) is None


def test_batch_on_a_gpu_is_as_asked(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True)))
    monkeypatch.setattr(BatchInferTask, "__call__", lambda self, request, datastore, infer: request)
    request = {"model": "m", "multi_gpu": True, "device": "cuda:0"}
    assert LandmarkBatchInfer()(request, store(studies), lambda one, _: {}) == request


def test_added_images_and_notes_on_labels_are_kept(studies: Path, tmp_path: Path) -> None:
    found = store(studies)
    image = write_image(tmp_path / "three.nii.gz", POINTS)
    assert found.add_image("three", str(image), {"from": "ann"}) == "three"
    found.save_label("three", label(tmp_path / "a.mrk.json"), "final", {})
    found.update_label_info("three", "final", {"checked": True})
    again = store(studies)
    assert again.get_image_info("three")["from"] == "ann" and again.get_label_info("three", "final")["checked"] is True
    assert (studies / "three.nii.gz").read_bytes() == image.read_bytes()
