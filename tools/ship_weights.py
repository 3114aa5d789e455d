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
"""Put the weights of a training into a bundle as its shipped weights.

The weights become half precision, and are checked by loading them as numbers alone. The files that the training wrote
beside them (calibration, shape, sigma) go along. If they are absent, ``--dataset_dir`` makes them with the validation
images, on which the weights must not have been trained. ``metadata.json`` states error and terms: add them in
``bundle_configs/bundles/<bundle>.yaml`` as this program prints them, and run ``build_bundle_configs.py``. Write the card
``models/README.md`` by hand.

Weights whose terms are not Apache-2.0 do not go into the wheel. They are named in ``large_files.yml`` in the form of
MONAI's model zoo, where they are ``models/model.pt``::

    python tools/ship_weights.py hand_xray_landmarks_scn bundles/hand_xray_landmarks_scn/models/model.pt --terms Apache-2.0
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.bundle import ConfigWorkflow

from monai_landmarks.data import atomic_write
from monai_landmarks.data.datalists.bundle_weights import PRETRAINED
from monai_landmarks.data.files.tensor_files import load_tensors, non_finite_weights
from monai_landmarks.uncertainty import calibration_path, doubt_path, sigma_path

__all__ = ["in_half_precision", "large_files", "measure_reliability", "ship_weights"]

BUNDLES = Path(__file__).parents[1] / "bundles"
HANDLER = "monai_landmarks.handlers.ReliabilitySaver"
MAX_SIZE = 16 * 2**20
FREE = "Apache-2.0"  # the terms of what the wheel carries


def in_half_precision(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dictionary with numbers of half precision.

    Raises:
        ValueError: if a value becomes infinite.
    """
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    reason = non_finite_weights(half)
    if reason is not None:
        raise ValueError(f"half precision is not enough: {reason}.")
    return half


def large_files(weights: Path, url: str) -> str:
    """Return the content of ``large_files.yml`` in the form of the model zoo."""
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    lines = ['- path: "models/model.pt"', f'  url: "{url}"', f'  hash_val: "{digest}"', '  hash_type: "sha256"']
    return "\n".join(["large_files:", *lines, ""])


def measure_reliability(bundle: str, weights: Path, dataset_dir: Path, configs: Sequence[str] = ()) -> None:
    """Write calibration and shapes beside weights, as a training does at its best validation.

    Args:
        bundle: name of the bundle.
        weights: file of the weights.
        dataset_dir: data of the bundle.
        configs: names of further configurations with which the weights were trained, for example ``"unet.json"``.
    """
    folder = BUNDLES / bundle / "configs"
    files = [str(folder / name) for name in ("train.json", *configs, "evaluate.json")]
    flow = ConfigWorkflow(files, workflow_type="train", logging_file=False, bundle_root=str(folder.parent))
    settings = {"dataset_dir": str(dataset_dir), "checkpoint": str(weights), "section": "validation"}
    flow.parser.update({**settings, "output_dir": str(weights.parent / "validation"), "precision": "float32"})
    saver = {"_target_": HANDLER, "weights": str(weights), "names": "@names", "training": "@train#dataset#data"}
    flow.parser["validate#handlers"] = [*flow.parser["validate#handlers"], saver]
    flow.parser["validate#postprocessing#transforms"] = ["@decoder"]
    flow.initialize()
    flow.run()


def ship_weights(bundle: str, weights: Path, terms: str, url: str = "") -> list[Path]:
    """Write the shipped weights of a bundle.

    Returns:
        The files written.

    Raises:
        ValueError: if the weights are no file of numbers, or too large; or if terms other than Apache-2.0 come without
            a url.
    """
    if terms != FREE and not url:
        raise ValueError(f"weights under {terms} are not in the wheel; give the url for large_files.yml.")
    models = BUNDLES / bundle / "models"
    models.mkdir(exist_ok=True)
    target = models / PRETRAINED
    content = io.BytesIO()
    torch.save(in_half_precision(load_tensors(weights)), content)
    if content.tell() > MAX_SIZE:
        raise ValueError(
            f"{weights}: {content.tell() / 2**20:.1f} MB in half precision; at most {MAX_SIZE // 2**20} MB are shipped."
        )
    with atomic_write(target) as temporary:
        temporary.write_bytes(content.getvalue())
    written = [target]
    for path_of in (calibration_path, doubt_path, sigma_path):
        beside, shipped = path_of(weights), path_of(target)
        shipped.unlink(missing_ok=True)
        if beside.is_file():
            shutil.copy(beside, shipped)
            written.append(shipped)
    listed = BUNDLES / bundle / "large_files.yml"
    listed.unlink(missing_ok=True)
    if terms != FREE:
        listed.write_text(large_files(target, url), encoding="utf-8")
        written.append(listed)
    return written


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", help="name of the bundle")
    parser.add_argument("weights", type=Path, help="model.pt of the training")
    parser.add_argument("--terms", required=True, help=f"terms of the weights, for example {FREE}")
    parser.add_argument("--url", default="", help="where the model zoo downloads weights under other terms")
    parser.add_argument("--dataset_dir", type=Path, help="data of the bundle, to make absent calibration and shapes")
    parser.add_argument("--config", action="append", default=[], help="further configuration of the training")
    arguments = parser.parse_args()
    if arguments.dataset_dir is not None:
        measure_reliability(arguments.bundle, arguments.weights, arguments.dataset_dir, arguments.config)
    for path in ship_weights(arguments.bundle, arguments.weights, arguments.terms, arguments.url):
        print(path)
    print(f"in metadata.json: weights_terms: {arguments.terms}, and eval_metrics.mean_error_mm")


if __name__ == "__main__":
    main()
