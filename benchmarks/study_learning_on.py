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

"""Learning on from trained weights with few images of another device, compared with a training from nothing.

python benchmarks/study_learning_on.py SOURCE IMAGES LANDMARKS --spacing 0.254 --out study \\
    [--draws 5] [--sizes 10,25] [--quick]
"""

from __future__ import annotations

import csv
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_landmarks.data import atomic_write, build_datalist, write_hand_phantom
from monai_landmarks.data.files.tensor_files import atomic_save, load_tensors
from monai_landmarks.evaluation.bundle_facts import resolve_bundle
from monai_landmarks.planning import make_learning_plan, make_plan, read_source_bundle, summarize_datalist, write_bundle
from monai_landmarks.planning.learning_config import INITIAL, INITIAL_CLOSE

AS_IT_IS, LEARNING_ON, NOTHING = "as it is", "learning on", "from nothing"
VALIDATION = 0.2  # part of the images of a training that choose its best weights


def draw(datalist: dict[str, Any], size: int, largest: int, seed: int) -> dict[str, Any]:
    """Return a datalist of ``size`` images, and for testing those that no size of this draw uses."""
    items = list(datalist["training"])
    random.Random(seed).shuffle(items)
    held = max(1, round(VALIDATION * size))
    sections = {"training": items[: size - held], "validation": items[size - held : size], "testing": items[largest:]}
    return {**datalist, **sections}


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a configuration file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=4))


def forget(bundle: Path, source: Path) -> None:
    """Turn a bundle that learns on into the same one that starts from nothing, with the usual rate and number of steps."""
    for name in ("train", "close_look"):
        path = bundle / "configs" / f"{name}.json"
        if path.is_file():
            config = json.loads(path.read_text())
            rate = json.loads((source / "configs" / f"{name}.json").read_text())["learning_rate"]
            epochs = 2 * config["max_epochs"]
            edit(path, load_initial=None, held_epochs=0, learning_rate=rate, max_epochs=epochs)


def run(bundle: Path, configs: Sequence[str], **settings: Any) -> None:
    """Run a workflow of a bundle."""
    files = [str(bundle / "configs" / f"{name}.json") for name in configs]
    flow = ConfigWorkflow(files, logging_file=False, workflow_type="train", bundle_root=str(bundle), **settings)
    flow.initialize()
    flow.run()


def error(bundle: Path, configs: Sequence[str], **settings: Any) -> float:
    """Return the mean error in mm of the test images."""
    run(bundle, [*configs, "evaluate"], section="testing", **settings)
    with open(bundle / "eval" / "testing" / "errors_per_image.csv", encoding="utf-8", newline="") as file:
        return float(np.mean([float(row["mean"]) for row in csv.DictReader(file) if row["mean"]]))


def initial_checkpoint(bundle: Path, close_look: bool) -> Path:
    """Return a file of the initial weights in the form of a trained bundle."""
    models = bundle / "models"
    if not close_look:
        return models / INITIAL
    parts = {"coarse": load_tensors(models / INITIAL), "fine": load_tensors(models / INITIAL_CLOSE)}
    path = models / "initial_both.pt"
    atomic_save({f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}, path)
    return path


def tiny_case(folder: Path) -> tuple[Path, Path, Path]:
    """Write a phantom and a bundle of random weights, only to see that the study runs."""
    datalist = write_hand_phantom(folder / "hand", 8, size=(48, 64), val_frac=0.25)
    plan = make_plan(summarize_datalist(datalist), given={"width": 4, "batch_size": 2})
    source = write_bundle(folder / "source", plan, datalist)
    parser = ConfigParser()
    parser.read_config(source / "configs" / "train.json")
    parser.update({"bundle_root": str(source)})
    atomic_save(parser.get_parsed_content("network_def").state_dict(), source / "models" / "model.pt")
    return source, folder / "hand" / "images", folder / "hand" / "landmarks.csv"


def report(runs: Sequence[dict[str, Any]]) -> str:
    """Return a table in Markdown: mean over the draws, smallest and largest."""
    lines = ["| images | weights | draws | error in mm |", "|---|---|---|---|"]
    for size, arm in sorted({(one["size"], one["arm"]) for one in runs}):
        found = [one["error"] for one in runs if (one["size"], one["arm"]) == (size, arm)]
        spread = f"{np.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        lines.append(f"| {size or '-'} | {arm} | {len(found)} | {spread} |")
    return "\n".join(lines)


def main(
    source: str = "",
    images: str = "",
    landmarks: str = "",
    out: str = "study_learning_on",
    spacing: float | None = None,
    draws: int = 5,
    sizes: int | Sequence[int] = (10, 25),
    epochs: int | None = None,
    close_look: bool = False,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Compare the weights as they are, learning on from them, and a training from nothing, on the images left over.

    All arms of a draw have the same images. A training from nothing has twice the epochs and the learning rate of the
    source. A fifth of the images of a training choose its best weights.

    Args:
        source: trained bundle, a folder or the name of a shipped bundle.
        images: folder of images.
        landmarks: their landmarks, as for ``monai-landmarks check``.
        out: folder of the results. Runs that are in its ``study.json`` are not repeated.
        spacing: pixel size in mm of images whose file states none.
        draws: number of random draws of the images.
        sizes: numbers of images.
        epochs: epochs of learning on. Default: those that ``init`` chooses.
        close_look: whether both networks of a close look are trained.
        threads: threads of torch.
        quick: one small draw on a phantom, only to see that it runs.
    """
    torch.set_num_threads(threads)
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    with tempfile.TemporaryDirectory() as temporary:
        if quick:
            source, images, landmarks = map(str, tiny_case(Path(temporary)))
            draws, sizes, epochs, spacing = 1, [4], 1, 1.0
        folder, trained = Path(out).absolute(), read_source_bundle(resolve_bundle(source))
        folder.mkdir(parents=True, exist_ok=True)
        results = folder / "study.json"
        settings = {"epochs": epochs, "close_look": close_look, "sizes": sizes}
        before = json.loads(results.read_text()) if results.is_file() else {"settings": settings, "runs": []}
        if before["settings"] != settings:
            raise ValueError(f"{results} has runs of other settings, {before['settings']}: choose another folder.")
        runs = before["runs"]
        done = {(one["draw"], one["size"], one["arm"]) for one in runs}
        build_datalist(images, landmarks, folder / "all.json", val_frac=0, spacing=spacing)
        everything = json.loads((folder / "all.json").read_text())
        configs = ["train", "close_look"] if close_look else ["train"]
        for number in range(draws):
            for size in sizes:
                datalist = folder / f"draw{number}_{size}.json"
                datalist.write_text(json.dumps(draw(everything, size, max(sizes), number)))
                for arm in (AS_IT_IS, LEARNING_ON, NOTHING):
                    shown = 0 if arm == AS_IT_IS else size  # which has no images of its own
                    if (number, shown, arm) in done:
                        continue
                    given = {} if epochs is None else {"max_epochs": epochs}
                    plan = make_learning_plan(summarize_datalist(datalist), trained, given=given)
                    with tempfile.TemporaryDirectory(dir=folder) as work:
                        bundle = write_bundle(Path(work) / "bundle", plan, datalist)
                        if arm == AS_IT_IS:
                            found = error(bundle, configs, checkpoint=str(initial_checkpoint(bundle, close_look)))
                        else:
                            if arm == NOTHING:
                                forget(bundle, trained.folder)
                            run(bundle, configs)
                            found = error(bundle, configs)
                    runs.append({"draw": number, "size": shown, "arm": arm, "error": found})
                    done.add((number, shown, arm))
                    print(f"draw {number}, {shown} images, {arm}: {found:.3f} mm", flush=True)
                    with atomic_write(results) as file:
                        file.write_text(json.dumps({"settings": settings, "runs": runs}, indent=1))
    print(report(runs))
    (folder / "study.md").write_text(f"{report(runs)}\n")


if __name__ == "__main__":
    fire.Fire(main)
