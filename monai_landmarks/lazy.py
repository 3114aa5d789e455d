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

"""Modules and names that are imported at their first use.

``import torch`` and ``import monai`` take seconds, and most commands need neither. Folders that all commands share
therefore import them at their first use: a name of a package through :func:`lazy_names`, an optional package through
:func:`lazy_import`, and everything else inside functions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["is_installed", "lazy_import", "lazy_names", "optional_base"]


def lazy_names(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package that imports some of its names at their first use (PEP 562).

    For type checkers, the package imports the same names under ``if TYPE_CHECKING``.

    Args:
        package: ``__name__`` of the package.
        modules: module of each name, relative to the package.

    Example::

        if TYPE_CHECKING:
            from .picture_reader import ImageFileReader

        __getattr__, __dir__ = lazy_names(__name__, {"ImageFileReader": "picture_reader"})
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names


class _LazyModule:
    """A module that is imported when one of its attributes is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # doctest and inspect look for some in every object
            raise AttributeError(attribute)
        try:
            module = import_module(self._name)
        except ModuleNotFoundError as error:
            package = self._name.partition(".")[0]
            raise ImportError(
                f"the package {package} is required for this, but is not installed; install it."
            ) from error
        return getattr(module, attribute)


def lazy_import(module: str) -> Any:
    """Return a stand-in for an optional module, which is imported when one of its attributes is used.

    MONAI's ``optional_import`` imports the module at once, and MONAI itself before it.

    Args:
        module: full name of the module.

    Returns:
        The stand-in. Its attributes raise ``ImportError`` if the package is not installed.

    Example:
        >>> lazy_import("math").sqrt(4.0)
        2.0
    """
    return _LazyModule(module)


def optional_base(module: str, name: str) -> Any:
    """Return a class to inherit from. Without its package, only making an object of the new class is an error.

    Args:
        module: full name of the module, which is imported at once.
        name: name of the class.
    """
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError:

        class Missing:
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                getattr(_LazyModule(module), name)(*args, **kwargs)

        return Missing


def is_installed(package: str) -> bool:
    """Return whether a top-level package can be imported, without importing it."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # an import hook or a module without a spec
        return False
