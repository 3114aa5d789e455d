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

"""Web application of ``monai-landmarks label-server``: MONAI Label behind a gate."""

from __future__ import annotations

from typing import Any

from .gate import Access, Gate

__all__ = ["app"]

app: Any


def __getattr__(name: str) -> Any:
    """Create ``app`` on first access, because this imports all of MONAI Label."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .server import make_application

    globals()["app"] = Gate(make_application(), Access.from_environment())
    return globals()["app"]
