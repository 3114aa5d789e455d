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
"""The page that goes with a bundle: what was chosen for it and why, and how it is used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from monai_landmarks import bundle_path

from .data_summary import SECTIONS, DataSummary
from .methods import METHODS
from .plan import Plan

__all__ = ["choice_rows", "data_license", "describe", "readme"]


def choice_rows(plan: Plan) -> list[dict[str, str]]:
    """A row for each choice: setting, value and reason, as text."""
    return [
        {"setting": name, "value": _text(choice.value), "because": choice.reason}
        for name, choice in plan.choices.items()
    ]


def describe(summary: DataSummary) -> list[tuple[str, str]]:
    """What the data is, as headings and text."""
    count = ", ".join(f"{number} for {section}" for number, section in zip(summary.counts, SECTIONS))
    return [
        ("images", f"{summary.spatial_dims}-D, {count}"),
        ("size", f"{_range(summary.sizes)} voxels"),
        ("spacing", "not known: a pixel counts as 1 mm" if summary.in_pixels else f"{_range(summary.spacings)} mm"),
        ("landmarks", f"{len(summary.names)}, up to {_product(summary.point_extent)} {summary.unit} apart"),
        ("pairs", f"{len(summary.pairs)} left-right pairs"),
    ]


def readme(plan: Plan, folder: Path, datalist: Path) -> str:
    """The bundle's README in Markdown."""
    method = METHODS[plan.method]
    rows = "\n".join(f"| {r['setting']} | `{r['value']}` | {r['because']} |" for r in choice_rows(plan))
    data = "\n".join(f"- {heading}: {text}" for heading, text in describe(plan.summary))
    return _PAGE.format(
        name=folder.name,
        title=method.title,
        final_config=method.final_config,
        bundle=method.bundle,
        folder=folder,
        datalist=datalist,
        data=data,
        rows=rows,
        names=", ".join(plan.summary.names),
        spacing_note=_spacing_note(plan),
        references="\n\n".join(_references(method.bundle)),
    )


def _spacing_note(plan: Plan) -> str:
    if plan.summary.spatial_dims == 2:
        return _PICTURES
    return f"{_VOLUMES} {_PATCHES if plan.choices.in_patches else _WHOLE}"


def data_license(datalist: Path) -> str:
    """What ``docs/data_license.txt`` says until somebody writes more."""
    return (
        f"This bundle learns from the images and landmarks of {datalist}, which are not part of it. Write here, before the bundle "
        "or weights trained with it are given to others, where they come from, under which terms, and whom to cite.\n"
    )


def _references(bundle: str) -> list[str]:
    metadata = json.loads((bundle_path(bundle) / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return metadata["references"]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _product(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _range(values: Sequence[Sequence[float]]) -> str:
    """The smallest and the largest along each axis, one number where they are the same."""
    axes = [(f"{min(axis):.4g}", f"{max(axis):.4g}") for axis in zip(*values)]
    return " x ".join(low if low == high else f"{low}-{high}" for low, high in axes)


_PICTURES = """Each image is made as large as fits into the grid and padded at its border; nothing is cut off. PNG, JPEG, BMP and TIFF files say nothing of the size of a pixel that could be trusted: `--spacing` gives it to inference in mm."""

_VOLUMES = """Volumes are turned to right, anterior, superior, smoothed and resampled to cubic voxels, and padded at their border."""

_WHOLE = """The network sees the whole volume at once. One that is larger than the grid gets larger voxels than the network has learned on: nothing is cut off, but expect larger errors there."""

_PATCHES = """The network learns from patches, most of which hold a landmark, and finds landmarks in windows that slide over the volume, however large it is: one of other size has the same voxels. Volumes are predicted one at a time."""

_PAGE = """# {name}

Finds {names}, with {title}. Made by `monai-landmarks init` from the bundle `{bundle}`, with what depends on the data filled in by rules of thumb. Write here who made it and what it is for.

## Data

`{datalist}`

{data}

{spacing_note}

## Settings

Lengths in voxels are those of the grid that the network works on. To give a setting instead: `monai-landmarks init ... --set NAME=VALUE`, and what depends on it follows; or change `configs/train.json`, and with it `configs/inference.json` where they have it in common.

| setting | value | because |
|---|---|---|
{rows}

## Use

```bash
B={folder}
python -m monai.bundle run training   --bundle_root $B --config_file $B/configs/train.json
python -m monai.bundle run evaluating --bundle_root $B --config_file "['$B/configs/train.json','$B/configs/evaluate.json']"
python -m monai.bundle run inference  --bundle_root $B --config_file $B/configs/inference.json --dataset_dir my/images
```

Training leaves `models/model.pt` (the best on validation), beside it `model_sigma.pt` where the loss learns sigma, `eval/training_curve.png`, and of the best model `eval/metrics.csv`, `eval/errors_per_landmark.csv`, `eval/errors_per_image.csv`, `eval/overlays/` and `eval/predictions/`.
Inference needs no landmarks; it writes one `.mrk.json` per image, which 3D Slicer opens at the right place, and `predictions.csv` with scores, to `eval/inference`.

- **Go on after a stop**: `--resume true`. **Longer**: `--max_epochs 100`. Any other setting of the configuration in the same way.
- **All images**, for the final model: `--config_file "['$B/configs/train.json','$B/configs/{final_config}']"` trains on the validation part, too, and keeps the last epoch.
- **Images prepared on the GPU**: `--config_file "['$B/configs/train.json','$B/configs/device_pipeline.json']"`; where the GPU waits for its images, this is faster. On a CPU it changes nothing.
- **Several devices**: `torchrun --standalone --nproc_per_node=2 -m monai.bundle run training --bundle_root $B --config_file "['$B/configs/train.json','$B/configs/multi_gpu_train.json']"`.
- **Tracking**: `--tracking $B/configs/tensorboard.json`, or `--tracking mlflow`.

## Limitations

Nobody has measured this bundle before you. Research software, not a medical device.

## References

{references}

## License

Apache-2.0, see `LICENSE`; data: `docs/data_license.txt`.
"""
