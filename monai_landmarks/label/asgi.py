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

"""Web application of MONAI Label that does not allow web pages from other servers to read its answers.

MONAI Label allows every page that is open in a browser on the same machine to read images and labels. In version 0.8.5, its
setting ``MONAI_LABEL_CORS_ORIGINS`` cannot change that: with it, the server does not start. Viewers do not need this
permission: it does not apply to programs, and OHIF comes from the server itself.
"""

from __future__ import annotations

from typing import Any

from monai.utils import optional_import

__all__ = ["app"]

app: Any


def __getattr__(name: str) -> Any:
    """Create ``app`` on first access, because this imports all of MONAI Label."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    application, _ = optional_import("monailabel.app", name="app")
    cors, _ = optional_import("fastapi.middleware.cors", name="CORSMiddleware")
    application.user_middleware = [entry for entry in application.user_middleware if entry.cls is not cors]
    return application
