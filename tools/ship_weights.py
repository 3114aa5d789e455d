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
"""Put the weights of a training into a bundle as its shipped weights, with calibration, measured errors and card.

One command does all of it::

    python tools/ship_weights.py ceph_xray_landmarks_scn out/model.pt --dataset_dir isbi2015 \\
        --training "python -m monai.bundle run training ..." --commit ac3c30a

1. The weights become half precision. They are checked by loading them as numbers alone into the network of the bundle.
   Weights of a close look become ``pretrained_close_look.pt``; their coarse network also becomes ``pretrained.pt``, if
   it is the one of ``inference.json``. All others become ``pretrained.pt``.
2. With the images of the bundle, the errors of the shipped numbers are measured on the validation part and, if there is
   one, on the testing part. Calibration and shapes are learned on the validation part. The weights must not have been
   trained on it. For weights that were, ``--reliability_from`` names the weights of the same training without it, or
   ``--fold`` those of a cross-validation: errors and calibration are then those of its predictions of all images.
3. ``large_files.yml`` names weights whose terms are not Apache-2.0, in the form of MONAI's model zoo, where
   ``pretrained.pt`` is ``models/model.pt``. They do not go into the wheel.
4. ``weights_terms`` and ``eval_metrics`` go into ``bundle_configs/bundles/<bundle>.yaml`` and ``metadata.json``, and the
   card into ``models/README.md``, with the facts of ``model_cards.yaml``.

Weights under Apache-2.0 also need a line in ``setup.cfg``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from build_bundle_configs import SOURCE, write_bundles
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_landmarks.data import atomic_write, item_world_points, load_landmark_datalist
from monai_landmarks.data.datalists.bundle_weights import CLOSE_LOOK_PRETRAINED, PRETRAINED, TRAINED
from monai_landmarks.data.files.tensor_files import load_tensors
from monai_landmarks.uncertainty import calibration_path, doubt_path, sigma_path

__all__ = ["Measured", "in_half_precision", "large_files", "measure", "model_card", "require_fit", "ship_weights"]

BUNDLES = Path(__file__).parents[1] / "bundles"
CARDS = Path(__file__).with_name("model_cards.yaml")
HANDLER = "monai_landmarks.handlers.ReliabilitySaver"
CLOSE_LOOK = "close_look.json"
MAX_SIZE = 16 * 2**20
FREE = "Apache-2.0"  # the terms of what the wheel carries


class Measured(NamedTuple):
    """Errors of weights on a part of the data.

    Args:
        section: ``"validation"``, ``"testing"`` or ``"folds"``.
        images: number of images.
        mean: mean radial error.
        median: median radial error.
    """

    section: str
    images: int
    mean: float
    median: float


def in_half_precision(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dictionary with numbers of half precision.

    Raises:
        ValueError: if a value becomes infinite.
    """
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    for name, value in state.items():
        lost = int((half[name].isinf() & ~value.isinf()).sum())
        if lost:
            raise ValueError(f"half precision is not enough: {lost} values of {name!r} become infinite.")
    return half


def require_fit(bundle: Path, state: Mapping[str, torch.Tensor], configs: Sequence[str] = ()) -> None:
    """Raise a ``ValueError`` if a state dictionary does not belong to the network of a bundle.

    Args:
        bundle: folder of the bundle.
        state: the state dictionary.
        configs: names of the configurations of the training after ``train.json``.
    """
    parser = ConfigParser()
    parser.read_config([bundle / "configs" / name for name in ("train.json", *configs, "evaluate.json")])
    parser["bundle_root"] = str(bundle)
    try:
        parser.get_parsed_content("network_def").load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights do not belong to the network of {bundle.name}: {str(error)[:300]}") from error


def measure(
    bundle: Path, weights: Path, dataset_dir: Path, configs: Sequence[str], section: str, learn: bool
) -> Measured | None:
    """Measure the errors of weights on a part of the data of a bundle.

    Args:
        bundle: folder of the bundle.
        weights: file of the weights.
        dataset_dir: data of the bundle.
        configs: names of the configurations of the training after ``train.json``.
        section: ``"validation"`` or ``"testing"``.
        learn: whether to write calibration and shapes beside the weights, as a training does at its best validation.

    Returns:
        The errors. None: the section has no images.
    """
    with tempfile.TemporaryDirectory() as folder:
        flow = _evaluation(bundle, weights, dataset_dir, configs, section, Path(folder))
        if section not in _sections(flow.parser.get_parsed_content("datalist")):
            return None
        if learn:
            flow.parser["validate#handlers"] = [*flow.parser["validate#handlers"], _saver(bundle, weights)]
            flow.parser["validate#postprocessing#transforms"] = ["@decoder"]
        flow.initialize()
        flow.run()
        with open(Path(folder) / "metrics.csv", encoding="utf-8", newline="") as file:
            values = {row["metric"]: float(row["value"]) for row in csv.DictReader(file)}
    return Measured(section, int(values["images"]), values["MRE"], values["median"])


def cross_validate(
    bundle: Path, weights: Path, folds: Sequence[tuple[Path, Path]], dataset_dir: Path, configs: Sequence[str]
) -> Measured:
    """Measure the errors of a cross-validation, learn calibration from its predictions, and shapes from all images.

    Args:
        bundle: folder of the bundle.
        weights: file of the weights, which may be trained on all images; calibration and shapes are written beside it.
        folds: for each fold, the file of its weights and its datalist. The validation part is predicted.
        dataset_dir: data of the bundle.
        configs: names of the configurations of the training after ``train.json``.

    Returns:
        The errors of all predictions together.
    """
    cases = []
    for own, datalist in folds:
        with tempfile.TemporaryDirectory() as folder:
            flow = _evaluation(bundle, own, dataset_dir, configs, "validation", Path(folder))
            flow.parser.update({"datalist": str(datalist), "fold_saver": _saver(bundle, Path(folder) / own.name)})
            flow.parser["validate#postprocessing#transforms"] = ["@decoder"]
            flow.initialize()
            saver = flow.parser.get_parsed_content("fold_saver")
            saver.attach(flow.parser.get_parsed_content("validate#evaluator"))
            flow.run()
        cases += saver.cases
    images = [
        item for part in ("training", "validation") for item in load_landmark_datalist(folds[-1][1], section=part)
    ]
    # the last one is as good as any other: names and radius are those of the bundle
    saver.calibration_path, saver.doubt_path = calibration_path(weights), doubt_path(weights)
    saver.write(cases, item_world_points(images, saver.names), logging.getLogger(__name__).warning)
    errors = np.linalg.norm(np.stack([case.true - case.points for case in cases]), axis=-1)
    return Measured("folds", len(cases), float(np.nanmean(errors)), float(np.nanmedian(errors)))


def large_files(models: Path, urls: str) -> str:
    """Return the content of ``large_files.yml`` in the form of the model zoo.

    Args:
        models: folder of the shipped weights.
        urls: address of the folder from which the zoo downloads them, under its names; empty if there is none yet.
    """
    lines = [
        "# MONAI's model zoo downloads these files; in a clone, they are models/pretrained*.pt.",
        "# The addresses are set when the files are uploaded, see docs/model_zoo.md.",
        "large_files:",
    ]
    for name, zoo_name in ((PRETRAINED, TRAINED), (CLOSE_LOOK_PRETRAINED, CLOSE_LOOK_PRETRAINED)):
        if (models / name).is_file():
            digest = hashlib.sha256((models / name).read_bytes()).hexdigest()
            url = f"{urls.rstrip('/')}/{zoo_name}" if urls else ""
            lines += [f'- path: "models/{zoo_name}"', f'  url: "{url}"']
            lines += [f'  hash_val: "{digest}"', '  hash_type: "sha256"']
    return "\n".join([*lines, ""])


def model_card(
    bundle: Path,
    measured: Mapping[str, Sequence[Measured]],
    training: str,
    commit: str,
    reliability_from: Path | None = None,
    folds: int = 0,
) -> str:
    """Return the card of the shipped weights.

    Args:
        bundle: folder of the bundle.
        measured: errors by the name of the file of weights.
        training: command of the training.
        commit: commit with which it ran.
        reliability_from: weights from which calibration and shapes come. None: the shipped ones.
        folds: number of folds of the cross-validation from which errors, calibration and shapes come.
    """
    facts = _facts(bundle.name)
    title = yaml.safe_load((SOURCE / "bundles" / f"{bundle.name}.yaml").read_text(encoding="utf-8"))["metadata"]["name"]
    reads = {PRETRAINED: "`inference.json` alone", CLOSE_LOOK_PRETRAINED: f"`inference.json` with `{CLOSE_LOOK}`"}
    files = "; ".join(f"`{name}`: {reads[name]}" for name in measured)
    errors = "; ".join(
        f"`{name}`: "
        + ", ".join(
            f"mean {one.mean:.2f} {_unit(facts)}, median {one.median:.2f} {_unit(facts)} on {_part(facts, one, folds)}"
            for one in results
        )
        for name, results in measured.items()
    )
    source = "the validation images and the training points"
    if reliability_from:
        source += " of another training with the same settings, which did not use the validation part"
    if folds:
        source = "the predictions of the cross-validation and the points of all its images"
    rows = {
        "finds": facts["finds"],
        "weights for": files,
        "data": facts["data"],
        "training": f"`{training}` at commit {commit}",
        "seed": _seed(bundle, training),
        "error": (
            f"{errors}; in float32"
            if folds
            else f"{errors}; measured with the shipped numbers of half precision, in float32"
        ),
        "calibration, probability, shape": f"from {source}",
        "not tried on": facts["not_tried_on"],
        "terms": f"{facts['terms']}. {facts['why']}",
        **{f"`{file}`": text for file, text in facts.get("also", {}).items() if file not in measured},
    }
    lines = [
        f"# Weights: {title}",
        "",
        "The weights are in half precision, as numbers alone (loaded with `weights_only`). The files"
        " `*_calibration.json` and `*_shape.json` beside them belong to them."
        + (
            ""
            if reliability_from or folds
            else " The best epoch was chosen on the validation part, so errors there are too small."
        ),
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {' '.join(value.split())} |" for key, value in rows.items()),
        "",
        "This is an example, not a medical device. A training writes `model.pt` beside these files and never changes them;"
        " `predict` then uses `model.pt`.",
        "",
    ]
    return "\n".join(lines)


def ship_weights(
    name: str,
    weights: Path,
    dataset_dir: Path,
    training: str,
    commit: str,
    configs: Sequence[str] = (),
    reliability_from: Path | None = None,
    folds: Sequence[tuple[Path, Path]] = (),
    urls: str = "",
) -> list[Path]:
    """Write the shipped weights of a bundle, and all that belongs to them.

    Args:
        name: name of the bundle.
        weights: ``model.pt`` of the training. A file of sigma beside it is shipped, too.
        dataset_dir: data of the bundle.
        training: command of the training, for the card.
        commit: commit with which it ran.
        configs: names of further configurations of the training. That of a close look is found.
        reliability_from: weights whose calibration and shapes are taken, because ``weights`` were trained on the
            validation part, too; those of a coarse network are in ``coarse/`` beside it. None: they are learned on the
            validation part.
        folds: of a cross-validation with the same settings, see :func:`cross_validate`. Weights of coarse networks are
            in ``coarse/`` beside those of the close looks.
        urls: see :func:`large_files`.

    Returns:
        The files written.

    Raises:
        ValueError: if the weights do not belong to the network of the bundle or are too large, or if no images are left
            to measure their error.
    """
    bundle = BUNDLES / name
    models = bundle / "models"
    models.mkdir(exist_ok=True)
    state = load_tensors(weights)
    close = {key.partition(".")[0] for key in state} == {"coarse", "fine"}
    parts = {PRETRAINED: (state, tuple(configs))}
    if close:
        coarse = {key.partition(".")[2]: value for key, value in state.items() if key.startswith("coarse.")}
        parts = {PRETRAINED: (coarse, tuple(configs)), CLOSE_LOOK_PRETRAINED: (state, (*configs, CLOSE_LOOK))}
    measured: dict[str, list[Measured]] = {}
    for file, (numbers, more) in parts.items():
        path = models / file
        try:
            require_fit(bundle, numbers, more)
        except ValueError as error:
            if not close or file == CLOSE_LOOK_PRETRAINED:
                raise
            print(f"no {file}: {error}")
            continue
        _write(path, in_half_precision(numbers))
        for path_of in (calibration_path, doubt_path, sigma_path):
            path_of(path).unlink(missing_ok=True)
        if not close and sigma_path(weights).is_file():  # that of a close look is in voxels of a patch
            shutil.copy(sigma_path(weights), sigma_path(path))
        if reliability_from is not None:
            known = reliability_from
            if close and file == PRETRAINED:
                known = reliability_from.parent / "coarse" / reliability_from.name
            for path_of in (calibration_path, doubt_path):
                shutil.copy(path_of(known), path_of(path))
        if folds:
            own = [(w.parent / "coarse" / w.name, d) for w, d in folds] if close and file == PRETRAINED else folds
            measured[file] = [cross_validate(bundle, path, own, dataset_dir, more)]
            continue
        # weights that come with the reliability of others have seen the validation part
        sections = ("validation", "testing") if reliability_from is None else ("testing",)
        results = [measure(bundle, path, dataset_dir, more, one, one == "validation") for one in sections]
        measured[file] = [one for one in results if one is not None]
        if not measured[file]:
            raise ValueError(f"{dataset_dir}: no images are left to measure the error of {file}.")
    facts = _facts(name)
    listed = bundle / "large_files.yml"
    listed.unlink(missing_ok=True)
    if facts["terms"] != FREE:
        listed.write_text(large_files(models, urls), encoding="utf-8")
    card = models / "README.md"
    card.write_text(model_card(bundle, measured, training, commit, reliability_from, len(folds)), encoding="utf-8")
    best = measured[CLOSE_LOOK_PRETRAINED if close else PRETRAINED][-1]
    _write_metadata(name, facts, best.mean)
    return [*sorted(models.glob("pretrained*")), card, *([listed] if listed.is_file() else [])]


def _evaluation(
    bundle: Path, weights: Path, dataset_dir: Path, configs: Sequence[str], section: str, folder: Path
) -> ConfigWorkflow:
    """Return the evaluation of weights, not initialized."""
    files = [str(bundle / "configs" / name) for name in ("train.json", *configs, "evaluate.json")]
    flow = ConfigWorkflow(files, workflow_type="train", logging_file=False, bundle_root=str(bundle))
    settings = {"dataset_dir": str(dataset_dir), "checkpoint": str(weights), "section": section}
    flow.parser.update({**settings, "output_dir": str(folder), "precision": "float32"})
    return flow


def _saver(bundle: Path, weights: Path) -> dict[str, Any]:
    """Return what writes calibration and shapes in a training of the bundle, for one evaluation of other weights."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "train.json")
    (saver,) = (item for item in parser["validate#handlers"] if item["_target_"] == HANDLER)
    return {**saver, "weights": str(weights), "best_only": False}


def _sections(datalist: Any) -> set[str]:
    """Return the sections of a datalist, a file or its content, that have images."""
    content = datalist if isinstance(datalist, Mapping) else json.loads(Path(datalist).read_text(encoding="utf-8"))
    return {str(section) for section, items in content.items() if isinstance(items, list) and items}


def _facts(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(CARDS.read_text(encoding="utf-8"))[name])


def _seed(bundle: Path, training: str) -> str:
    """Return the seed of a training: that of its command, or else that of the configuration."""
    given = re.search(r"--seed[ =](\d+)", training)
    return (
        given[1] if given else str(json.loads((bundle / "configs" / "train.json").read_text(encoding="utf-8"))["seed"])
    )


def _part(facts: Mapping[str, Any], measured: Measured, folds: int) -> str:
    """Return which images were measured."""
    if measured.section == "folds":
        return (
            f"{measured.images} images, in a cross-validation of {folds} trainings, which did not use what they predict"
        )
    name = "the validation part" if measured.section == "validation" else facts.get("testing", "the testing part")
    return f"the {measured.images} images of {name}"


def _unit(facts: Mapping[str, Any]) -> str:
    return str(facts.get("unit", "mm"))


def _write(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    content = io.BytesIO()
    torch.save(dict(state), content)
    if content.tell() > MAX_SIZE:
        size = content.tell() / 2**20
        raise ValueError(f"{path.name}: {size:.1f} MB in half precision; at most {MAX_SIZE // 2**20} MB are shipped.")
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getvalue())


def _write_metadata(name: str, facts: Mapping[str, Any], error: float) -> None:
    """Write terms and error into the YAML file of the bundle, and build ``metadata.json``."""
    source = SOURCE / "bundles" / f"{name}.yaml"
    entries = f"  weights_terms: {facts['terms']}\n  eval_metrics: {{mean_error_{_unit(facts)}: {error:.2f}}}\n"
    old = r"(?m)^  weights_terms:.*\n  eval_metrics:.*\n"
    text = source.read_text(encoding="utf-8")
    text, count = (
        re.subn(old, entries, text) if re.search(old, text) else re.subn("(?m)^metadata:\n", r"\g<0>" + entries, text)
    )
    assert count == 1, source
    source.write_text(text, encoding="utf-8")
    write_bundles()


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", help="name of the bundle")
    parser.add_argument("weights", type=Path, help="model.pt of the training")
    parser.add_argument("--dataset_dir", type=Path, required=True, help="data of the bundle")
    parser.add_argument("--training", required=True, help="command of the training, for the card")
    parser.add_argument("--commit", required=True, help="commit with which it ran, for the card")
    parser.add_argument("--config", action="append", default=[], help="further configuration of the training")
    parser.add_argument("--reliability_from", type=Path, help="weights whose calibration and shapes are taken")
    parser.add_argument(
        "--fold",
        type=Path,
        nargs=2,
        action="append",
        default=[],
        metavar=("WEIGHTS", "DATALIST"),
        help="weights and datalist of a fold of a cross-validation, from which error and calibration are taken",
    )
    parser.add_argument("--urls", default="", help="address of the folder from which the model zoo downloads the files")
    given = parser.parse_args()
    written = ship_weights(
        given.bundle,
        given.weights,
        given.dataset_dir,
        given.training,
        given.commit,
        given.config,
        given.reliability_from,
        [(weights, datalist) for weights, datalist in given.fold],
        given.urls,
    )
    for path in written:
        print(path)


if __name__ == "__main__":
    main()
