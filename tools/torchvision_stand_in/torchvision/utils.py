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

"""The functions that MONAI Label imports, to draw pictures for debugging its own networks."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["make_grid", "save_image"]


def make_grid(*args: Any, **kwargs: Any) -> NoReturn:
    """Says what is missing.

    Raises:
        ImportError: always.
    """
    raise ImportError("make_grid and save_image need torchvision, which does not run beside this build of torch.")


save_image = make_grid
