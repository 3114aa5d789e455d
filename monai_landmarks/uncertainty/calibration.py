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

"""Covariances that are calibrated on validation images, by one factor per landmark."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from monai_landmarks.data.files.json_values import is_number
from monai_landmarks.data.files.safe_files import naming_file

from .coverage import mahalanobis_distance
from .probability import ProbabilityModel
from .weights_files import read_kind, write_kind

__all__ = ["MIN_IMAGES", "CovarianceCalibration"]

if TYPE_CHECKING:
    import torch

_Array = TypeVar("_Array", np.ndarray, "torch.Tensor")

MIN_IMAGES = 20  # of a landmark, for its own factor; with fewer, it varies more than the landmarks differ
_MIN_POOLED = 4  # images for a factor that all landmarks share
# quantiles at these levels of the squared length of a 2-D or 3-D normal vector
_LEVELS = (0.5, 0.9, 0.95)
_CHI2 = {2: (1.386294, 4.605170, 5.991465), 3: (2.365974, 6.251389, 7.814728)}
_KIND = "calibration of landmark covariances"


@dataclass(frozen=True)
class CovarianceCalibration:
    """Factors by which covariances are multiplied, so that their ellipses hold as many landmarks as they state.

    Args:
        names: names of the N landmarks.
        factors: N factors.
        cases: N numbers of images from which the factors were learned.
        pooled: for each landmark, whether the factor is that of all landmarks.
        probability: model of the probability that a landmark is within a distance of its true place. None: unknown.

    Raises:
        ValueError: if the lengths differ or a factor is not a positive number.
    """

    names: tuple[str, ...]
    factors: tuple[float, ...]
    cases: tuple[int, ...]
    pooled: tuple[bool, ...]
    probability: ProbabilityModel | None = None

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.factors) == len(self.cases) == len(self.pooled):
            raise ValueError("names, factors, cases and pooled must have the same length.")
        if not all(math.isfinite(factor) and factor > 0 for factor in self.factors):
            raise ValueError("the factors must be positive numbers.")
        if self.probability is not None and self.probability.names != self.names:
            raise ValueError("the probabilities are of other landmarks than the factors.")

    @classmethod
    def fit(
        cls, names: Sequence[str], offsets: np.ndarray, covariances: np.ndarray, min_images: int = MIN_IMAGES
    ) -> CovarianceCalibration:
        """Learn the factors from images with ground truth that no training has used.

        The factor of a landmark is the geometric mean of those that make the ellipses of 50, 90 and 95 % hold, so that
        a few gross errors do not enlarge all ellipses. A landmark in few images gets the factor of all landmarks.

        Args:
            names: names of the N landmarks.
            offsets: array (K, N, D), true minus predicted points in mm, NaN where one of them is missing.
            covariances: array (K, N, D, D) in mm^2, NaN where unknown.
            min_images: number of images that a landmark needs for its own factor.

        Returns:
            The calibration.

        Raises:
            ValueError: if fewer than 4 images have a landmark with error and covariance.

        Example:
            >>> random = np.random.default_rng(0)
            >>> offsets = random.normal(0, 2.0, (2000, 1, 2))  # standard deviation 2 mm, but 1 mm is stated
            >>> found = CovarianceCalibration.fit(["tip"], offsets, np.broadcast_to(np.eye(2), (2000, 1, 2, 2)))
            >>> round(found.factors[0])
            4
        """
        distances = mahalanobis_distance(offsets, covariances)
        known = ~np.isnan(distances)
        images = int(known.any(axis=1).sum())
        if images < _MIN_POOLED:
            raise ValueError(
                f"{images} images have a landmark with error and covariance; a calibration requires {_MIN_POOLED}."
            )
        dims = offsets.shape[-1]
        common = _factor(distances, dims)
        own = known.sum(axis=0) >= min_images
        factors = [_factor(distances[:, n], dims) if own[n] else common for n in range(len(names))]
        cases = [int(known[:, n].sum()) if own[n] else images for n in range(len(names))]
        return cls(tuple(names), tuple(factors), tuple(cases), tuple(bool(not alone) for alone in own))

    def apply(self, covariances: _Array, names: Sequence[str] | None = None) -> _Array:
        """Return covariances (..., N, D, D) multiplied by the factors.

        Args:
            covariances: array or tensor.
            names: names of the N landmarks. Default: those of the calibration, in its order.

        Raises:
            ValueError: if a landmark was not calibrated.
        """
        by_name = dict(zip(self.names, self.factors))
        names = self.names if names is None else names
        unknown = [name for name in names if name not in by_name]
        if unknown or len(names) != covariances.shape[-3]:
            raise ValueError(
                f"the calibration is of other landmarks: it has {len(self.names)}, the covariances are of"
                f" {covariances.shape[-3]}{f', for example {unknown[0]!r}' if unknown else ''}."
            )
        factors = [by_name[name] for name in names]
        known: Any = covariances
        scale = np.array(factors) if isinstance(known, np.ndarray) else known.new_tensor(factors)
        return known * scale[:, None, None]

    def save(self, path: str | os.PathLike) -> None:
        """Write a small JSON file, completely or not at all."""
        landmarks = {
            name: {"factor": factor, "images": cases, "pooled": pooled}
            for name, factor, cases, pooled in zip(self.names, self.factors, self.cases, self.pooled)
        }
        further = {} if self.probability is None else {"probability": self.probability.to_dict()}
        write_kind(path, _KIND, {"landmarks": landmarks, **further})

    @classmethod
    def load(cls, path: str | os.PathLike) -> CovarianceCalibration:
        """Read a file that :meth:`save` has written.

        Raises:
            ValueError: if the file contains something else or is malformed.
        """
        with naming_file(path):
            content = read_kind(path, _KIND, "train again, or remove the file.")
            landmarks, probability = content.get("landmarks"), content.get("probability")
            if not isinstance(landmarks, dict) or not all(_is_entry(entry) for entry in landmarks.values()):
                raise ValueError("'landmarks' is malformed; expected factor, images and pooled of each landmark.")
            entries: list[dict[str, Any]] = list(landmarks.values())
            return cls(
                tuple(landmarks),
                tuple(float(entry["factor"]) for entry in entries),
                tuple(int(entry["images"]) for entry in entries),
                tuple(entry["pooled"] is True for entry in entries),
                None if probability is None else ProbabilityModel.from_dict(probability),
            )


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(is_number(entry.get(key)) for key in ("factor", "images"))


def _factor(distances: np.ndarray, dims: int) -> float:
    """Return the factor on variances for Mahalanobis distances (K,) or (K, N)."""
    known = distances[np.isfinite(distances)] if np.isfinite(distances).any() else np.zeros(0)
    ratios = []
    for level, expected in zip(_LEVELS, _CHI2[dims]):
        if level <= len(known) / (len(known) + 1):
            # this quantile of a sample is below a new value with the probability of the level, on average
            bound = float(np.quantile(known, level, method="weibull"))
            ratios.append(math.log(max(bound, 1e-6) ** 2 / expected))
    return math.exp(float(np.mean(ratios))) if ratios else 1.0
