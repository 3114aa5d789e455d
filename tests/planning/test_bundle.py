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
"""The bundles that are written: for 2-D and 3-D data, of each method, as MONAI wants them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata
from summaries import GIB, summary, volumes

from monai_landmarks.data import load_landmark_datalist, read_item_landmarks, write_hand_phantom, write_spine_phantom
from monai_landmarks.inferers import CloseLookInferer, FlipEnsembleInferer
from monai_landmarks.planning import (
    METHODS,
    Machine,
    apply_schema,
    make_plan,
    summarize_datalist,
    with_pairs,
    write_bundle,
)
from monai_landmarks.planning.bundle import bundle_configs, fill_metadata, literal
from monai_landmarks.planning.sigma import choose_sigma
from monai_landmarks.precision import CalibratedSigma, PrecisionSearch
from monai_landmarks.schema import Landmark, LandmarkSchema, load_landmark_schema
from monai_landmarks.study.definition import CLOSE_LOOK

META_SCHEMA = Path(__file__).parents[1] / "bundles" / "meta_schema.json"
CASES = [(method, dims) for method in METHODS for dims in (2, 3)]
SMALL = {"width": 8, "batch_size": 2}


@pytest.fixture(scope="module")
def datalists(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    hand = write_hand_phantom(folder / "hand", 6, size=(60, 90), val_frac=0.34, test_frac=0.17)
    spine = write_spine_phantom(
        folder / "spine", 5, size=(24, 24, 40), spacing=(6, 6, 5), oblique=10, val_frac=0.4, test_frac=0
    )
    return {2: hand, 3: spine}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}d")
def written(request, datalists, tmp_path_factory):
    """Folder, plan and datalist of a small bundle."""
    method, dims = request.param
    summary = summarize_datalist(datalists[dims])
    plan = make_plan(summary, method, Machine("cpu", 8 * GIB), given=SMALL)
    folder = tmp_path_factory.mktemp("bundles") / f"my_{method}"
    if dims == 2:
        folder.mkdir()  # an empty folder is as good as none
    folder = write_bundle(folder, plan, datalists[dims])
    return folder, plan, datalists[dims]


def config(folder, name):
    return json.loads((folder / "configs" / f"{name}.json").read_text())


def workflow(folder, *names, **more):
    files = [str(folder / "configs" / f"{name}.json") for name in names]
    kind = "infer" if names[0] == "inference" else "train"
    return ConfigWorkflow(files, logging_file=False, workflow_type=kind, bundle_root=str(folder), **more)


def test_everything_is_there(written):
    folder, plan, datalist = written
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    configs = ["train", "close_look", "evaluate", "inference", "multi_gpu_train", "metadata", "tensorboard"]
    configs += ["search"] if plan.method == "adaptive" else []
    final = f"configs/{METHODS[plan.method].final_config}"
    expected = {final, "LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf"}
    assert files == expected | {f"configs/{name}.json" for name in configs}
    page = (folder / "docs" / "README.md").read_text()
    for name, choice in plan.choices.items():
        assert f"| {name} | " in page and choice.reason in page
    assert f"$B/{final}" in page and str(datalist) in page and "{" not in page.partition("## Use")[0].replace("${", "")


def test_the_final_training_keeps_the_evaluated_model(written):
    """Its files are in folders of their own, and predict finds them where the page says."""
    folder, plan, _ = written
    line = next(x for x in (folder / "docs" / "README.md").read_text().splitlines() if "Train on all images" in x)
    flow = workflow(folder, "train", Path(METHODS[plan.method].final_config).stem)
    options = dict(re.findall(r'--(\w+) "(\$B[\w/.]*\w)"', line))
    assert options["reliability_from"] == "$B/models/model.pt" and "reliability_from" in flow.parser
    weights = options.pop("checkpoint").replace("$B", str(folder))
    for name in ("ckpt_dir", "output_dir"):
        if name in options:
            flow.parser[name] = options[name].replace("$B", str(folder))
    flow.initialize()
    savers = [f"{h['save_dir']}/{h['final_filename']}" for h in flow.parser["train#handlers"] if h.get("save_final")]
    assert "@ckpt_dir/model.pt" in savers
    assert f"{flow.parser.get_parsed_content('ckpt_dir')}/model.pt" == weights != f"{folder}/models/model.pt"
    assert flow.parser.get_parsed_content("output_dir") != config(folder, "train")["output_dir"]


def test_settings_of_the_close_look_are_known_to_a_study(written):
    """A study, which does not train it, refuses them and leaves them out."""
    _, plan, _ = written
    found = {name for name in plan.choices if name.startswith("close_") or name.endswith("displacement")}
    assert found | {"groups", "close_turns"} == CLOSE_LOOK  # the last one only with groups


def test_a_close_look_runs(written):
    """The coarse grid lies in the finer one, and the patches go from an image to points."""
    folder, plan, datalist = written
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        flow = workflow(folder, "train", "close_look")
        flow.initialize()
        batch = next(iter(flow.parser.get_parsed_content("train#dataloader")))
        network, inferer = (flow.parser.get_parsed_content(name) for name in ("network", "inferer"))
        image = next(iter(flow.parser.get_parsed_content("validate#dataloader")))["image"]
        found = inferer(image, network.eval())
    value = {name: choice.value for name, choice in plan.choices.items()}
    assert list(batch["image"].shape[2:]) == value["close_size"]
    assert len(batch["image"]) == value["batch_size"] * value["close_patches_per_image"]
    assert network(batch["image"]).shape[1] == len(plan.summary.names)
    look = inferer.inferer if isinstance(inferer, FlipEnsembleInferer) else inferer
    coarse = look.coarse_grid(image[0])
    assert look.coarse_weight == value["coarse_weight"]
    if not plan.choices.in_patches:
        assert list(coarse.shape[1:]) == value["spatial_size"]
        ratios = [fine / n for fine, n in zip(image.shape[2:], value["spatial_size"])]
        assert len(set(ratios)) == 1 and ratios[0] == int(ratios[0])
    assert found["points"].shape[1] == len(plan.summary.names)


@pytest.mark.parametrize(("method", "dims"), CASES)
def test_the_close_look_takes_the_mean_with_the_mirror_image(method, dims):
    """Where left-right pairs are declared; the pairs of the inferer are those of the training."""
    pairs = (("c", "a"),)
    data = summary((400,) * dims if dims == 2 else (64, 64, 64), pairs=pairs)
    for given, mirrored in (
        (SMALL, True),
        ({**SMALL, "close_mirrored": False}, False),
        ({**SMALL, "flip": 0.0}, False),
    ):
        plan = make_plan(data, method, Machine("cpu", 8 * GIB), given=given)
        content = bundle_configs(plan, Path("datalist.json"))["close_look"]
        parser = ConfigParser({key: content[key] for key in ("close_size", "close_spacing", "close_groups", "turns")})
        parser.update(
            {"inferer": content["inferer"], "names": data.names, "coarse_weight": 0.0, "precision": "float32"}
        )
        parser.update({"coarse_inferer": None, "coarse_grid": None, "coarse_softmax": True})
        inferer = parser.get_parsed_content("inferer")
        assert isinstance(inferer, FlipEnsembleInferer if mirrored else CloseLookInferer)
        if mirrored:
            assert isinstance(inferer.inferer, CloseLookInferer) and inferer.flip.spatial_axis == (0,)
            assert list(inferer.flip.partners(3)) == [2, 1, 0]


@pytest.mark.parametrize("dims", [2, 3])
def test_target_precision_follows_the_error_and_can_be_searched(datalists, tmp_path, dims):
    plan = make_plan(summarize_datalist(datalists[dims]), "adaptive", Machine("cpu", 8 * GIB), given=SMALL)
    folder = write_bundle(tmp_path / "bundle", plan, datalists[dims])
    kinds = ((["train"], CalibratedSigma, 1.0), (["train", "search"], PrecisionSearch, 2.0))
    for names, kind, margin in kinds:
        parser = ConfigParser()
        parser.read_config([str(folder / "configs" / f"{name}.json") for name in names])
        parser["bundle_root"] = str(folder)
        controller = parser.get_parsed_content("controller")
        assert type(controller) is kind
        assert (controller.objective.spatial_dims, controller.objective.margin) == (dims, margin)
        high = 6 * plan.choices["spacing_mm"].value
        assert controller.sigma_range.high == pytest.approx(high)
    assert "`'$B/configs/search.json'`" in (folder / "docs" / "README.md").read_text()


def test_metadata(written):
    folder, plan, _ = written
    verify_metadata(str(folder / "configs" / "metadata.json"), filepath=META_SCHEMA)
    metadata, page = config(folder, "metadata"), (folder / "docs" / "README.md").read_text()
    first = {"scn": "Payer", "farnet": "Ao Y", "adaptive": "Zhou", "unet": "Ronneberger"}[plan.method]
    assert metadata["references"][0].startswith(first) and all(text in page for text in metadata["references"])
    formats = metadata["network_data_format"]
    pred, dims = formats["outputs"]["pred"], plan.summary.spatial_dims
    assert tuple(pred["channel_def"].values()) == plan.summary.names
    assert len(pred["spatial_shape"]) == len(formats["inputs"]["image"]["spatial_shape"]) == dims
    assert formats["post_processed_outputs"]["pred_points"]["spatial_shape"] == [len(plan.summary.names), dims]


def test_training_and_inference_agree(written):
    folder, _, _ = written
    train, inference = config(folder, "train"), config(folder, "inference")
    for key in (
        "network_def",
        "names",
        "spatial_size",
        "voxel_spacing",
        "normalization",
        "batch_size",
        "device",
        "precision",
    ):
        assert train[key] == inference[key], key
    loads = [t for t in train["train"]["deterministic_transforms"] if "LoadLandmarksd" not in str(t)]
    assert inference["preprocessing"]["transforms"] == loads


def test_the_network_takes_the_grid(written):
    """What is written makes a network with a heatmap for each landmark on the grid, which it does not pad."""
    folder, plan, _ = written
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser.update({"bundle_root": str(folder)})
    size = plan.choices["spatial_size"].value
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def")
        assert network(torch.empty(1, 1, *size)).shape == (1, len(plan.summary.names), *size)
    stride = getattr(network, "stride", 16)  # MONAI's U-Net halves four times
    assert all(side % stride == 0 for side in size)


def test_the_loss_has_the_sigma_that_was_chosen(written):
    folder, plan, _ = written
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "train.json")
    parser.update({"bundle_root": str(folder)})
    loss = parser.get_parsed_content("loss_def")
    target = {
        "scn": lambda: loss.target,
        "farnet": lambda: parser.get_parsed_content("pixel_loss").target,
        "adaptive": lambda: loss.base.target,
        "unet": lambda: loss.target,
    }[plan.method]()
    table = target.sigma_table(len(plan.summary.names), plan.summary.spatial_dims)
    expected = plan.choices["sigma_mm"].value / plan.choices["spacing_mm"].value
    torch.testing.assert_close(table, torch.full_like(table, expected), rtol=1e-3, atol=0)


def test_preprocessing_keeps_points_and_turns_volumes(written):
    folder, plan, datalist = written
    flow = workflow(folder, "train", **{"train#dataset#cache_num": 0, "augmentation": []})
    flow.initialize()
    dims, size = plan.summary.spatial_dims, plan.choices["spatial_size"].value
    items = load_landmark_datalist(datalist)
    # a picture's points are pixels, of which Slicer has the first at the origin of LPS
    pixel = np.diag([*(-step for step in items[0].get("spacing", (1, 1))), 1, 1])
    truth = {item["image"]: read_item_landmarks(item).to_world(pixel).points for item in items}
    for item in flow.train_dataset:
        assert tuple(item["image"].shape) == (1, *size)
        affine = item["image"].affine.numpy()
        if dims == 3:
            assert nib.aff2axcodes(affine) == ("R", "A", "S")
        steps = np.linalg.norm(affine[:dims, :dims], axis=0)
        np.testing.assert_allclose(steps, plan.choices["spacing_mm"].value, rtol=0.05)
        points = item["label"][0].numpy()
        assert ((points > -0.5) & (points < np.array(size) - 0.5)).all()
        world = points @ affine[:dims, :dims].T + affine[:dims, 3]
        np.testing.assert_allclose(world, truth[item["image"].meta["filename_or_obj"]], atol=1e-3)


def test_volumes_of_any_orientation_are_turned(tmp_path):
    """Left and right are along the first axis of the grid, where images are mirrored."""
    datalist = volumes(tmp_path)
    plan = make_plan(summarize_datalist(datalist), "scn", Machine("cpu", 8 * GIB), given=SMALL)
    flow = workflow(write_bundle(tmp_path / "b", plan, datalist), "inference")
    flow.initialize()
    shapes = set()
    for item in load_landmark_datalist(datalist, ["training", "validation"]):
        image = flow.parser.get_parsed_content("preprocessing")({"image": item["image"]})["image"]
        assert nib.aff2axcodes(image.affine.numpy()) == ("R", "A", "S")
        shapes.add(tuple(image.shape[1:]))
    assert shapes == {tuple(plan.choices["spatial_size"].value)}


@pytest.mark.parametrize("configs", [("train",), ("train", "evaluate"), ("inference",)], ids="+".join)
def test_properties(written, tmp_path, configs):
    folder, _, _ = written
    flow = workflow(folder, *configs, output_dir=str(tmp_path))
    flow.initialize()
    assert not flow.check_properties()


def test_evaluation_is_of_what_there_is(written):
    folder, plan, _ = written
    assert config(folder, "evaluate")["section"] == ("testing" if plan.summary.counts[2] else "validation")


def test_expressions_are_those_of_the_shipped_bundle(written):
    """A datalist, whose names may be anything, adds none."""
    folder, plan, _ = written

    def expressions(content):
        if isinstance(content, dict):
            content = list(content.values())
        if isinstance(content, list):
            return {text for part in content for text in expressions(part)}
        return {content} if isinstance(content, str) and content.startswith(("$", "@")) else set()

    from monai_landmarks import bundle_path

    shipped = bundle_path(METHODS[plan.method].bundle)
    for name in ("train", "inference"):
        more = expressions(config(folder, name)) - expressions(config(shipped, name))
        assert more <= {"@voxel_spacing", "@spatial_size", "@sigma", "@softmax"}


def test_settings_that_are_given(datalists, tmp_path):
    summary = with_pairs(summarize_datalist(datalists[2]), [("radius_styloid", "ulna_styloid")])
    given = {"spatial_size": [64, 64], "intensity": [0, 255], "max_epochs": 3, "flip": 0.25, "modality": "CT"}
    plan = make_plan(summary, "scn", Machine("cpu", 8 * GIB), given=given)
    assert plan.choices["spacing_mm"].value == pytest.approx(summary.extents[0, 1] / 64, rel=1e-3)
    assert all(plan.choices[name].reason == "given" for name in given)
    folder = write_bundle(tmp_path / "b", plan, datalists[2])
    train = config(folder, "train")
    assert train["normalization"]["_target_"] == "ScaleIntensityRanged" and train["max_epochs"] == 3
    rows = [summary.names.index(name) for name in ("radius_styloid", "ulna_styloid")]
    assert train["augmentation"][0]["pairs"] == [rows] and train["augmentation"][0]["prob"] == 0.25
    for wrong, message in (
        ({"batch": 3}, "unknown setting 'batch'; expected one of modality"),
        ({"spatial_size": [64]}, "expected 2 positive integers"),
        ({"modality": "US"}, "expected one of CT, MR, X-ray"),
        ({"intensity": "none"}, "expected 'standardize'"),
        ({"batch_size": "4"}, "batch_size is '4'; expected a positive integer"),
        ({"batch_size": -2}, "expected a positive integer"),
        ({"batch_size": 2.0}, "expected a positive integer"),
        ({"max_epochs": 0}, "expected a positive integer"),
        ({"close_size": 64}, "close_size is 64; expected 2 positive integers"),
        ({"close_size": [64]}, "expected 2 positive integers"),
        ({"displacement": -1}, "displacement is -1; expected a positive number"),
        ({"val_interval": 2.5}, "expected a positive integer"),
        ({"spacing_mm": 0}, "spacing_mm is 0; expected a positive number"),
        ({"spacing_mm": "a"}, "expected a positive number"),
        ({"sigma_mm": [1.0]}, "or one for each of"),
        ({"flip": 2}, "flip is 2; expected a number from 0 to 1"),
        ({"coarse_weight": -0.1}, "coarse_weight is -0.1; expected a number from 0 to 1"),
        ({"resampling": "x"}, "expected 'fit' or 'spacing'"),
        ({"scale": "0.1"}, "scale is '0.1'; expected a number from 0 to 0.99"),
        ({"rotate": -1}, "rotate is -1; expected a number, 0 or more, or a list of 1"),
        ({"translate": [3]}, "or a list of 2, each such a number or a pair"),
        ({"elastic": [[2, 1], 3]}, "expected a number, 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            make_plan(summary, "scn", Machine("cpu", 8 * GIB), given=wrong)
    with pytest.raises(ValueError, match="unknown method 'resnet'; expected one of scn"):
        make_plan(summary, "resnet", Machine("cpu", 8 * GIB))


@pytest.mark.parametrize("method", METHODS)
def test_a_schema(datalists, tmp_path, method):
    summary = summarize_datalist(datalists[2])
    marks = tuple(Landmark(name, sigma_mm=3.0 if i == 1 else None) for i, name in enumerate(summary.names))
    schema = LandmarkSchema("s", 2, (*marks, Landmark("more")), pairs=((summary.names[0], summary.names[2]),))
    known = apply_schema(summary, schema)
    assert known.pairs == schema.pairs
    plan = make_plan(known, method, Machine("cpu", 8 * GIB), schema=schema, given=SMALL)
    train = config(write_bundle(tmp_path / method, plan, datalists[2]), "train")
    sigma = [row[0] for row in train["sigma"]] if "sigma" in train else train["loss_def"]["sigma"]
    voxel = 1 if method == "adaptive" else plan.choices["spacing_mm"].value  # whose loss takes mm
    assert sigma[1] == pytest.approx(3.0 / voxel, abs=1e-3) and sigma[0] != sigma[1]
    assert train["loss_def"].get("learn_sigma", False) is False and plan.choices["flip"].value == 0.5
    for wrong, message in (
        (LandmarkSchema("s", 3, marks), "3-D landmarks, but the images are 2-D"),
        (LandmarkSchema("s", 2, marks[1:]), "lacks the landmark 'radius_styloid'"),
    ):
        with pytest.raises(ValueError, match=message):
            apply_schema(summary, wrong)


def test_a_schema_by_abbreviations():
    faces = summary((64, 64), names=("L", "R", "chin"))
    marks = (Landmark("right eye", "R", sigma_mm=4.0), Landmark("left eye", "L"), Landmark("Chin"))
    schema = LandmarkSchema("s", 2, marks, pairs=(("left eye", "right eye"),))
    assert apply_schema(faces, schema).pairs == (("L", "R"),)
    assert choose_sigma(faces.names, (64, 64), 0.5, 2.0, schema).value == [1.0, 4.0, 1.0]
    with pytest.raises(ValueError, match="lacks the landmark 'nose'"):
        apply_schema(summary((64, 64), names=("L", "nose")), schema)


@pytest.mark.parametrize(
    "schema, names, expected",
    [
        ("cephalometric_19", ("S", "N", "A", "new"), "cephalometric_19"),
        ("cephalometric_19", ("S", "N", "new"), None),  # no measurement of two
        ("mouse_skull_45", ("LM01", "new"), "mouse_skull_45"),  # which has no measurements
        ("own", ("a", "b"), None),  # predict could not find it
    ],
)
def test_the_schema_that_belongs_to_a_bundle(schema, names, expected):
    own = LandmarkSchema("own", 2, (Landmark("a"), Landmark("b")))
    known = own if schema == "own" else load_landmark_schema(schema)
    plan = make_plan(
        summary((64,) * known.spatial_dims, names=names), "scn", Machine("cpu", 8 * GIB), schema=known, given=SMALL
    )
    content = json.loads((plan.template / "configs" / "metadata.json").read_text())
    assert fill_metadata(content, plan, "b").get("landmark_schema") == expected


@pytest.mark.parametrize("path", ["$HOME/d.json", "@images", "%d.json"])
def test_paths_that_monai_would_read_as_something_else(path):
    with pytest.raises(ValueError, match="rename or move the path"):
        literal(path)
    assert literal(Path("/data") / path) == f"/data/{path}"


def test_a_folder_in_use_is_left_alone(datalists, tmp_path):
    plan = make_plan(summarize_datalist(datalists[2]), "scn", Machine("cpu", 8 * GIB), given=SMALL)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        write_bundle(tmp_path / "b", plan, datalists[2])
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "mine.txt"]


def test_nothing_is_left_of_a_bundle_that_fails(datalists, tmp_path, monkeypatch):
    plan = make_plan(summarize_datalist(datalists[2]), "scn", Machine("cpu", 8 * GIB), given=SMALL)
    seen = []
    monkeypatch.setattr(
        "monai_landmarks.planning.bundle.readme", lambda *args: seen.extend(tmp_path.iterdir()) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        write_bundle(tmp_path / "b", plan, datalists[2])
    assert list(tmp_path.iterdir()) == []
    # if it was killed, the next process removes what has such a name
    assert [path.name.startswith(".writing-") for path in seen] == [True]


def test_memory_bounds_the_plan(datalists):
    summary = summarize_datalist(datalists[3])
    small, large = (make_plan(summary, "scn", Machine("cpu", gib * GIB)) for gib in (0.12, 8))
    sizes = [math.prod(plan.choices["spatial_size"].value) for plan in (small, large)]
    assert sizes[0] < sizes[1] and "GiB" in small.choices["spatial_size"].reason
