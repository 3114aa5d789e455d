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

"""Web application of MONAI Label with checks of every value that a client sends.

MONAI Label uses ids, tags and settings of requests as parts of paths and of configurations, runs all work in the thread
that answers the network, and answers many wrong requests with an error without a reason. This application has the same
routes. Each of them first checks its values, then runs MONAI Label's own function in a thread, and turns errors into
sentences.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from .request_values import file_name, json_object, require_name, require_path, require_storable, require_task_settings

APIRoute, _ = optional_import("fastapi.routing", name="APIRoute", as_type="base")
HTTPException, _ = optional_import("fastapi", name="HTTPException", as_type="base")

__all__ = ["SLICER_SCRIPT", "make_application"]

logger = logging.getLogger(__name__)

SLICER_SCRIPT = Path(__file__).with_name("slicer_submit.py")

# MONAI Label's routes, and whether they only pass something on, so that many can run at the same time
_ROUTERS = {
    "info": False,
    "model": False,
    "infer": False,
    "wsi_infer": False,
    "batch_infer": False,
    "train": False,
    "activelearning": False,
    "scoring": False,
    "datastore": False,
    "session": False,
    "logs": True,
    "ohif": True,
    "proxy": True,
}
_TASKS = ("infer", "wsi_infer", "batch_infer", "train", "activelearning", "scoring")
_NAMES = {  # parameters that are names, and what they name
    "image": "image",
    "id": "image",
    "label": "label",
    "tag": "tag",
    "model": "model",
    "strategy": "strategy",
    "method": "scoring",
    "session_id": "session",
}
_ONE_AT_A_TIME = ThreadPoolExecutor(1, "label-work")  # MONAI Label's app is not made for several threads
_MANY = ThreadPoolExecutor(8, "label-pass")
_MAX_FIELDS = 20  # text fields of a form, each up to 1 MiB in memory
_STATUS = {"Neither Image": 400, "Model File Name NOT": 404, "DICOM SEG format": 400}  # MONAI Label answers 500


def make_application() -> Any:
    """Return a FastAPI application with MONAI Label's routes, without its permission for web pages of other servers.

    ``POST /reload`` does not exist: it would replace the app by a second one that sends requests to itself.
    """
    fastapi, settings = import_module("fastapi"), import_module("monailabel.config").settings
    responses = import_module("fastapi.responses")
    validation_error = import_module("fastapi.exceptions").RequestValidationError
    prefix = settings.MONAI_LABEL_API_STR
    application = fastapi.FastAPI(
        title=settings.MONAI_LABEL_PROJECT_NAME, docs_url="/", redoc_url="/docs", lifespan=_lifespan
    )
    application.add_exception_handler(validation_error, _answer_invalid)
    static = Path(str(import_module("monailabel.endpoints").__file__)).parent / "static"
    application.mount("/static", import_module("fastapi.staticfiles").StaticFiles(directory=static), name="static")
    for name, passes_on in _ROUTERS.items():
        source = import_module(f"monailabel.endpoints.{name}").router
        application.include_router(_checked_router(source, name, _MANY if passes_on else _ONE_AT_A_TIME), prefix=prefix)
    if settings.MONAI_LABEL_AUTH_ENABLE:
        login = import_module("monailabel.endpoints.login").router
        application.include_router(_checked_router(login, "login", _MANY), prefix=prefix)

    @application.get("/favicon.ico", include_in_schema=False)
    def favicon() -> Any:
        return responses.FileResponse(static / "favicon.ico", media_type="image/x-icon")

    @application.get(f"/{SLICER_SCRIPT.name}", include_in_schema=False)
    def slicer_script() -> Any:
        return responses.FileResponse(SLICER_SCRIPT, media_type="text/x-python")

    return application


@asynccontextmanager
async def _lifespan(_: Any) -> AsyncIterator[None]:
    instance = _instance()
    instance.server_mode(True)
    instance.on_init_complete()
    yield


async def _answer_invalid(_: Any, error: Any) -> Any:
    """Answer a request that does not fit its route with one sentence. FastAPI would answer with a list of objects."""
    faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:3]]
    response = import_module("fastapi.responses").JSONResponse
    return response({"detail": f"the request is not valid: {'; '.join(faults)}."[:500]}, 422)


class _FormRoute(APIRoute):
    """Route that limits the number of text fields of a form, which are held in memory."""

    def get_route_handler(self) -> Callable[[Any], Awaitable[Any]]:
        handle: Callable[[Any], Awaitable[Any]] = super().get_route_handler()
        form = import_module("fastapi.params").Form
        has_form = any(isinstance(p.default, form) for p in inspect.signature(self.endpoint).parameters.values())

        async def handle_form(request: Any) -> Any:
            if has_form:
                await request.form(max_fields=_MAX_FIELDS)  # FastAPI then uses the result
            return await handle(request)

        return handle_form


def _checked_router(source: Any, name: str, executor: ThreadPoolExecutor) -> Any:
    """Return a copy of a router of MONAI Label whose routes check their values."""
    router = import_module("fastapi").APIRouter(route_class=_FormRoute)
    for route in source.routes:
        router.add_api_route(
            route.path,
            _checked(route.endpoint, name, executor),
            methods=sorted(route.methods),
            response_model=route.response_model,
            tags=route.tags,
            summary=route.summary,
            responses=route.responses,
            deprecated=route.deprecated,
            include_in_schema=route.include_in_schema,
        )
    return router


def _checked(endpoint: Callable[..., Awaitable[Any]], router: str, executor: ThreadPoolExecutor) -> Callable:
    """Return an endpoint with the same parameters that checks their values and runs in a thread."""

    @functools.wraps(endpoint)
    async def checked(**values: Any) -> Any:
        if "request" in values:
            await values["request"].body()  # kept in the request, so that the thread does not have to wait for it
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, _run, endpoint, router, values)
        except BaseException:
            if "background_tasks" in values:
                await values["background_tasks"]()  # they remove temporary files; FastAPI runs them only after success
            raise

    return checked


def _run(endpoint: Callable[..., Any], router: str, values: dict[str, Any]) -> Any:
    with _errors_as_answers():
        settings = _check_values(router, values, makes_image=endpoint.__name__ == "api_add_image")
        if router not in ("logs", "ohif", "proxy", "login"):
            _check_names(endpoint.__name__, values, settings)
        result = asyncio.run(endpoint(**values))
        if endpoint.__name__ == "api_download_dataset":
            result.background = import_module("fastapi").BackgroundTasks()  # MONAI Label leaves the archive behind
            result.background.add_task(os.unlink, result.path)
    return result


def _check_values(router: str, values: Mapping[str, Any], makes_image: bool) -> Mapping[str, Any]:
    """Check the values of a request by the names of their parameters, and return the settings in them."""
    settings: Mapping[str, Any] = {}
    for key, value in values.items():
        if key in _NAMES and isinstance(value, str) and value:
            _check_name(key, value, makes_image)
        elif key == "path":
            require_path(value, "the path")
        elif hasattr(value, "filename"):
            value.filename = file_name(value.filename or "")
        elif key == "files":
            for file in value:
                file.filename = file_name(file.filename or "")
        elif key == "wsi" and not isinstance(value, str):
            settings = value.params or {}
        elif key in ("params", "info", "wsi") and value:
            content = json_object(value, key) if isinstance(value, str) else value
            require_storable(content, key)
            settings = (content.get("params") or {}) if key == "wsi" else content
        elif key == "uncompress" and value:
            raise ValueError("this server does not unpack archives; send the files themselves.")
    if router in _TASKS:
        require_task_settings(settings)
        return settings
    if router == "proxy" and not _is_remote():
        raise HTTPException(404, "there is no DICOM server behind this server: its studies are a folder.")
    return {}


def _check_name(key: str, value: str, makes_image: bool) -> None:
    what = _NAMES[key]
    try:
        for part in value.split("/") if _is_remote() else [value]:  # MONAI Label's ids of XNAT have several parts
            require_name(part, what)
    except ValueError as error:
        if makes_image or key == "tag":
            raise
        raise HTTPException(404, f"there is no {what} of this name: {error}") from error


def _check_names(endpoint: str, values: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Check that the model and the images exist, and that their files are in the folder of the studies.

    A new image without a name gets that of its file.
    """
    instance = _instance()
    known = {**instance._infers, **instance._trainers, **getattr(instance, "bundles", {})}
    for model in (values.get("model"), settings.get("model")):
        if model and str(model) not in known:
            raise HTTPException(404, f"there is no model {model!r}; the models are {', '.join(known) or 'none'}.")
    if endpoint in ("api_run_inference", "api_run_wsi_inference", "api_run_wsi_v2_inference"):
        if not any(values.get(key) for key in ("image", "file", "session_id")):
            raise HTTPException(400, "Neither Image nor File nor Session ID is given.")
        session, sessions = values.get("session_id"), instance.sessions()
        if session and (sessions is None or not sessions.get_session(session, update_ts=False)):
            raise HTTPException(404, f"there is no session {session!r}.")
        if values.get("output") == "dicom_seg" and not _is_remote():
            raise HTTPException(400, "DICOM SEG needs a DICOM server; the studies of this server are a folder.")
    if _is_remote():
        return
    images = settings.get("images")
    asked = [values.get("image"), values.get("id"), values.get("label"), settings.get("image")]
    asked += images if isinstance(images, list) else []
    store = instance.datastore()
    if endpoint == "api_download_dataset":
        for path in (path for item in store.datalist() for path in item.values()):
            if not _is_inside(path, store._datastore_path):
                raise HTTPException(403, f"{Path(path).name!r} is outside {store._datastore_path}, through a link.")
    if endpoint == "api_add_image":
        asked.remove(values.get("image"))
        # MONAI Label would end the name at its first dot
        values["image"] = values.get("image") or store.image_id(values["file"].filename)
        _require_image_file(store, values["image"], values["file"].filename)
    for image in asked:
        if isinstance(image, str) and image:
            _require_image(store, image, values.get("tag") or "final", values.get("label"))


def _require_image(store: Any, image: str, tag: str, label: Any) -> None:
    if image not in store.list_images():
        raise HTTPException(404, f"there is no image {image!r} in {store._datastore_path}.")
    folder = Path(store._datastore.label_path(tag))
    suffix = "".join(Path(label.filename).suffixes) if hasattr(label, "filename") else ""
    paths = [store.get_image_uri(image), store.get_label_uri(image, tag), folder, folder / f"{image}{suffix}"]
    for path in paths:
        if path and not _is_inside(path, store._datastore_path):
            raise HTTPException(403, f"{image!r} leads out of the folder {store._datastore_path}, through a link.")
    if os.path.exists(image):  # MONAI Label would read that file instead
        raise HTTPException(
            409, f"the server was started in a folder that also contains {image!r}; start it elsewhere."
        )


def _require_image_file(store: Any, name: str, filename: str) -> None:
    suffix = filename[len(store.image_id(filename)) :]
    require_name(name, "image")
    path = Path(store._datastore.image_path()) / f"{name}{suffix}"
    if not suffix or path.is_dir() or path.name == Path(store._datastore_config_path).name:
        raise HTTPException(400, f"{filename!r} is not an image; send a file whose name ends as that of an image.")
    if not _is_inside(path, store._datastore_path):
        raise HTTPException(403, f"{name!r} leads out of the folder {store._datastore_path}, through a link.")


def _is_inside(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


def _instance() -> Any:
    return import_module("monailabel.interfaces.utils.app").app_instance()


def _is_remote() -> bool:
    studies = import_module("monailabel.config").settings.MONAI_LABEL_STUDIES
    return bool(studies.startswith(("http://", "https://")))


@contextmanager
def _errors_as_answers() -> Iterator[None]:
    """Turn errors of a request into answers with a reason."""
    exceptions = import_module("monailabel.interfaces.exception")
    try:
        yield
    except HTTPException as error:
        status = next((new for text, new in _STATUS.items() if text in str(error.detail)), error.status_code)
        raise HTTPException(status, error.detail, error.headers) from error
    except (exceptions.ImageNotFoundException, exceptions.LabelNotFoundException) as error:
        raise HTTPException(404, error.msg) from error
    except exceptions.MONAILabelException as error:
        raise HTTPException(400, error.msg) from error
    except import_module("requests").RequestException as error:
        raise HTTPException(502, f"the server behind this server does not answer: {type(error).__name__}.") from error
    except (ValueError, OverflowError, AssertionError) as error:
        logger.info("a request is refused", exc_info=True)
        raise HTTPException(400, str(error)[:500] or type(error).__name__) from error
    except Exception as error:
        logger.exception("a request failed")
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise HTTPException(500, f"the server failed, see its log: {reason}") from error
