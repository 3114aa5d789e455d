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
"""The README of a bundle: its settings with their reasons, and its commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .data_summary import SECTIONS, DataSummary
from .methods import METHODS
from .plan import Plan

__all__ = ["choice_rows", "data_license", "readme", "summary_rows"]


def choice_rows(plan: Plan) -> list[dict[str, str]]:
    """Return one row per choice: setting, value and reason, as text."""
    return [
        {"setting": name, "value": _text(choice.value), "reason": choice.reason}
        for name, choice in plan.choices.items()
    ]


def summary_rows(summary: DataSummary) -> list[tuple[str, str]]:
    """Return the properties of the data as pairs of heading and text."""
    count = ", ".join(f"{number} for {section}" for number, section in zip(summary.counts, SECTIONS))
    return [
        ("images", f"{summary.spatial_dims}-D, {count}"),
        ("size", f"{_range(summary.sizes)} voxels"),
        ("spacing", "not known; a pixel counts as 1 mm" if summary.in_pixels else f"{_range(summary.spacings)} mm"),
        ("landmarks", f"{len(summary.names)}, extent up to {_product(summary.point_extent)} {summary.unit}"),
        ("pairs", f"{len(summary.pairs)} left-right pairs"),
    ]


def readme(plan: Plan, folder: Path, datalist: Path, references: Sequence[str]) -> str:
    """Return the README of the bundle in Markdown."""
    method = METHODS[plan.method]
    rows = "\n".join(f"| {r['setting']} | `{r['value']}` | {r['reason']} |" for r in choice_rows(plan))
    data = _list(summary_rows(plan.summary))
    replays = method.final_config == "replay.json"
    return _PAGE.format(
        name=folder.name,
        title=method.title,
        final=_FINAL[method.final_config],
        close_look=_close_look(plan, replays),
        variants=method.variants_note if plan.fine_tuning is None else "",
        bundle=plan.template.resolve().name,
        fine_tuning="" if plan.fine_tuning is None else _FINE_TUNING.format(rows=_list(plan.fine_tuning.rows())),
        folder=shlex.quote(str(folder)),
        datalist=datalist,
        data=data,
        rows=rows,
        names=", ".join(plan.summary.names),
        spacing_note=_spacing_note(plan),
        references="\n\n".join(references),
    )


def _close_look(plan: Plan, replays: bool) -> str:
    if not plan.close_look:
        return ""
    return _GROUPED_LOOK if plan.has_groups else _CLOSE_LOOK.format(replay=_REPLAY if replays else "")


def _spacing_note(plan: Plan) -> str:
    if plan.summary.spatial_dims == 2:
        return _PICTURES
    return f"{_VOLUMES} {_PATCHES if plan.choices.in_patches else _WHOLE}"


def data_license(datalist: Path, plan: Plan) -> str:
    """Return the first text of ``docs/data_license.txt``, for the user to complete."""
    source = None if plan.fine_tuning is None else plan.fine_tuning.source
    start = ""
    if source is not None:
        terms = f" Their terms, which then also apply to yours: {source.terms}." if source.terms else ""
        start = f"The training starts from the weights of {source.name}.{terms}\n"
    return start + (
        f"This bundle is trained on the images and landmarks of {datalist}, which are not part of it. Before you share the bundle "
        "or its weights, write here the source of the data, its license, and how to cite it.\n"
    )


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {heading}: {text}" for heading, text in rows)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _product(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _range(values: Sequence[Sequence[float]]) -> str:
    """Return the range of values along each axis as text; one number where minimum and maximum are the same."""
    axes = [(f"{min(axis):.4g}", f"{max(axis):.4g}") for axis in zip(*values)]
    return " x ".join(low if low == high else f"{low}-{high}" for low, high in axes)


_PICTURES = """Each image is scaled to fit into the grid and padded at its border. Nothing is cropped. The pixel size in PNG, JPEG, BMP and TIFF files is not reliable: give it to inference in mm with `--spacing`."""

_VOLUMES = """Volumes are reoriented to RAS (right, anterior, superior), smoothed, resampled to cubic voxels, and padded at their border."""

_WHOLE = """The network works on whole volumes. A volume that is larger than the grid gets larger voxels than those in training: nothing is cropped, but expect larger errors."""

_PATCHES = """The network is trained on patches, most of which contain a landmark. Inference slides windows over the volume, so volumes of any size have the same voxel size. Volumes are predicted one at a time."""

_FINE_TUNING = """
## Learned before

{rows}

Training starts from `models/initial.pt`. The first layers keep their weights in the first epochs (`--held_epochs`). Where maps of landmarks are the input of a layer, the weights of new landmarks are zero at first, so the first heatmaps of the kept landmarks are those of the other bundle.
"""

_CLOSE_LOOK = """- **A second, close look**: put `'$B/configs/close_look.json'` after `train.json` or `inference.json` in any of the commands for one device. `training` then trains the coarse network, into `models/coarse/`, and after it a fine network that corrects each point in a patch of the image. `models/model.pt` has both: use another `--ckpt_dir` for the coarse network alone. On several devices, train the coarse network first, with `--ckpt_dir "$B/models/coarse"`, and then run `fine_training` in place of `training`.{replay}
"""

_GROUPED_LOOK = """- **A second, close look**: put `'$B/configs/close_look.json'` after `train.json` or `inference.json` in any of the commands for one device. `training` then trains two other networks: one that finds the centers of the structures (`centers.json`, into `models/coarse/`), and after it one that finds the landmarks of each structure in a patch of the image. `models/model.pt` has both: use another `--ckpt_dir` for the network of `train.json`. On several devices, train the first one alone (`train.json` with `centers.json`, `--ckpt_dir "$B/models/coarse"`), and then run `fine_training` in place of `training`.
"""

# of a bundle whose final training repeats the sigmas of another one
_REPLAY = ' With `replay.json`, add `--coarse_training#trajectory "$B/eval/coarse/precision.json"`, where the sigmas of the coarse training are recorded.'

_FINAL = {
    "all_training_images.json": """- **Train on all images**, for the final model: `--config_file "['$B/configs/train.json','$B/configs/all_training_images.json']" --ckpt_dir "$B/models/all" --output_dir "$B/eval/all" --reliability_from "$B/models/model.pt"` also trains on the validation images, and keeps the last epoch. The calibration and the shapes are those of the model that was evaluated. Only testing images can measure the final model. To predict with it: `monai-landmarks predict "$B" my/images --checkpoint "$B/models/all/model.pt"`.
""",
    "replay.json": """- **Train on all images**, for the final model, after the training above: `--config_file "['$B/configs/train.json','$B/configs/replay.json']" --reliability_from "$B/models/model.pt"` repeats the sigmas of that training, also trains on the validation images, and writes `models/replay/model.pt`. The calibration and the shapes are those of the model that was evaluated. Only testing images can measure the final model. To predict with it: `monai-landmarks predict "$B" my/images --checkpoint "$B/models/replay/model.pt"`.
""",
}

_PAGE = """# {name}

Finds {names} with {title}. Written by `monai-landmarks init` from the bundle `{bundle}`, with the settings that depend on the data chosen by rules of thumb. Write here who made the bundle and what it is for.

## Data

`{datalist}`

{data}

{spacing_note}
{fine_tuning}
## Settings

Lengths in voxels refer to the grid of the network. To change a setting, run `monai-landmarks init ... --set NAME=VALUE`; the settings that depend on it are then chosen again. Or edit `configs/train.json`, and the same entries of `configs/inference.json`.

| setting | value | reason |
|---|---|---|
{rows}

## Use

```bash
B={folder}
python -m monai.bundle run training   --bundle_root "$B" --config_file "$B/configs/train.json"
python -m monai.bundle run evaluating --bundle_root "$B" --config_file "['$B/configs/train.json','$B/configs/evaluate.json']"
python -m monai.bundle run inference  --bundle_root "$B" --config_file "$B/configs/inference.json" --dataset_dir my/images
```

Training writes `models/model.pt` (the best model on the validation images), `models/model_sigma.pt` (sigma of the targets, if the loss has one), `models/model_calibration.json` and `models/model_shape.json` for the uncertainty and the doubts of predictions, and `eval/training_curve.png`. For the best model it writes `eval/metrics.csv`, `eval/errors_per_landmark.csv`, `eval/errors_per_image.csv`, `eval/overlays/` and `eval/predictions/`.
Inference needs no landmarks. It writes one `.mrk.json` file per image, which 3D Slicer shows at the right place, and `predictions.csv` with scores, to `eval/inference`. Images that cannot be read are named and left out, and the exit code is then 1.

- **Resume a training**: `--resume true`. **Train longer**: `--max_epochs 100`. Any other entry of the configuration can be set in the same way.
- **A damaged file**: an error names the file and what to do. One exception: MONAI itself reads the files in `configs/` before the bundle, and a damaged one ends with its `JSONDecodeError`, which does not name the file. `read_meta` in the traceback stands for `configs/metadata.json`, `read_config` for a file of `--config_file`. `monai-landmarks predict` names both. Copy the file again from the source of the bundle.
{final}{close_look}{variants}- **Arithmetic**: `--precision float32`, `bfloat16` or `float16`; the default `auto` chooses by the device.
- **Several devices**: `torchrun --standalone --nproc_per_node=2 -m monai.bundle run training --bundle_root "$B" --config_file "['$B/configs/train.json','$B/configs/multi_gpu_train.json']"`.
- **Tracking**: `--tracking "$B/configs/tensorboard.json"`, or `--tracking mlflow`.

## Limitations

This bundle has not been evaluated. It is research software, not a medical device.

## References

{references}

## License

Apache-2.0, see `LICENSE`; data: `docs/data_license.txt`.
"""
