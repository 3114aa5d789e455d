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


"""Parts and runs of other configuration files of a bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .bundle_metadata import require_readable

__all__ = ["bundle_component", "run_bundle_config"]


def bundle_component(key: str, config_file: str | os.PathLike | Sequence[str | os.PathLike], **overrides: Any) -> Any:
    """Read an entry of other configuration files, and build what it describes.

    So a configuration can use the network of another one without repeating its definition.

    Args:
        key: of the entry, for example ``"network_def"`` or ``"inferer"``.
        config_file: one or several configuration files, as for ``python -m monai.bundle run``.
        overrides: values of entries, at least ``bundle_root`` if the files are not in the current folder. A value may
            be any object. It is used as it is: a string that begins with ``$``, ``@`` or ``%`` is not evaluated.

    Returns:
        The object, or the plain value.

    Raises:
        ValueError: if there is no such entry, or a file is damaged.
    """
    from monai.bundle import ConfigParser  # slow to import, and not needed by most users of this module

    require_readable(config_file)
    parser = ConfigParser()
    parser.read_config(config_file)  # type: ignore[arg-type]
    parser.update(_as_they_are(overrides))
    if key not in parser:
        raise ValueError(f"{config_file}: there is no entry {key!r}.")
    return parser.get_parsed_content(key)


def run_bundle_config(
    config_file: str | os.PathLike | Sequence[str | os.PathLike], run_id: str = "run", **overrides: Any
) -> None:
    """Run other configuration files, as ``python -m monai.bundle run`` does.

    So a configuration can train the network of another one first, on its own data.

    Args:
        config_file: one or several configuration files.
        run_id: entry that is run, for example ``"training"``.
        overrides: values of entries, see :func:`bundle_component`.

    Raises:
        RuntimeError: in a training by several processes, each of which would run all of it.
        ValueError: if a file is damaged.
    """
    import torch.distributed as dist
    from monai.bundle import run

    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise RuntimeError(
            f"{config_file} cannot be run inside a training by several processes. Run it first, as a training of its own "
            f"with --ckpt_dir {overrides.get('ckpt_dir')}, and then fine_training in place of training."
        )
    require_readable(config_file)
    run(run_id=run_id, config_file=config_file, **_as_they_are(overrides))  # type: ignore[arg-type]


def _as_they_are(values: dict[str, Any]) -> dict[str, Any]:
    """Return configurations that evaluate to these values, for MONAI evaluates what is in a string, dict or list."""
    return {key: {"_target_": _Constant(value)} for key, value in values.items()}


class _Constant:
    """A function that returns a value, and that MONAI's log shows as this value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value

    def __deepcopy__(self, memo: Any) -> _Constant:  # MONAI copies what a macro refers to
        return self

    def __repr__(self) -> str:
        return repr(self.value)
