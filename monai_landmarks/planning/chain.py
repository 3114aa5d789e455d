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
"""Choice of the chains whose candidates are chosen together, such as the vertebrae of a spine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from monai_landmarks.heatmaps import chain_offsets
from monai_landmarks.schema import LandmarkSchema, match_landmarks

from .choice import Choice, Choices
from .data_summary import DataSummary

__all__ = ["chain_arguments", "chain_inferer", "choose_chains"]

# part of the shortest step from a landmark to the next: candidates of a map that are closer show the same place
_CLOSEST = 0.4


def choose_chains(summary: DataSummary, schema: LandmarkSchema | None) -> Choice:
    """Choose the chains: those of the schema that all training volumes show completely.

    Args:
        summary: summary of the data.
        schema: landmark schema. None: there are no chains.
    """
    chains = {} if schema is None else schema.chains
    if summary.spatial_dims == 2 and chains:
        return Choice([], "pictures are scaled to the grid, each by its own factor, so they have no usual steps")
    if schema is None or not chains or summary.training_points is None:
        return Choice([], "no schema with chains is given")
    column = dict(zip(schema.names, match_landmarks(schema, summary.names).columns))
    found: list[list[str]] = []
    for chain in chains.values():
        used = {name for other in found for name in other}
        rows = [row for name in chain if (row := column[name]) is not None and summary.names[row] not in used]
        if len(rows) > 1 and np.isfinite(summary.training_points[:, rows]).all():
            found.append([summary.names[row] for row in rows])
    if not found:
        return Choice([], f"no chain of the schema {schema.name} is complete in all training volumes")
    return Choice(found, f"of the schema {schema.name}; if the highest peaks do not fit together, others replace them")


def chain_inferer(inferer: dict[str, Any], choices: Choices, summary: DataSummary) -> dict[str, Any]:
    """Return the configuration of an inferer that chooses the candidates of the chains.

    Args:
        inferer: configuration of the inferer that computes the maps.
        choices: choices so far, among them chains, grid and mirroring.
        summary: summary of the data.

    Raises:
        ValueError: for a given chain with an unknown name, or whose landmarks no training volume has.
    """
    chains, spacing = choices["chains"].value, choices["spacing_mm"].value
    unknown = [name for chain in chains for name in chain if name not in summary.names]
    if unknown or summary.training_points is None:
        raise ValueError(f"chains are {chains}; expected lists of landmarks of the datalist.")
    rows = [[summary.names.index(name) for name in chain] for chain in chains]
    mirrored = choices["flip"].value > 0
    result: dict[str, Any] = {
        "_target_": "monai_landmarks.inferers.ChainLandmarkInferer",
        "inferer": inferer,
        "softmax": True,
        "chain": {
            "_target_": "monai_landmarks.transforms.HeatmapToChainLandmarks",
            "choose_by": "evidence",
            "num_peaks": 6,
            **chain_arguments(rows, summary.training_points / spacing, mirrored),
        },
    }
    if mirrored and not choices["one_sided"].value:
        partner = {name: other for pair in summary.pairs for name, other in (pair, pair[::-1])}
        result["mirror"] = [summary.names.index(partner.get(name, name)) for name in summary.names]
    return result


def chain_arguments(rows: Sequence[Sequence[int]], points: np.ndarray, mirrored: bool = False) -> dict[str, Any]:
    """Return the arguments of ``HeatmapToChainLandmarks`` that depend on the data.

    Args:
        rows: rows of the landmarks of each chain.
        points: landmarks of the training images in voxels of the grid, (n, N, D), NaN where missing.
        mirrored: whether the steps are the means over images and their mirror images, and so do not go aside.
    """
    offsets = [chain_offsets(torch.as_tensor(points[:, chain])).numpy() for chain in rows]
    for steps in offsets:
        if mirrored:
            steps[:, 0] = 0.0
    shortest = min(float(np.linalg.norm(steps, axis=1).min()) for steps in offsets)
    return {
        "chains": [list(chain) for chain in rows],
        "offsets": [np.round(steps, 2).tolist() for steps in offsets],
        "min_distance": max(round(_CLOSEST * shortest, 1), 1.0),
    }
