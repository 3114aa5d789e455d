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

"""CPU time of one CT volume from its file to its landmarks, step by step; see README.md and docs/scale.md.

python benchmarks/benchmark_ct.py [--bundle vertebrae_ct_landmarks_scn] [--slices 300] [--threads 1] [--quick]
"""

from __future__ import annotations

import gzip
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data.utils import dense_patch_slices

from monai_landmarks.evaluation.bundle_facts import resolve_bundle

VOXEL = (0.8, 0.8, 1.0)  # mm


def write_ct(folder: Path, side: int, slices: int) -> tuple[Path, Path]:
    """Write a body with noise, as it compresses in a scanner's files: plain and compressed."""
    rng = np.random.default_rng(0)
    x, y = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    body = np.where(x**2 + 2 * y**2 < 0.7, 40, -1000)
    # a slab is repeated: the compression looks back 32 kB only
    slab = np.stack([body + rng.normal(0, 20, body.shape) for _ in range(min(slices, 20))], axis=-1).astype(np.int16)
    volume = np.tile(slab, (1, 1, -(-slices // slab.shape[-1])))[..., :slices]
    plain, packed = folder / "ct.nii", folder / "ct.nii.gz"
    nib.save(nib.Nifti1Image(volume, np.diag([*VOXEL, 1.0])), plain)
    with gzip.open(packed, "wb", compresslevel=1) as file:
        file.write(plain.read_bytes())
    return plain, packed


def read(path: Path) -> np.ndarray:
    """Return the voxels of a file, copied to memory."""
    image: Any = nib.load(path)
    return np.array(image.dataobj)


def cpu_seconds(run: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Return the shortest CPU time of some calls, which other programs change little, and the last result."""
    times, result = [], None
    for _ in range(rounds):
        start = time.process_time()
        result = run()
        times.append(time.process_time() - start)
    return min(times), result


def windows(shape: tuple[int, ...], patch: tuple[int, ...], overlap: float) -> int:
    """Return the number of sliding windows."""
    steps = tuple(size if size == whole else max(1, int(size * (1 - overlap))) for size, whole in zip(patch, shape))
    return len(dense_patch_slices(shape, patch, steps))


def main(
    bundle: str = "vertebrae_ct_landmarks_scn",
    side: int = 512,
    slices: int = 300,
    rounds: int = 2,
    threads: int | None = 1,
    quick: bool = False,
) -> None:
    """Measure the steps of a prediction.

    The time of the network is that of one window times their number, because it does not depend on the content.

    Args:
        bundle: a bundle for CT volumes with sliding windows; its weights may be random.
        side: rows and columns of the volume.
        slices: number of its slices.
        rounds: repetitions; the shortest counts.
        threads: threads of torch.
        quick: tiny sizes, to see that it runs; the numbers mean nothing.
    """
    if threads:
        torch.set_num_threads(threads)
    root = resolve_bundle(bundle)
    parser = ConfigParser()
    parser.read_config(Path(root) / "configs" / "inference.json")
    options: dict[str, Any] = {"bundle_root": str(root), "device": torch.device("cpu"), "presence_threshold": 0.5}
    if quick:
        side, slices, rounds = 64, 24, 1
        options["patch_size"] = [32, 32, 32]
    parser.update(options)
    load, *others = parser.get_parsed_content("preprocessing").transforms
    network = parser.get_parsed_content("network_def").eval()
    patch = tuple(parser.get_parsed_content("patch_size"))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        plain, packed = write_ct(Path(folder), side, slices)
        raw, zipped = os.path.getsize(plain), os.path.getsize(packed)
        rows = [("read .nii (limit)", cpu_seconds(lambda: read(plain), rounds)[0])]
        rows.append(("read .nii.gz", cpu_seconds(lambda: read(packed), rounds)[0]))
        seconds, item = cpu_seconds(lambda: load({"image": str(packed)}), rounds)
        rows.append(("LoadImaged of .nii.gz", seconds))

        for transform in others:
            seconds, item = cpu_seconds(lambda item=item, transform=transform: transform(dict(item)), rounds)
            rows.append((type(transform).__name__, seconds))
        image = item["image"]
        count = windows(tuple(image.shape[1:]), patch, parser.get_parsed_content("overlap"))
        window = torch.zeros(1, image.shape[0], *patch)
        seconds, heatmaps = cpu_seconds(lambda: network(window), rounds)
        rows.append((f"network, {count} windows", count * seconds))
    print(
        f"\n{Path(root).name}: a CT of {side} x {side} x {slices}, {raw / 2**20:.0f} MiB, {zipped / 2**20:.0f} MiB as .nii.gz"
    )
    print(f"grid of the network {' x '.join(map(str, image.shape[1:]))}, windows of {' x '.join(map(str, patch))}")
    print(f"{tuple(heatmaps.shape)} heatmaps of a window, {threads} threads, shortest of {rounds}\n")
    print("| step | CPU s |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value:.2f} |", flush=True)


if __name__ == "__main__":
    fire.Fire(main)
