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

"""Data: landmark sets and their files, images, datalists and public datasets.

Users import from this module. The rooms inside are ``files``, ``images``, ``landmarks``, ``datalists`` and
``datasets``; each uses only those before it. What needs torch or MONAI, and the phantoms, are
imported at their first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_landmarks.lazy import lazy_names

from .datalists.bundle_metadata import bundle_landmark_names
from .datalists.bundle_weights import find_weights
from .datalists.datalist import (
    build_datalist,
    datalist_item,
    load_landmark_datalist,
    load_landmark_definition,
    load_landmark_pairs,
    make_datalists,
    read_item_landmarks,
    save_datalist,
)
from .datalists.datalist_faults import DatalistError, check_datalist, require_valid_datalist
from .datalists.groups_pairs_splits import read_groups, read_pairs, read_sections
from .datalists.inspection import CheckedImage, DataCheck, check_data
from .datalists.item_points import item_world_points
from .datalists.pairing import LandmarkCase, Pairing, pair_landmarks
from .datalists.split import fold_images, group_images, split_images
from .datalists.table_folder import table_folder_datalist
from .datasets.aasce import AASCE_LANDMARKS, AASCE_PAIRS, aasce_datalist
from .datasets.catalog import PUBLIC_DATASETS, public_dataset
from .datasets.completeness import DatasetCheck, DatasetPart, check_public_dataset
from .datasets.isbi2015 import ISBI2015_LANDMARKS, isbi2015_datalist
from .datasets.public_dataset import PublicDataset
from .datasets.verse import VERSE_LANDMARKS, verse_datalist
from .files.safe_files import atomic_write
from .images.image_files import image_stem, read_image
from .images.image_folder import image_folder_items
from .images.name_index import NameIndex
from .landmarks.convert import Conversion, ConversionFault, ConvertedFile, convert_landmarks
from .landmarks.landmark_io import (
    LandmarkFormat,
    find_landmark_files,
    landmark_formats,
    landmark_suffix,
    read_landmark_table,
    read_landmarks,
    register_format,
    write_landmark_table,
    write_landmarks,
)
from .landmarks.landmark_set import CoordinateSystem, LandmarkSet
from .landmarks.pipeline_item import landmark_set_of

if TYPE_CHECKING:
    from .datalists.bundle_config import bundle_component, run_bundle_config
    from .datasets.phantom import hand_phantom, spine_phantom, write_hand_phantom, write_spine_phantom
    from .files.tensor_files import atomic_save
    from .images.picture_reader import ImageFileReader
    from .images.readable_loader import ReadableDataLoader, UnreadableImage, UnreadableImagesError

__all__ = [
    "AASCE_LANDMARKS",
    "AASCE_PAIRS",
    "CheckedImage",
    "Conversion",
    "ConversionFault",
    "ConvertedFile",
    "CoordinateSystem",
    "DataCheck",
    "DatalistError",
    "DatasetCheck",
    "DatasetPart",
    "ISBI2015_LANDMARKS",
    "ImageFileReader",
    "LandmarkCase",
    "LandmarkFormat",
    "LandmarkSet",
    "NameIndex",
    "PUBLIC_DATASETS",
    "Pairing",
    "PublicDataset",
    "ReadableDataLoader",
    "UnreadableImage",
    "UnreadableImagesError",
    "VERSE_LANDMARKS",
    "aasce_datalist",
    "atomic_save",
    "atomic_write",
    "build_datalist",
    "bundle_component",
    "bundle_landmark_names",
    "check_data",
    "check_datalist",
    "check_public_dataset",
    "convert_landmarks",
    "datalist_item",
    "find_landmark_files",
    "find_weights",
    "fold_images",
    "group_images",
    "hand_phantom",
    "image_folder_items",
    "image_stem",
    "isbi2015_datalist",
    "item_world_points",
    "landmark_formats",
    "landmark_set_of",
    "landmark_suffix",
    "load_landmark_datalist",
    "load_landmark_definition",
    "load_landmark_pairs",
    "make_datalists",
    "pair_landmarks",
    "public_dataset",
    "read_groups",
    "read_image",
    "read_item_landmarks",
    "read_landmark_table",
    "read_landmarks",
    "read_pairs",
    "read_sections",
    "register_format",
    "require_valid_datalist",
    "run_bundle_config",
    "save_datalist",
    "spine_phantom",
    "split_images",
    "table_folder_datalist",
    "verse_datalist",
    "write_hand_phantom",
    "write_landmark_table",
    "write_landmarks",
    "write_spine_phantom",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ImageFileReader": "images.picture_reader",
        "ReadableDataLoader": "images.readable_loader",
        "UnreadableImage": "images.readable_loader",
        "UnreadableImagesError": "images.readable_loader",
        "atomic_save": "files.tensor_files",
        "bundle_component": "datalists.bundle_config",
        "hand_phantom": "datasets.phantom",
        "run_bundle_config": "datalists.bundle_config",
        "spine_phantom": "datasets.phantom",
        "write_hand_phantom": "datasets.phantom",
        "write_spine_phantom": "datasets.phantom",
    },
)
