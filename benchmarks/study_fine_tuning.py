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

"""Fine-tuning of trained weights with few images of another device, compared with a training from scratch.

python benchmarks/study_fine_tuning.py SOURCE IMAGES LANDMARKS --spacing 0.254 --out study \\
    [--draws 5] [--sizes 10,25] [--steps 120] [--steps_scratch 480] [--batch_size 2] [--apart porion] [--quick]
"""

from __future__ import annotations

import csv
import json
import math
import random
import tempfile
import time
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
from monai_landmarks.planning import (
    make_fine_tuning_plan,
    make_plan,
    read_source_bundle,
    summarize_datalist,
    write_bundle,
)
from monai_landmarks.planning.fine_tuning_config import INITIAL, INITIAL_CLOSE

AS_IT_IS, FINE_TUNED, SCRATCH = "as it is", "fine-tuned", "from scratch"
DRAWINGS = ("OverlaySaver", "TrainingCurve", "PredictionSaver")  # handlers that change no result
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


def forget(bundle: Path, source: Path, factor: int) -> None:
    """Turn a bundle that is fine-tuned into the same one that starts from scratch.

    Network, grid, batches and augmentation stay. The learning rate is that of the source, and the training has ``factor``
    times the steps and as many validations. Nothing that the source has learned is left: neither its weights nor the
    widths of its targets.
    """
    for name in ("train", "close_look"):
        path = bundle / "configs" / f"{name}.json"
        if path.is_file():
            config = json.loads(path.read_text())
            before = json.loads((source / "configs" / f"{name}.json").read_text())
            changes = {entry: before[entry] for entry in ("learning_rate", "loss_def")}
            changes |= {entry: factor * config[entry] for entry in ("max_epochs", "val_interval")}
            edit(path, load_initial=None, held_epochs=0, **changes)


def run(bundle: Path, configs: Sequence[str], **settings: Any) -> None:
    """Run a workflow of a bundle, without drawings."""
    files = [str(bundle / "configs" / f"{name}.json") for name in configs]
    flow = ConfigWorkflow(files, logging_file=False, workflow_type="train", bundle_root=str(bundle), **settings)
    for part in ("train", "validate"):
        for handler in flow.parser[f"{part}#handlers"]:
            if isinstance(handler, dict) and handler["_target_"].rpartition(".")[2] in DRAWINGS:
                handler["_disabled_"] = True
    flow.initialize()
    flow.run()


def errors(bundle: Path, configs: Sequence[str], **settings: Any) -> dict[str, float]:
    """Return the mean error in mm of the test images for each landmark."""
    run(bundle, [*configs, "evaluate"], section="testing", **settings)
    with open(bundle / "eval" / "testing" / "errors_per_landmark.csv", encoding="utf-8", newline="") as file:
        return {row["landmark"]: float(row["mean"]) for row in csv.DictReader(file) if row["mean"]}


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


def plan_settings(datalist: Path, steps: int | None, batch_size: int | None) -> dict[str, Any]:
    """Return the settings of ``init`` for a number of training steps and a batch size; None leaves the choice to it."""
    if steps is None:
        return {} if batch_size is None else {"batch_size": batch_size}
    assert batch_size is not None
    batches = math.ceil(len(json.loads(datalist.read_text())["training"]) / batch_size)
    return {"batch_size": batch_size, "max_epochs": math.ceil(steps / batches)}


def mean_error(one: dict[str, Any], without: Sequence[str] = ()) -> float:
    """Return the mean error of a run over its landmarks."""
    return float(np.mean([error for name, error in one["landmarks"].items() if name not in without]))


def report(runs: Sequence[dict[str, Any]], apart: Sequence[str] = ()) -> str:
    """Return the results in Markdown: mean over the draws, smallest and largest, and how often fine-tuned is better.

    Args:
        runs: the runs.
        apart: landmarks whose errors are also shown by themselves, and left out of the others.
    """
    kinds = [("error", lambda one: mean_error(one))]
    if apart:
        kinds.append((f"without {', '.join(apart)}", lambda one: mean_error(one, apart)))
        kinds += [(name, lambda one, name=name: one["landmarks"][name]) for name in apart]
    lines = ["| images | weights | draws | " + " | ".join(f"{name} in mm" for name, _ in kinds) + " |"]
    lines.append("|---" * (3 + len(kinds)) + "|")
    arms = (AS_IT_IS, FINE_TUNED, SCRATCH)
    cases = {(one["size"], one["arm"]): None for one in runs}
    for size, arm in sorted(cases, key=lambda case: (case[0], arms.index(case[1]))):
        found = [one for one in runs if (one["size"], one["arm"]) == (size, arm)]
        cells = []
        for _, value in kinds:
            values = [value(one) for one in found]
            cells.append(f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        lines.append(f"| {size or '-'} | {arm} | {len(found)} | {' | '.join(cells)} |")
    by_case = {(one["draw"], one["size"], one["arm"]): mean_error(one) for one in runs}
    lines.append("")
    for size in sorted({size for size, _ in cases if size}):
        for other in (AS_IT_IS, SCRATCH):
            draws = [
                (found, by_case[draw, 0 if other == AS_IT_IS else size, other])
                for (draw, one, arm), found in by_case.items()
                if (one, arm) == (size, FINE_TUNED) and (draw, 0 if other == AS_IT_IS else size, other) in by_case
            ]
            if draws:
                better = sum(found < against for found, against in draws)
                lines.append(
                    f"- {size} images: {FINE_TUNED} is better than {other!r} in {better} of {len(draws)} draws."
                )
    return "\n".join(lines)


def main(
    source: str = "",
    images: str = "",
    landmarks: str = "",
    out: str = "study_fine_tuning",
    spacing: float | None = None,
    draws: int = 5,
    sizes: int | Sequence[int] = (10, 25),
    steps: int | None = None,
    steps_scratch: int | None = None,
    batch_size: int | None = None,
    close_look: bool = False,
    apart: str | Sequence[str] = (),
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Compare the weights as they are, the fine-tuned weights, and a training from scratch, on the images left over.

    All trainings of a draw have the same images, network, grid, batch size, augmentation and number of validations. A
    training from scratch has more steps and the learning rate of the source. A fifth of the images of a training choose
    its best weights. Each run is written to ``study.json`` and ``study.md`` when it ends; a study that was interrupted
    goes on with the run that is missing.

    Args:
        source: trained bundle, a folder or the name of a shipped bundle.
        images: folder of images.
        landmarks: their landmarks, as for ``monai-landmarks check``.
        out: folder of the results. Runs that are in its ``study.json`` are not repeated.
        spacing: pixel size in mm of images whose file states none.
        draws: number of random draws of the images.
        sizes: numbers of images.
        steps: training steps of fine-tuning. Default: those that ``init`` chooses.
        steps_scratch: training steps from scratch, rounded to a multiple of ``steps``. Default: twice ``steps``.
        batch_size: images per batch. Default: what ``init`` chooses; 2 with ``steps``.
        close_look: whether both networks of a close look are trained.
        apart: landmarks that the report also shows by themselves, and leaves out of the others, for example because the
            other device comes with another definition of them.
        threads: threads of torch.
        quick: one small draw on a phantom, only to see that it runs.
    """
    torch.set_num_threads(threads)
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    apart = [apart] if isinstance(apart, str) else list(apart)
    with tempfile.TemporaryDirectory() as temporary:
        if quick:
            source, images, landmarks = map(str, tiny_case(Path(temporary)))
            draws, sizes, steps, spacing = 1, [4], 2, 1.0
        if steps is None and steps_scratch is not None:
            raise ValueError("steps_scratch needs steps.")
        batch_size = 2 if batch_size is None and steps is not None else batch_size
        factor = 2 if steps is None or steps_scratch is None else max(1, round(steps_scratch / steps))
        folder, trained = Path(out).absolute(), read_source_bundle(resolve_bundle(source))
        folder.mkdir(parents=True, exist_ok=True)
        results = folder / "study.json"
        settings = {"source": trained.name, "close_look": close_look, "sizes": sizes, "steps": steps}
        settings |= {"times_the_steps_from_nothing": factor, "batch_size": batch_size}
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
                for arm in (AS_IT_IS, FINE_TUNED, SCRATCH):
                    shown = 0 if arm == AS_IT_IS else size  # which has no images of its own
                    if (number, shown, arm) in done:
                        continue
                    start = time.perf_counter()
                    given = plan_settings(datalist, steps, batch_size)
                    plan = make_fine_tuning_plan(summarize_datalist(datalist), trained, given=given)
                    with tempfile.TemporaryDirectory(dir=folder) as work:
                        bundle = write_bundle(Path(work) / "bundle", plan, datalist)
                        common = {"precision": "float32", "seed": number}
                        if arm == AS_IT_IS:
                            common["checkpoint"] = str(initial_checkpoint(bundle, close_look))
                        else:
                            if arm == SCRATCH:
                                forget(bundle, trained.folder, factor)
                            run(bundle, configs, **common)
                        found = errors(bundle, configs, **common)
                    seconds = round(time.perf_counter() - start)
                    runs.append({"draw": number, "size": shown, "arm": arm, "seconds": seconds, "landmarks": found})
                    done.add((number, shown, arm))
                    print(f"draw {number}, {shown} images, {arm}: {mean_error(runs[-1]):.3f} mm", flush=True)
                    with atomic_write(results) as file:
                        file.write_text(json.dumps({"settings": settings, "runs": runs}, indent=1))
                    (folder / "study.md").write_text(f"{report(runs, apart)}\n")
    (folder / "study.md").write_text(f"{report(runs, apart)}\n")
    print(report(runs, apart))


if __name__ == "__main__":
    fire.Fire(main)
