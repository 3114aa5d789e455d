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


"""MONAI Label app that proposes landmarks to an annotator and trains with the corrections."""

from __future__ import annotations

import logging
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from monai_landmarks import __version__

from .datastore import LandmarkDatastore
from .gate import Access
from .image_queue import UNCERTAINTY_KEY, stored_uncertainty
from .models import WEIGHTS, bundle_names, find_models
from .server import make_application
from .tasks import LandmarkBatchInfer, LandmarkInfer, LandmarkScoring, LandmarkStrategy, LandmarkTrain

HTTPException, _ = optional_import("fastapi", name="HTTPException", as_type="base")
settings, _ = optional_import("monailabel.config", name="settings")
requests, _ = optional_import("requests")
Mount, _ = optional_import("fastapi.routing", name="Mount")
MONAILabelApp, _ = optional_import("monailabel.interfaces.app", name="MONAILabelApp", as_type="base")

__all__ = ["LandmarksApp"]

logger = logging.getLogger(__name__)


class LandmarksApp(MONAILabelApp):
    """MONAI Label app whose models are landmark bundles.

    Args:
        app_dir: folder of the app. Its folder ``model`` contains the bundles that the app trains.
        studies: folder of the images, or the URL of a DICOM server.
        conf: settings of the app. ``models`` selects the bundles, see :func:`monai_landmarks.label.find_models`.

    Raises:
        ValueError: if a selected bundle does not exist.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.bundles = find_models(conf.get("models"), Path(app_dir) / "model")
        self.names = {model: bundle_names(path) for model, path in self.bundles.items()}
        if not self.bundles:
            logger.warning("There is no bundle with weights. Select a bundle with --conf models <folder of a bundle>")
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name=f"monai_landmarks {__version__}",
            description="Proposes anatomical landmarks and learns from the corrections",
            version=__version__,
        )

    def init_datastore(self) -> Any:
        """Return the datastore: a folder whose labels are checked, or MONAI Label's own datastore for a URL."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return LandmarkDatastore(
            self.studies,
            lambda: self.names,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, LandmarkInfer]:
        """Return an inference task for each bundle that has weights."""
        return {
            model: LandmarkInfer(str(path), self.conf)
            for model, path in self.bundles.items()
            if (path / WEIGHTS).is_file()
        }

    def init_trainers(self) -> dict[str, LandmarkTrain]:
        """Return a training task for each bundle that can be trained."""
        tasks = {model: LandmarkTrain(str(path), self.conf) for model, path in self.bundles.items()}
        return {model: task for model, task in tasks.items() if task.is_valid()}

    def init_strategies(self) -> dict[str, LandmarkStrategy]:
        """Return the strategies: the most uncertain image first, or a random image."""
        return {
            UNCERTAINTY_KEY: LandmarkStrategy("The most uncertain image first", stored_uncertainty, self.models),
            "random": LandmarkStrategy("A random image", lambda info, model: random.random(), self.models),
        }

    def init_scoring_methods(self) -> dict[str, LandmarkScoring]:
        """Return the scoring method: the uncertainty of a model for each image."""
        return {UNCERTAINTY_KEY: LandmarkScoring(self.models)}

    def init_batch_infer(self) -> Callable:
        """Return the inference task for many images."""
        return LandmarkBatchInfer()

    def models(self) -> dict[str, LandmarkInfer]:
        """Return the inference tasks of all bundles that have weights by now."""
        for model, path in self.bundles.items():
            if model not in self._infers and (path / WEIGHTS).is_file():
                self._infers[model] = LandmarkInfer(str(path), self.conf)
        return {model: self._infers[model] for model in self.bundles if model in self._infers}

    def datastore(self) -> Any:
        """Return the datastore, with the changes that background tasks have written."""
        if isinstance(self._datastore, LandmarkDatastore):
            self._datastore.reload()
        return self._datastore

    def info(self) -> dict[str, Any]:
        """Return the description of the app, see MONAI Label."""
        self.models()
        self.datastore()
        result: dict[str, Any] = super().info()
        return result

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Propose landmarks.

        Raises:
            HTTPException: 404 for an unknown model or image, 409 for a model without weights or an image whose name is
                also a file of the server's working folder, 422 if the inference fails.
        """
        self._require_model(request.get("model"))
        image = request.get("image")
        if isinstance(image, str):
            known = bool(image and (datastore or self.datastore()).get_image_uri(image))
            if known and os.path.exists(image):  # MONAI Label would read that file instead
                raise HTTPException(
                    409, f"the server was started in a folder that contains {image!r}; start it elsewhere."
                )
            if not known and not self._was_sent(image):
                raise HTTPException(404, f"there is no image {image!r} in {self.studies}.")
        with _as_http_error(f"{request['model']} cannot predict {image!r}"):
            result: dict[str, Any] = super().infer(request, datastore)
        return result

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the next image for an annotator.

        Raises:
            HTTPException: 404 for an unknown strategy or model.
        """
        strategy = request.get("strategy")
        if strategy not in self._strategies:
            raise HTTPException(404, f"there is no strategy {strategy!r}; choose one of {', '.join(self._strategies)}.")
        if request.get("model") and request["model"] not in self.bundles:
            self._require_model(request["model"])
        result: dict[str, Any] = super().next_sample(request)
        return result

    def bundle_path(self, model: str | None) -> str | None:
        """Return the folder of a bundle.

        MONAI Label calls this method before it starts a background task. Errors that are raised here are part of the
        answer to the request; later errors appear only in the log of the task.

        Raises:
            HTTPException: 404 for an unknown model.
        """
        if model is None:
            return None
        if model not in self.bundles:
            self._require_model(model)
        return str(self.bundles[model])

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Train a model with the labels.

        Raises:
            HTTPException: 404 for an unknown model, 422 if the training fails.
        """
        self.bundle_path(request.get("model"))
        with _as_http_error(f"the training of {request.get('model')} failed"):
            result: dict[str, Any] = super().train(request)
        return result

    def scoring(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Score the images without a label.

        Raises:
            HTTPException: 404 for an unknown method or model.
        """
        method = request.get("method")
        if method not in self._scoring_methods:
            raise HTTPException(
                404, f"there is no scoring {method!r}; choose one of {', '.join(self._scoring_methods)}."
            )
        if request.get("model"):
            self._require_model(request["model"])
        result: dict[str, Any] = super().scoring(request, datastore)
        return result

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, Any]:
        """Return the landmarks that a saved label contains, those that are missing, and the label that it replaces."""
        super().on_save_label(image_id, label_id)
        info = self.datastore().get_label_info(label_id, "final")
        return {key: info[key] for key in ("landmarks", "missing", "replaced") if key in info}

    def async_scoring(self, method: str | None, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Score the images in the background, unless all images have current scores."""
        scoring = self._scoring_methods.get(UNCERTAINTY_KEY)
        if method is None and (scoring is None or not scoring.pending(self.datastore())):
            return {}
        result: dict[str, Any] = super().async_scoring(method, params)
        return result

    def on_init_complete(self) -> None:
        """Put the checks of this package in front of MONAI Label's routes, if the server is not that of this package."""
        server = sys.modules.get("monailabel.app")
        if server is not None:
            server.app.router.routes.insert(0, Mount("", app=make_application()))
        super().on_init_complete()

    def _local_request(self, url: str, params: Any, action: str) -> Any:
        """Send a request from a background task to the server, which may need its token."""
        token = Access.from_environment().token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            address = f"http://127.0.0.1:{settings.MONAI_LABEL_SERVER_PORT}{url}"
            answer = requests.post(address, json=params or {}, headers=headers)
            answer.raise_for_status()
            return answer.json()
        except (requests.RequestException, ValueError) as error:
            logger.error(f"{action} was not started: {error}")
            return None

    def _was_sent(self, image: str) -> bool:
        """Return whether a path is a file that came with a request or belongs to a session.

        A client sends only names, see ``server.py``. So a path is one that MONAI Label has made: a file directly in the
        folder for temporary files, or in the folder of a session.
        """
        path = Path(image).resolve()
        if not path.exists() or not os.path.isabs(image):
            return False
        in_session = self._sessions and path.is_relative_to(Path(self._sessions.store_path).resolve())
        return path.parent == Path(tempfile.gettempdir()).resolve() or bool(in_session)

    def _require_model(self, model: str | None) -> None:
        if model in self.models():
            return
        if model in self.bundles:
            raise HTTPException(409, f"the model {model!r} has no weights yet; submit labels and train it.")
        raise HTTPException(404, f"there is no model {model!r}; the models are {', '.join(self.bundles) or 'none'}.")


@contextmanager
def _as_http_error(what: str) -> Iterator[None]:
    """Turn an error into an answer with its reason. MONAI Label would answer without a reason."""
    try:
        yield
    except HTTPException:
        raise
    except Exception as error:
        logger.exception(what)
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise HTTPException(422, f"{what}: {type(cause).__name__}: {str(cause)[:500]}") from error
