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
"""What a bundle keeps of another one: the common landmarks, its close look, and the width of its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from monai_landmarks.data.files.name_lists import some_names
from monai_landmarks.schema import Landmark, LandmarkSchema, match_landmarks

from .coarse_network import has_own_coarse_network
from .data_summary import DataSummary
from .source_bundle import SourceBundle

__all__ = ["FineTuning", "fine_tuning_from"]


@dataclass(frozen=True)
class FineTuning:
    """What a bundle takes over from the trained bundle that it is fine-tuned from.

    Args:
        source: the bundle.
        kept: for each landmark of the data, its index in the bundle; None for a new one.
        names: names of the landmarks of the data.
        close_look_fault: why there is no close look; empty if there is one, None if the bundle has none.
    """

    source: SourceBundle
    kept: tuple[int | None, ...]
    names: tuple[str, ...]
    close_look_fault: str | None

    @property
    def close_look(self) -> bool:
        """Whether the close look is kept."""
        return self.close_look_fault == ""

    @property
    def shared_close_look(self) -> bool:
        """Whether the landmarks share one channel of the close look, so that it fits any landmarks."""
        return self.close_look and bool(self.source.configs["close_look"]["close_groups"].get("shared"))

    def of_landmarks(self, values: Sequence[Any]) -> list[Any]:
        """Return values of the bundle's landmarks for those of the data; the median for new ones."""
        middle = median(values)
        return [middle if row is None else values[row] for row in self.kept]

    def rows(self) -> list[tuple[str, str]]:
        """Return what is kept as pairs of heading and text."""
        source, terms = self.source, f"; their terms: {self.source.terms}" if self.source.terms else ""
        same = [
            name if name == source.names[row] else f"{name} (there {source.names[row]})"
            for name, row in zip(self.names, self.kept)
            if row is not None
        ]
        new = [name for name, row in zip(self.names, self.kept) if row is None]
        gone = [name for row, name in enumerate(source.names) if row not in self.kept]
        rows = [
            ("learned from", f"{source.name}, weights {source.weights_file.name}{terms}"),
            ("kept", _listed(same, "same name or abbreviation, so what was learned is kept")),
            ("new", _listed(new, f"not in {source.name}, so learned from scratch")),
            ("left out", _listed(gone, "not in the datalist")),
        ]
        if self.close_look:
            untrained = ", which is not trained there and starts fresh" if source.close_weights is None else ""
            rows.append(("close look", f"kept, in close_look.json{untrained}"))
        elif self.close_look_fault:
            rows.append(("close look", f"not kept, because {self.close_look_fault}"))
        return rows


def fine_tuning_from(source: SourceBundle, summary: DataSummary) -> tuple[FineTuning, DataSummary]:
    """Match the landmarks of a dataset with those of a bundle, by name or by the abbreviations of its schema.

    Args:
        source: the bundle.
        summary: summary of the data.

    Returns:
        What is known from the bundle. And the summary, with the left-right pairs of the bundle's schema if the data
        declare none.

    Raises:
        ValueError: if the dimensions differ, or if no landmark is common.
    """
    if source.spatial_dims != summary.spatial_dims:
        raise ValueError(
            f"{source.folder}: the bundle is for {source.spatial_dims}-D images, but those of the datalist are"
            f" {summary.spatial_dims}-D."
        )
    # the names of the bundle may be abbreviations of its schema, too
    marks = {} if source.schema is None else _marks(source.schema, source.names)
    known = tuple(marks.get(name, Landmark(name)) for name in source.names)
    match = match_landmarks(LandmarkSchema(source.name, source.spatial_dims, known), summary.names)
    kept = tuple(match.columns.index(i) if i in match.columns else None for i in range(len(summary.names)))
    if not any(row is not None for row in kept):
        raise ValueError(
            f"{source.folder}: no landmark of the datalist ({some_names(summary.names)}) is one of the bundle"
            f" ({some_names(source.names)}). Rename those that are the same, or use init without --from."
        )
    if not summary.pairs and source.schema is not None:
        given = {known[row].name: name for name, row in zip(summary.names, kept) if row is not None}
        pairs = tuple((given[a], given[b]) for a, b in source.schema.pairs if a in given and b in given)
        summary = replace(summary, pairs=pairs)
    fault = _close_look_fault(source) if "close_look" in source.configs else None
    return FineTuning(source, kept, summary.names, fault), summary


def _marks(schema: LandmarkSchema, names: Sequence[str]) -> dict[str, Landmark]:
    """Return the landmarks of a schema by the names that a bundle has for them, without their groups."""
    pairs = zip(match_landmarks(schema, names).names(names), schema.landmarks)
    return {name: Landmark(mark.name, abbreviation=mark.abbreviation) for name, mark in pairs if name is not None}


def _close_look_fault(source: SourceBundle) -> str:
    """Return why a close look cannot be adapted to other landmarks and images; empty if it can."""
    config = source.configs["close_look"]
    if has_own_coarse_network(config):
        return "its coarse network has configuration files of its own"
    if source.grid_spacing is None:
        return "the bundle does not state the voxel size of its grid, to which the lengths of its close look belong"
    groups = config.get("close_groups", {})
    own, shared = groups.get("_target_", "").endswith(".LandmarkGroups"), groups.get("shared", False)
    if own and (all(len(rows) == 1 for rows in groups["groups"]) if shared else groups.get("groups") is None):
        return ""
    return "the landmarks of a group share its patches, and new groups are not known"


def _listed(names: Sequence[str], reason: str) -> str:
    return f"{len(names)}: {', '.join(names)}; {reason}" if names else "none"
