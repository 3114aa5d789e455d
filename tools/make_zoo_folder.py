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

"""Make the folder of a bundle as MONAI's model zoo takes it, and check it.

One command makes and checks all folders, or those of the bundles that are named::

    python tools/make_zoo_folder.py ceph_xray_landmarks_scn --out zoo --urls https://example.org/weights

``zoo/models/<bundle>/`` is the folder for a pull request: configurations, documents, licence and ``large_files.yml``.
``zoo/files/<bundle>/`` holds the weights, which belong to the address of ``--urls`` before the pull request. Without
``--urls``, the weights lie in the folder itself, so that the zoo's own checks can run on it.
``docs/model_zoo.md`` describes the steps.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from ship_weights import large_files

__all__ = ["check_zoo_folder", "make_zoo_folder"]

BUNDLES = Path(__file__).parents[1] / "bundles"
LARGEST = 25 * 10**6  # bytes of a file in the zoo
SMALL = 100_000  # bytes; smaller files of numbers stay in the folder
NEEDED = ("LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "docs/data_license.txt")
# entries that the zoo requires, `#` between the levels
KEYS = {
    "inference.json": ("bundle_root", "device", "network_def", "inferer", "output_dir"),
    "train.json": (
        *("bundle_root", "device", "dataset_dir", "output_dir", "val_interval"),
        *("train#trainer", "train#trainer#max_epochs", "train#dataset", "train#dataset#data", "train#handlers"),
        *("validate#evaluator", "validate#handlers", "validate#dataset", "validate#dataset#data"),
    ),
}


def make_zoo_folder(bundle: Path, out: Path, urls: str = "") -> Path:
    """Make the folder of a bundle for the model zoo.

    Args:
        bundle: folder of the bundle.
        out: folder to write; the bundle is in ``models/<bundle>`` of it.
        urls: address at which ``files/`` of ``out`` can be downloaded. Empty: the weights are put into the folder.

    Returns:
        the folder of the bundle.
    """
    folder = out / "models" / bundle.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(out / "files" / bundle.name, ignore_errors=True)
    for name in ("configs", "docs"):
        shutil.copytree(bundle / name, folder / name)
    shutil.copy(bundle / "LICENSE", folder)
    (folder / "models").mkdir()
    elsewhere = False
    for source in sorted((bundle / "models").glob("pretrained*")):
        # in the zoo, the weights of inference.json are model.pt
        name = source.name if "close_look" in source.name else source.name.replace("pretrained", "model", 1)
        if source.suffix == ".pt" and source.stat().st_size > SMALL and urls:
            target, elsewhere = out / "files" / bundle.name / name, True
        else:
            target = folder / "models" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    if (bundle / "models" / "README.md").is_file():
        shutil.copy(bundle / "models" / "README.md", folder / "models")
    if elsewhere:
        text = large_files(bundle / "models", f"{urls.rstrip('/')}/{bundle.name}")
        (folder / "large_files.yml").write_text(text)
    return folder


def check_zoo_folder(folder: Path) -> list[str]:
    """Return what the rules of the model zoo find wrong with the folder of a bundle.

    Args:
        folder: folder of the bundle in ``models/``.
    """
    faults = [f"{name} is missing." for name in NEEDED if not (folder / name).is_file()]
    for name, keys in KEYS.items():
        config = _read(folder / "configs" / name)
        faults += [f"configs/{name} has no entry {key}." for key in keys if not _has(config, key.split("#"))]
    metadata = _read(folder / "configs" / "metadata.json")
    version = metadata.get("version")
    if version not in metadata.get("changelog", {}):
        faults.append(f"configs/metadata.json: version {version} is not in the changelog.")
    large = folder / "large_files.yml"
    listed = re.findall(r'path: "([^"]+)"\s+url: "([^"]*)"', large.read_text()) if large.is_file() else []
    faults += [f"large_files.yml: {path} has no address." for path, url in listed if not url]
    held = [path for path in folder.rglob("*") if path.is_file()]
    if "models/model.pt" not in {path for path, _ in listed} | {str(path.relative_to(folder)) for path in held}:
        faults.append(
            "models/model.pt is missing: the zoo takes the bundle only if its name is added to"
            " exclude_verify_preferred_files_list in ci/bundle_custom_data.py."
        )
    elif not metadata.get("eval_metrics"):
        faults.append("configs/metadata.json has no eval_metrics.")
    for path in held:
        if path.stat().st_size > LARGEST:
            faults.append(f"{path.relative_to(folder)} is larger than 25 MB.")
    return faults


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _has(config: object, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(config, dict) or key not in config:
            return False
        config = config[key]
    return True


def main() -> None:
    """Make and check the folders."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundles", nargs="*", help="names of bundles; all without one")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--urls", default="", help="address at which the folder files/ can be downloaded")
    args = parser.parse_args()
    failed = False
    for name in args.bundles or sorted(path.name for path in BUNDLES.iterdir() if (path / "configs").is_dir()):
        folder = make_zoo_folder(BUNDLES / name, args.out, args.urls)
        faults = check_zoo_folder(folder)
        failed |= bool(faults)
        print("\n  - ".join([f"{folder}: {'not ready' if faults else 'ready'}", *faults]))
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
