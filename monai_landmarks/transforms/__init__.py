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
"""MONAI transforms of images with their landmarks, and of heatmaps, for arrays and dictionaries."""

from __future__ import annotations

from .affine import EnsureWorldAffine, EnsureWorldAffineD, EnsureWorldAffined, EnsureWorldAffineDict
from .chains import (
    HeatmapToChainLandmarks,
    HeatmapToChainLandmarksD,
    HeatmapToChainLandmarksd,
    HeatmapToChainLandmarksDict,
)
from .crop import RandCropByLandmarks, RandCropByLandmarksD, RandCropByLandmarksd, RandCropByLandmarksDict
from .device import UncachedToDeviceD, UncachedToDeviced, UncachedToDeviceDict
from .finite import RequireFinite, RequireFiniteD, RequireFinited, RequireFiniteDict
from .fit_to_grid import FitToGrid, FitToGridD, FitToGridd, FitToGridDict
from .flip import RandLandmarkFlip, RandLandmarkFlipD, RandLandmarkFlipd, RandLandmarkFlipDict
from .foreground import CropToForeground, CropToForegroundD, CropToForegroundd, CropToForegroundDict
from .gray import ToGray, ToGrayD, ToGrayd, ToGrayDict
from .group_centers import GroupCenters, GroupCentersD, GroupCentersd, GroupCentersDict
from .groups import LandmarkGroups, groups_by_name
from .guard import require_followable_chain, require_followable_transforms
from .heatmap import (
    HeatmapToLandmarks,
    HeatmapToLandmarksD,
    HeatmapToLandmarksd,
    HeatmapToLandmarksDict,
    LandmarksToHeatmap,
    LandmarksToHeatmapD,
    LandmarksToHeatmapd,
    LandmarksToHeatmapDict,
)
from .index_world import (
    LandmarksToIndex,
    LandmarksToIndexD,
    LandmarksToIndexd,
    LandmarksToIndexDict,
    LandmarksToWorld,
    LandmarksToWorldD,
    LandmarksToWorldd,
    LandmarksToWorldDict,
)
from .io import (
    LoadLandmarks,
    LoadLandmarksD,
    LoadLandmarksd,
    LoadLandmarksDict,
    SaveLandmarks,
    SaveLandmarksD,
    SaveLandmarksd,
    SaveLandmarksDict,
)
from .patches import (
    RandLandmarkPatches,
    RandLandmarkPatchesD,
    RandLandmarkPatchesd,
    RandLandmarkPatchesDict,
    cut_patches,
    require_room_for_patch,
)
from .reliability import (
    CalibrateCovariancesD,
    CalibrateCovariancesd,
    CalibrateCovariancesDict,
    ExamineLandmarksD,
    ExamineLandmarksd,
    ExamineLandmarksDict,
    LandmarkProbabilityD,
    LandmarkProbabilityd,
    LandmarkProbabilityDict,
)
from .resample import ResampleToSpacing, ResampleToSpacingD, ResampleToSpacingd, ResampleToSpacingDict
from .spline_warp import SplineWarp
from .warp import RandLandmarkWarp, RandLandmarkWarpD, RandLandmarkWarpd, RandLandmarkWarpDict

__all__ = [
    "CalibrateCovariancesD",
    "CalibrateCovariancesDict",
    "CalibrateCovariancesd",
    "CropToForeground",
    "CropToForegroundD",
    "CropToForegroundDict",
    "CropToForegroundd",
    "EnsureWorldAffine",
    "EnsureWorldAffineD",
    "EnsureWorldAffineDict",
    "EnsureWorldAffined",
    "ExamineLandmarksD",
    "ExamineLandmarksDict",
    "ExamineLandmarksd",
    "LandmarkProbabilityD",
    "LandmarkProbabilityDict",
    "LandmarkProbabilityd",
    "FitToGrid",
    "FitToGridD",
    "FitToGridDict",
    "FitToGridd",
    "GroupCenters",
    "GroupCentersD",
    "GroupCentersDict",
    "GroupCentersd",
    "HeatmapToChainLandmarks",
    "HeatmapToChainLandmarksD",
    "HeatmapToChainLandmarksDict",
    "HeatmapToChainLandmarksd",
    "HeatmapToLandmarks",
    "HeatmapToLandmarksD",
    "HeatmapToLandmarksDict",
    "HeatmapToLandmarksd",
    "LandmarkGroups",
    "LandmarksToHeatmap",
    "LandmarksToHeatmapD",
    "LandmarksToHeatmapDict",
    "LandmarksToHeatmapd",
    "LandmarksToIndex",
    "LandmarksToIndexD",
    "LandmarksToIndexDict",
    "LandmarksToIndexd",
    "LandmarksToWorld",
    "LandmarksToWorldD",
    "LandmarksToWorldDict",
    "LandmarksToWorldd",
    "LoadLandmarks",
    "LoadLandmarksD",
    "LoadLandmarksDict",
    "LoadLandmarksd",
    "RandCropByLandmarks",
    "RandCropByLandmarksD",
    "RandCropByLandmarksDict",
    "RandCropByLandmarksd",
    "RandLandmarkFlip",
    "RandLandmarkFlipD",
    "RandLandmarkFlipDict",
    "RandLandmarkFlipd",
    "RandLandmarkPatches",
    "RandLandmarkPatchesD",
    "RandLandmarkPatchesDict",
    "RandLandmarkPatchesd",
    "RandLandmarkWarp",
    "RandLandmarkWarpD",
    "RandLandmarkWarpDict",
    "RandLandmarkWarpd",
    "RequireFinite",
    "RequireFiniteD",
    "RequireFiniteDict",
    "RequireFinited",
    "ResampleToSpacing",
    "ResampleToSpacingD",
    "ResampleToSpacingDict",
    "ResampleToSpacingd",
    "SaveLandmarks",
    "SaveLandmarksD",
    "SaveLandmarksDict",
    "SaveLandmarksd",
    "SplineWarp",
    "ToGray",
    "ToGrayD",
    "ToGrayDict",
    "ToGrayd",
    "UncachedToDeviceD",
    "UncachedToDeviceDict",
    "UncachedToDeviced",
    "cut_patches",
    "require_room_for_patch",
    "groups_by_name",
    "require_followable_chain",
    "require_followable_transforms",
]
