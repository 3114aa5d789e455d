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


"""Parts of other configuration files of a bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

__all__ = ["bundle_component"]


def bundle_component(key: str, config_file: str | os.PathLike | Sequence[str | os.PathLike], **overrides: Any) -> Any:
    """Read an entry of other configuration files, and build what it describes.

    So a configuration can use the network of another one without repeating its definition.

    Args:
        key: of the entry, for example ``"network_def"`` or ``"inferer"``.
        config_file: one or several configuration files, as for ``python -m monai.bundle run``.
        overrides: entries that are changed, at least ``bundle_root`` if the files are not in the current folder.

    Returns:
        The object, or the plain value.

    Raises:
        ValueError: if there is no such entry.
    """
    from monai.bundle import ConfigParser  # slow to import, and not needed by most users of this module

    parser = ConfigParser()
    parser.read_config(config_file)  # type: ignore[arg-type]
    parser.update(overrides)
    if key not in parser:
        raise ValueError(f"{config_file}: there is no entry {key!r}.")
    return parser.get_parsed_content(key)
