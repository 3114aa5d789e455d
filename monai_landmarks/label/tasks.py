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


"""Tasks of the MONAI Label app: inference and training with a bundle, scoring of images, choice of the next image."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import optional_import

from monai_landmarks.data import (
    CoordinateSystem,
    LandmarkSet,
    image_stem,
    read_landmarks,
    save_datalist,
    write_landmarks,
)
from monai_landmarks.data.datalists.bundle_metadata import read_bundle_json
from monai_landmarks.data.datalists.datalist_faults import index_points
from monai_landmarks.data.images.image_files import ensure_pixel_size, has_spacing, read_header

from .image_queue import UNCERTAINTY_KEY, image_uncertainty, next_image
from .models import WEIGHTS, bundle_names, bundle_spatial_dims, config_files
from .pictures import from_viewer, to_viewer
from .proposal import image_extent, plain_answer, proposed_landmarks
from .slicer_submit import MARK
from .submitted_label import require_inside
from .train_settings import split_labels, training_overrides

BatchInferTask, _ = optional_import("monailabel.interfaces.tasks.batch_infer", name="BatchInferTask", as_type="base")
ScoringMethod, _ = optional_import("monailabel.interfaces.tasks.scoring", name="ScoringMethod", as_type="base")
Strategy, _ = optional_import("monailabel.interfaces.tasks.strategy", name="Strategy", as_type="base")
BundleConstants, _ = optional_import("monailabel.tasks.infer.bundle", name="BundleConstants", as_type="base")
BundleInferTask, _ = optional_import("monailabel.tasks.infer.bundle", name="BundleInferTask", as_type="base")
TrainConstants, _ = optional_import("monailabel.tasks.train.bundle", name="BundleConstants", as_type="base")
BundleTrainTask, _ = optional_import("monailabel.tasks.train.bundle", name="BundleTrainTask", as_type="base")

__all__ = ["LandmarkBatchInfer", "LandmarkInfer", "LandmarkScoring", "LandmarkStrategy", "LandmarkTrain"]

logger = logging.getLogger(__name__)


class _Keys(BundleConstants):
    """Names of the files and sections of a bundle's configuration that the app uses.

    Args:
        path: folder of the bundle.
    """

    def __init__(self, path: str) -> None:
        self._configs = config_files(path, "inference")

    def configs(self) -> Sequence[str]:
        return self._configs

    def key_postprocessing(self) -> Sequence[str]:
        return ["postprocessing"]  # post_transforms also makes a label map, for apps that do not support points


class _TrainKeys(TrainConstants):
    """The same for a training."""

    def __init__(self, path: str) -> None:
        self._configs = config_files(path, "train")

    def configs(self) -> Sequence[str]:
        return self._configs


class LandmarkInfer(BundleInferTask):
    """Propose the landmarks of an image.

    The type of the task is "detection": 3D Slicer's module supports it and loads its results as markups, which include
    point lists.

    Args:
        path: folder of the bundle, with weights.
        conf: settings of the app.
    """

    def __init__(self, path: str, conf: dict[str, str]) -> None:
        super().__init__(path, conf, const=_Keys(path), type="detection", load_strict=True)
        self.names = bundle_names(path)
        self.labels = {
            name: index for index, name in enumerate(self.names)
        }  # MONAI Label would convert the names to lower case
        self.picture_spacing = self.bundle_config.config.get("spacing")
        self._config.pop("model_filename", None)  # no choice for the user: there is only one

    def run_pre_transforms(self, data: dict[str, Any], transforms: Sequence[Callable]) -> dict[str, Any]:
        """Read and prepare the image."""
        # MONAI's Spacingd treats every key "image_..." as metadata of the image
        path = data.pop("image_path", None)
        if isinstance(path, str) and not has_spacing(path) and self.picture_spacing is not None:
            data["spacing"] = self.picture_spacing
        result: dict[str, Any] = super().run_pre_transforms(data, transforms)
        return {**result, "image_path": path}

    def run_detector(self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cuda") -> dict[str, Any]:
        """Run the network. MONAI Label calls this method because the type of the task is "detection"."""
        result: dict[str, Any] = self.run_inferer(data, convert_to_batch, device)
        return result

    def writer(
        self, data: dict[str, Any], extension: str | None = None, dtype: Any = None
    ) -> tuple[str, dict[str, Any]]:
        """Write the point list.

        Returns:
            The path of a ``.mrk.json`` file in LPS, and the landmarks as JSON values, see :func:`plain_answer`. The
            name of the file begins with the name of the image and becomes the name of the point list in 3D Slicer.
        """
        image = str(data["image_path"])
        landmarks = to_viewer(self.landmarks(data), image, self.picture_spacing)
        handle, path = tempfile.mkstemp(prefix=f"{image_stem(image)}{MARK}", suffix=".mrk.json")
        os.close(handle)
        write_landmarks(path, landmarks.to(CoordinateSystem.LPS))
        answer = plain_answer(landmarks, data, self.key_pred)
        if answer.get("doubt"):
            logger.warning(f"{image}: the proposal is in doubt: {answer['doubt']}")
        return path, {**answer, "coordinate_system": CoordinateSystem.RAS.value}

    def landmarks(self, data: Mapping[str, Any]) -> LandmarkSet:
        """Return the landmarks of an item after postprocessing, in RAS mm of the world of the bundle."""
        return proposed_landmarks(data, self.names, self.key_pred)

    def predict(self, image: str, device: str | None = None) -> dict[str, Any]:
        """Run the inference for an image file and return the item after postprocessing, without writing a file."""
        request = {"image": image, "device": device, "skip_writer": True, "logging": "WARNING"}
        return dict(self.__call__(request)[1])


class LandmarkTrain(BundleTrainTask):
    """Train a bundle with the labels that annotators have submitted, starting from its existing weights.

    Args:
        path: folder of the bundle.
        conf: settings of the app.
    """

    def __init__(self, path: str, conf: dict[str, str]) -> None:
        super().__init__(path, conf, const=_TrainKeys(path))
        self.names = bundle_names(path)
        self.spatial_dims = bundle_spatial_dims(path)
        inference = Path(path) / "configs" / "inference.json"
        self.picture_spacing = read_bundle_json(inference).get("spacing")

    def config(self) -> dict[str, Any]:
        """Return the settings that the user can change in 3D Slicer."""
        config = super().config()
        return {key: config[key] for key in ("device", "pretrained", "max_epochs", "val_split") if key in config}

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Train the bundle.

        Raises:
            ValueError: if there is no label with a landmark of this model.
        """
        unset = {key for key in ("run_id", "model_filename", "tracking") if not request.get(key)}
        asked = {key: value for key, value in request.items() if key not in unset}
        result: dict[str, Any] = super().__call__({"tracking": "None", **asked}, datastore)
        return result

    def labeled_items(self, datastore: Any) -> list[dict[str, Any]]:
        """Return the items of a datalist for the images whose label has a landmark of this model.

        Points are in RAS mm of the world of the bundle. Their coordinates are None if the label leaves them out. Labels
        that would stop a training are left out, with a warning.
        """
        items = []
        for entry in datastore.datalist():
            image = entry["image"]
            try:
                landmarks = read_landmarks(entry["label"], image=image).reorder(self.names)
                if landmarks.missing.all():
                    continue
                rows = from_viewer(landmarks, image, self.picture_spacing)
                self._require_fit(rows, image)
            except (OSError, ValueError) as error:  # labels that were put into the folder by hand were not validated
                reason = str(error).removeprefix(f"{entry['label']}: ")
                logger.warning(f"a label is left out of the training: {entry['label']}: {reason}")
                continue
            label = [[None] * 3 if missing else row for row, missing in zip(rows.points.tolist(), rows.missing)]
            items.append({"image": image, "label": label, **self._item_spacing(image)})
        return items

    def _require_fit(self, rows: LandmarkSet, image: str) -> None:
        """Require that the image is one for this model, and that a point is in it."""
        shape, affine = read_header(image, ensure_pixel_size(self.picture_spacing))
        points = index_points(rows, shape, affine)
        if points.spatial_dims != self.spatial_dims:
            dims = points.spatial_dims
            raise ValueError(f"the image {Path(image).name} is {dims}-D, but the model takes {self.spatial_dims}-D.")
        require_inside(points, shape, image)

    def _item_spacing(self, image: str) -> dict[str, Any]:
        if has_spacing(image):
            return {}
        return {"spacing": np.broadcast_to(1.0 if self.picture_spacing is None else self.picture_spacing, 2).tolist()}

    def _fetch_datalist(self, request: dict[str, Any], datastore: Any) -> list[dict[str, Any]]:
        items = self.labeled_items(datastore)
        if not items:
            raise ValueError(
                "there are no labels to train with: no submitted label has a landmark of this model and an image that"
                " fits; the log has a warning for each label that was left out."
            )
        return items

    def _partition_datalist(
        self, datalist: list[dict[str, Any]], request: dict[str, Any], shuffle: bool = False
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        return split_labels(datalist, float(request.get("val_split", 0.2)))

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list) -> None:
        if pretrained and os.path.exists(model_pytorch):
            super()._load_checkpoint(model_pytorch, pretrained, train_handlers)

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        overrides.update(training_overrides(self.bundle_config.config, overrides))
        # pass the data through a file, so that the training can be repeated by hand
        datalist = Path(self.bundle_path) / "label_datalist.json"
        sections = {"train#dataset#data": "training", "validate#dataset#data": "validation"}
        definition = {"names": self.names, "coordinate_system": CoordinateSystem.RAS.value}
        save_datalist(
            datalist,
            {"landmarks": definition, **{sections[key]: overrides[key] for key in sections if key in overrides}},
        )
        for key in sections.keys() & overrides.keys():
            overrides[key] = {
                "_target_": "monai_landmarks.data.load_landmark_datalist",
                "path": str(datalist),
                "section": sections[key],
            }
        return overrides


class LandmarkScoring(ScoringMethod):
    """Score each image without a label by the uncertainty of a model, and store the scores.

    Args:
        tasks: returns the inference tasks of the models that have weights. The first model is the default.
    """

    def __init__(self, tasks: Callable[[], Mapping[str, LandmarkInfer]]) -> None:
        super().__init__("Expected error of the landmarks in mm, mean over the landmarks")
        self.tasks = tasks

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Score the images that have no score from the current weights."""
        model = _chosen_model(self.tasks(), request.get("model"))
        task = self.tasks().get(model) if model else None
        if task is None:
            logger.warning(f"no images are scored: there is no model {model!r} with weights.")
            return {}
        result: dict[str, Any] = {}
        for image in self.pending(datastore, model):
            entry: dict[str, Any] = {"weights": _weights_time(task)}
            try:
                data = task.predict(datastore.get_image_uri(image), request.get("device"))
                uncertainty = image_uncertainty(task.landmarks(data), image_extent(data["image"]))
                entry["mm"] = round(uncertainty, 4) if uncertainty == uncertainty else None
            except Exception as error:  # any error of a reader or a transform; the other images are still scored
                entry["error"] = f"{type(error).__name__}: {error}"[:500]
                logger.warning(f"{image} was not scored: {entry['error']}")
            stored = datastore.get_image_info(image).get(UNCERTAINTY_KEY)
            datastore.update_image_info(image, {UNCERTAINTY_KEY: {**(stored or {}), model: entry}})
            result[image] = entry
        return result

    def pending(self, datastore: Any, model: str | None = None) -> list[str]:
        """Return the images that have no score from the current weights of a model, by default the first model."""
        model = _chosen_model(self.tasks(), model)
        task = self.tasks().get(model) if model else None
        if task is None:
            return []
        now = _weights_time(task)

        def scored(image: str) -> bool:
            entry = (datastore.get_image_info(image).get(UNCERTAINTY_KEY) or {}).get(model)
            return bool(entry) and entry.get("weights") == now

        return [image for image in sorted(datastore.get_unlabeled_images()) if not scored(image)]


class LandmarkStrategy(Strategy):
    """Choose the next image without a label. Each image is given to one annotator at a time.

    Args:
        description: description of the order.
        rank: ``rank(info, model)`` returns the rank of an image from its stored information. Higher ranks come first.
        tasks: returns the inference tasks of the models that have weights. The first model is the default.
    """

    def __init__(
        self,
        description: str,
        rank: Callable[[Mapping[str, Any], str | None], float],
        tasks: Callable[[], Mapping[str, LandmarkInfer]],
    ) -> None:
        super().__init__(description)
        self.rank = rank
        self.tasks = tasks

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any] | None:
        """Return the id of the next image and the model, or None if there is no image."""
        model = _chosen_model(self.tasks(), request.get("model"))
        infos = {image: datastore.get_image_info(image) for image in datastore.get_unlabeled_images()}
        image = next_image(infos, time.time(), lambda info: self.rank(info, model))
        if image is None:
            logger.info(f"there is no next image; {len(infos)} images without a label are reserved for annotators")
            return None
        return {"id": image, "model": model}


class LandmarkBatchInfer(BatchInferTask):
    """Propose landmarks for many images, also on a CPU. Images that cannot be read are skipped."""

    def __call__(self, request: dict[str, Any], datastore: Any, infer: Callable) -> dict[str, Any]:
        """Run the inference for many images, see MONAI Label. The result of an image that failed is its ``error``."""
        if not torch.cuda.is_available():
            request = {**request, "multi_gpu": False, "device": "cpu"}

        def careful(one: dict[str, Any], store: Any) -> dict[str, Any]:
            try:
                return dict(infer(one, store))
            except Exception as error:
                reason = getattr(error, "detail", None) or f"{type(error).__name__}: {error}"
                logger.warning(f"{one['image']}: {reason}")
                return {"error": str(reason)[:500]}

        result: dict[str, Any] = super().__call__(request, datastore, careful)
        return result


def _chosen_model(tasks: Mapping[str, LandmarkInfer], model: str | None) -> str | None:
    """Return the requested model, by default the first one, or None if there is no model."""
    return model or next(iter(tasks), None)


def _weights_time(task: LandmarkInfer) -> float:
    """Return when the weights of a model were written, in seconds since the epoch."""
    path = Path(task.bundle_path) / WEIGHTS
    return path.stat().st_mtime if path.exists() else 0.0
