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


"""What the MONAI Label app does with a bundle: propose, learn, tell how unsure it is; and hand out the next image."""

from __future__ import annotations

import json
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
from monai_landmarks.data.images.image_files import has_spacing, read_header

from .image_queue import UNCERTAINTY_KEY, image_uncertainty, next_image
from .models import WEIGHTS, bundle_names, bundle_spatial_dims
from .pictures import from_viewer, to_viewer
from .proposal import image_extent, plain_list, proposed_landmarks
from .slicer_submit import MARK
from .train_settings import split_labels, training_overrides

BatchInferTask, _ = optional_import("monailabel.interfaces.tasks.batch_infer", name="BatchInferTask", as_type="base")
ScoringMethod, _ = optional_import("monailabel.interfaces.tasks.scoring", name="ScoringMethod", as_type="base")
Strategy, _ = optional_import("monailabel.interfaces.tasks.strategy", name="Strategy", as_type="base")
BundleConstants, _ = optional_import("monailabel.tasks.infer.bundle", name="BundleConstants", as_type="base")
BundleInferTask, _ = optional_import("monailabel.tasks.infer.bundle", name="BundleInferTask", as_type="base")
BundleTrainTask, _ = optional_import("monailabel.tasks.train.bundle", name="BundleTrainTask", as_type="base")

__all__ = ["LandmarkBatchInfer", "LandmarkInfer", "LandmarkScoring", "LandmarkStrategy", "LandmarkTrain"]

logger = logging.getLogger(__name__)


class _Keys(BundleConstants):
    """Which parts of a bundle's configuration count."""

    def key_postprocessing(self) -> Sequence[str]:
        return ["postprocessing"]  # what `post_transforms` has besides is for apps that know no points


class LandmarkInfer(BundleInferTask):
    """Propose the landmarks of an image.

    Its type is "detection", because 3D Slicer's module offers this one and loads what it returns as markups, whatever they
    are: a point list.

    Args:
        path: the bundle, with weights.
        conf: of the app.
    """

    def __init__(self, path: str, conf: dict[str, str]) -> None:
        super().__init__(path, conf, const=_Keys(), type="detection", load_strict=True)
        self.names = bundle_names(path)
        self.labels = {name: index for index, name in enumerate(self.names)}  # MONAI Label's are in lower case
        self.picture_spacing = self.bundle_config.config.get("spacing")
        self._config.pop("model_filename", None)  # there is one

    def run_pre_transforms(self, data: dict[str, Any], transforms: Sequence[Callable]) -> dict[str, Any]:
        """Read and prepare the image."""
        # MONAI's Spacingd takes every "image_..." for meta data of the image
        path = data.pop("image_path", None)
        if isinstance(path, str) and not has_spacing(path) and self.picture_spacing is not None:
            data["spacing"] = self.picture_spacing
        result: dict[str, Any] = super().run_pre_transforms(data, transforms)
        return {**result, "image_path": path}

    def run_detector(self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cuda") -> dict[str, Any]:
        """Run the network; there is no detector."""
        result: dict[str, Any] = self.run_inferer(data, convert_to_batch, device)
        return result

    def writer(
        self, data: dict[str, Any], extension: str | None = None, dtype: Any = None
    ) -> tuple[str, dict[str, Any]]:
        """Write the point list.

        Returns:
            a ``.mrk.json`` file in LPS, whose name, which becomes that of the point list, begins with that of the image;
            and the landmarks for those who want no file, see `plain_list`.
        """
        image = str(data["image_path"])
        landmarks = to_viewer(self.landmarks(data), image, self.picture_spacing)
        handle, path = tempfile.mkstemp(prefix=f"{image_stem(image)}{MARK}", suffix=".mrk.json")
        os.close(handle)
        write_landmarks(path, landmarks.to(CoordinateSystem.LPS))
        return path, {"landmarks": plain_list(landmarks), "coordinate_system": CoordinateSystem.RAS.value}

    def landmarks(self, data: Mapping[str, Any]) -> LandmarkSet:
        """The landmarks after the bundle's postprocessing, in RAS mm of the bundle's world."""
        return proposed_landmarks(data, self.names, self.key_pred)

    def predict(self, image: str, device: str | None = None) -> dict[str, Any]:
        """The item after postprocessing, without a file."""
        request = {"image": image, "device": device, "skip_writer": True, "logging": "WARNING"}
        return dict(self.__call__(request)[1])


class LandmarkTrain(BundleTrainTask):
    """Learn from the labels that annotators have submitted, beginning with the weights there are.

    Args:
        path: the bundle.
        conf: of the app.
    """

    def __init__(self, path: str, conf: dict[str, str]) -> None:
        super().__init__(path, conf)
        self.names = bundle_names(path)
        self.spatial_dims = bundle_spatial_dims(path)
        inference = Path(path) / "configs" / "inference.json"
        self.picture_spacing = json.loads(inference.read_text(encoding="utf-8")).get("spacing")

    def config(self) -> dict[str, Any]:
        """What can be set in 3D Slicer."""
        config = super().config()
        return {key: config[key] for key in ("device", "pretrained", "max_epochs", "val_split") if key in config}

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Train.

        Raises:
            ValueError: if there is no label with a landmark of this model.
        """
        unset = {key for key in ("run_id", "model_filename", "tracking") if not request.get(key)}
        asked = {key: value for key, value in request.items() if key not in unset}
        result: dict[str, Any] = super().__call__({"tracking": "None", **asked}, datastore)
        return result

    def labeled_items(self, datastore: Any) -> list[dict[str, Any]]:
        """Items of a datalist, of the images whose label has a landmark of this model.

        Points are in the bundle's world, RAS, None where the label leaves them out: it says nothing of them.
        """
        items = []
        for entry in datastore.datalist():
            image = entry["image"]
            try:
                if not self._takes(image):
                    continue  # another model's, whose landmarks have the same names
                landmarks = read_landmarks(entry["label"], image=image).reorder(self.names)
                rows = from_viewer(landmarks, image, self.picture_spacing)
            except (
                OSError,
                ValueError,
            ) as error:  # put into the folder by hand; what was submitted has been read before
                logger.warning(f"left out of the training: {error}")
                continue
            if not rows.missing.all():
                label = [None if missing else row for row, missing in zip(rows.points.tolist(), rows.missing)]
                items.append({"image": image, "label": label, **self._item_spacing(image)})
        return items

    def _takes(self, image: str) -> bool:
        if not has_spacing(image):
            return self.spatial_dims == 2
        return self.spatial_dims == 3 or sum(size > 1 for size in read_header(image)[0]) == 2

    def _item_spacing(self, image: str) -> dict[str, Any]:
        if has_spacing(image):
            return {}
        return {"spacing": np.broadcast_to(1.0 if self.picture_spacing is None else self.picture_spacing, 2).tolist()}

    def _fetch_datalist(self, request: dict[str, Any], datastore: Any) -> list[dict[str, Any]]:
        items = self.labeled_items(datastore)
        if not items:
            raise ValueError("there is nothing to learn from: no label with a landmark of this model was submitted.")
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
        # through a file, from which the training can be run again by hand
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
    """Store with each image without a label how unsure a model is of it.

    Args:
        tasks: gives the models that can predict, the first of which is the one that is meant where none is named.
    """

    def __init__(self, tasks: Callable[[], Mapping[str, LandmarkInfer]]) -> None:
        super().__init__("How far off the landmarks may be, mean over the landmarks, in mm")
        self.tasks = tasks

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Score what has not been scored with the weights as they are now."""
        model = request.get("model") or next(iter(self.tasks()), None)
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
            except Exception as error:  # of a reader, of a transform: the other images are scored
                entry["error"] = f"{type(error).__name__}: {error}"[:500]
                logger.warning(f"{image} was not scored: {entry['error']}")
            stored = datastore.get_image_info(image).get(UNCERTAINTY_KEY)
            datastore.update_image_info(image, {UNCERTAINTY_KEY: {**(stored or {}), model: entry}})
            result[image] = entry
        return result

    def pending(self, datastore: Any, model: str | None = None) -> list[str]:
        """Images that are to be scored by a model, the first one if none is named."""
        model = model or next(iter(self.tasks()), None)
        task = self.tasks().get(model) if model else None
        if task is None:
            return []
        now = _weights_time(task)

        def scored(image: str) -> bool:
            entry = (datastore.get_image_info(image).get(UNCERTAINTY_KEY) or {}).get(model)
            return bool(entry) and entry.get("weights") == now

        return [image for image in sorted(datastore.get_unlabeled_images()) if not scored(image)]


class LandmarkStrategy(Strategy):
    """Hand out images without a label, each to one annotator at a time.

    Args:
        description: of the order.
        rank: ``rank(info, model)`` of an image with this information; the greater, the sooner.
        tasks: as in `LandmarkScoring`.
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
        """The next image, or None."""
        model = request.get("model") or next(iter(self.tasks()), None)
        infos = {image: datastore.get_image_info(image) for image in datastore.get_unlabeled_images()}
        image = next_image(infos, time.time(), lambda info: self.rank(info, model))
        if image is None:
            logger.info(f"no image to hand out; {len(infos)} without a label are with annotators")
            return None
        return {"id": image, "model": model}


class LandmarkBatchInfer(BatchInferTask):
    """Propose landmarks for many images, on a CPU too, and past images that cannot be read."""

    def __call__(self, request: dict[str, Any], datastore: Any, infer: Callable) -> dict[str, Any]:
        """See MONAI Label's; the result of an image that failed is its ``error``."""
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


def _weights_time(task: LandmarkInfer) -> float:
    path = Path(task.bundle_path) / WEIGHTS
    return path.stat().st_mtime if path.exists() else 0.0
