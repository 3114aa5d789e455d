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
"""Bundles that are fine-tuned from another one: what is kept, what starts fresh, what is held, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data import MetaTensor
from summaries import GIB, summary

from monai_landmarks import bundle_path
from monai_landmarks.apps.main import program
from monai_landmarks.data import write_hand_phantom, write_spine_phantom
from monai_landmarks.inferers import ChainLandmarkInferer
from monai_landmarks.networks import learned_weights
from monai_landmarks.planning import (
    Machine,
    make_fine_tuning_plan,
    make_plan,
    read_source_bundle,
    summarize_datalist,
    write_bundle,
)
from monai_landmarks.planning.bundle import bundle_configs
from monai_landmarks.planning.fine_tuning import fine_tuning_from
from monai_landmarks.planning.fine_tuning_plan import nearest_size
from monai_landmarks.planning.source_bundle import SourceBundle
from monai_landmarks.schema import load_landmark_schema

MACHINE = Machine("cpu", 8 * GIB)
SMALL = {"width": 4, "batch_size": 2}
CASES = [("scn", 2), ("farnet", 2), ("adaptive", 2), ("unet", 2), ("scn", 3)]
SHIPPED = [path.parent for path in sorted(bundle_path("hand_xray_landmarks_scn").parent.glob("*/models"))]
NEW, GONE, RENAMED = 1, 3, 0


@pytest.fixture(scope="module")
def datalists(tmp_path_factory):
    """The datalist that the source is for, and one with a new landmark, one left out and one of another spelling."""
    folder = tmp_path_factory.mktemp("data")
    made = {
        2: write_hand_phantom(folder / "hand", 5, size=(60, 90), val_frac=0.4),
        3: write_spine_phantom(folder / "spine", 4, size=(24, 24, 40), spacing=(6, 6, 5), val_frac=0.5, test_frac=0),
    }
    return {dims: (path, changed(path)) for dims, path in made.items()}


def changed(path):
    content = json.loads(path.read_text())
    names = content["landmarks"]["names"]
    new = {names[NEW]: "one more", names[RENAMED]: names[RENAMED].replace("_", "-").swapcase()}
    gone = names[GONE]
    content["landmarks"].update(names=[new.get(name, name) for name in names if name != gone], pairs=[])
    for item in content["training"] + content["validation"]:
        if isinstance(item["label"], list):
            del item["label"][GONE]
            continue
        file = path.parent / item["label"]
        markups = json.loads(file.read_text())
        points = [point for point in markups["markups"][0]["controlPoints"] if point["label"] != gone]
        markups["markups"][0]["controlPoints"] = points
        for point in points:
            point["label"] = new.get(point["label"], point["label"])
        item["label"] = f"{item['label'].removesuffix('.mrk.json')}_other.mrk.json"
        (path.parent / item["label"]).write_text(json.dumps(markups))
    other = path.with_name("other.json")
    other.write_text(json.dumps(content))
    return other


def network_of(folder):
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "train.json")
    parser.update({"bundle_root": str(folder)})
    return parser.get_parsed_content("network_def")


def train_source(folder):
    """Give a bundle weights that are not those of any initialization, and a sigma of 2.0, 2.1, ... voxels."""
    torch.manual_seed(5)
    network = network_of(folder)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    (folder / "models").mkdir()
    torch.save(network.half().state_dict(), folder / "models" / "model.pt")
    count = config(folder, "metadata")["network_data_format"]["outputs"]["pred"]["num_channels"]
    torch.save({"sigma": 2 + 0.1 * torch.arange(count)[:, None]}, folder / "models" / "model_sigma.pt")
    return folder


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}d")
def learned(request, datalists, tmp_path_factory):
    """The source, the fine-tuned bundle, and its plan."""
    method, dims = request.param
    folder, (before, after) = tmp_path_factory.mktemp("bundles"), datalists[dims]
    patches = {"patch_size": [32, 32, 32], "spacing_mm": 6.0} if dims == 3 else {}
    plan = make_plan(summarize_datalist(before), method, MACHINE, given={"width": 4, **(patches or {"batch_size": 2})})
    source = train_source(write_bundle(folder / "source", plan, before))
    given = {"max_epochs": 2, "held_epochs": 1}
    plan = make_fine_tuning_plan(summarize_datalist(after), read_source_bundle(source), MACHINE, given=given)
    return source, write_bundle(folder / "learned", plan, after), plan


def config(folder, name):
    return json.loads((folder / "configs" / f"{name}.json").read_text())


def workflow(folder, **more):
    flow = ConfigWorkflow(
        str(folder / "configs" / "train.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(folder),
        **more,
    )
    flow.initialize()
    return flow


def test_first_heatmaps_of_kept_landmarks(learned):
    """They are those of the old network, in which a landmark that is left out is no input of the others."""
    source, folder, plan = learned
    flow = workflow(folder)
    new, old = flow.parser.get_parsed_content("network").eval(), network_of(source).eval()
    old.load_state_dict(torch.load(source / "models" / "model.pt"))
    head = {"scn": lambda: old.local_appearance[1], "farnet": lambda: old.coarse_head.project}.get(plan.method)
    with torch.no_grad():
        if head is not None:
            head().weight[[NEW, GONE]] = 0  # the old landmark in the place of the new one is left out, too
            head().bias[[NEW, GONE]] = 0
        dims, side = plan.summary.spatial_dims, 64 if plan.summary.spatial_dims == 2 else 32
        image = torch.randn(1, 1, *(side,) * dims)
        before, after = old(image), new(image)
    names = list(plan.summary.names)
    count = before.shape[1]
    rows = [row for row in range(count) if row not in (NEW, GONE)]
    assert after.shape[1] == len(names) == count - 1 and names[NEW] == "one more"
    columns = [column for column in range(len(names)) if column != NEW]
    expected = before[:, rows]
    torch.testing.assert_close(after[:, columns], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert (after[:, NEW] - before[:, NEW]).abs().max() > 1e-3


def test_what_is_kept_of_the_configuration(learned):
    source, folder, plan = learned
    before, after = config(source, "train"), config(folder, "train")
    for key in ("network_def", "normalization", "inferer", "decoder", "voxel_spacing", "optimizer", "lr_scheduler"):
        assert after[key] == before[key] == config(folder, "inference").get(key, after[key]), key
    grid = "patch_size" if plan.summary.spatial_dims == 3 else "spatial_size"
    assert after[grid] == before[grid] and plan.choices["spacing_mm"].value == pytest.approx(
        before["voxel_spacing"] or config(source, "metadata")["grid_spacing_mm"], rel=1e-3
    )
    sigma = {"scn": lambda: after["loss_def"]["sigma"], "adaptive": lambda: after["loss_def"]["sigma"]}.get(plan.method)
    if sigma is not None:
        scale = before["voxel_size"] if plan.method == "adaptive" else 1
        count = len(plan.summary.names) + 1
        learned = 2 + 0.1 * np.arange(count)
        expected = np.delete(learned, GONE)
        expected[NEW] = np.median(learned)
        np.testing.assert_allclose(sigma(), scale * expected, rtol=1e-3)
    assert after["learning_rate"] == before["learning_rate"] / 2
    assert not {"annotator", "schema"} & set(after) and after["datalist"].endswith("other.json")


def test_everything_is_said(learned):
    source, folder, plan = learned
    rows = dict(plan.fine_tuning.rows())
    count = len(plan.summary.names)
    assert rows["kept"].startswith(f"{count - 1}: ") and "(there " in rows["kept"]
    assert rows["new"].startswith("1: one more;") and rows["left out"].startswith("2: ")
    page = (folder / "docs" / "README.md").read_text()
    assert all(text in page for text in rows.values()) and all(c.reason in page for c in plan.choices.values())
    assert f"from the bundle `{source.name}`" in page
    assert f"weights of {source.name}" in (folder / "docs" / "data_license.txt").read_text()
    final = page.partition("Train on all images")[2].partition("configs/")[2].partition("configs/")[2].partition("'")[0]
    assert (folder / "configs" / final).is_file()


@pytest.mark.usefixtures("unpainted")
def test_first_layers_are_held_and_then_learn(learned, tmp_path):
    """Also if the training is resumed between the two epochs."""
    _, folder, plan = learned
    if plan.method != "scn":
        return
    initial = torch.load(folder / "models" / "initial.pt")
    assert all(value.dtype == torch.float32 for value in initial.values())
    states = []
    for epochs in (1, 2):
        flow = workflow(
            folder,
            max_epochs=epochs,
            resume=epochs == 2,
            ckpt_dir=str(tmp_path),
            output_dir=str(tmp_path),
            device="cpu",
        )
        flow.run()
        states.append(torch.load(tmp_path / "model_final.pt"))
        held = [name for name in initial if name.startswith(flow.parser.get_parsed_content("network").first_layers())]
    heads = [name for name in initial if name.startswith("spatial_configuration")]
    for name in held:
        torch.testing.assert_close(states[0][name], initial[name], rtol=0, atol=0)
    for names, state in ((heads, states[0]), (held, states[1])):
        # a bias before a normalization has no gradient, and one without weight decay does not move
        assert sum(not torch.equal(state[name], initial[name]) for name in names) > len(names) / 2


@pytest.mark.parametrize("method", ["scn", "unet"])
def test_the_method_of_a_source_is_recognized(method, datalists, tmp_path):
    """Two methods have the same network."""
    source = train_source(
        write_bundle(tmp_path / "s", make_plan(summarize_datalist(datalists[2][0]), method), datalists[2][0])
    )
    assert read_source_bundle(source).method == method


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_weights_are_those_of_their_network(folder):
    """A close look may have another coarse network than ``train.json``, which is then the one that is fine-tuned."""
    if not (folder / "models" / "pretrained.pt").is_file():
        with pytest.raises(ValueError, match="coarse network for other points than train.json.* Give a bundle with"):
            read_source_bundle(folder)
        return
    source = read_source_bundle(folder)
    assert (source.close_weights is not None) == (folder / "models" / "pretrained_close_look.pt").is_file()
    parser = ConfigParser(source.configs["train"])
    parser.update({"bundle_root": str(folder)})
    assert learned_weights(parser.get_parsed_content("network_def"), source.weights, range(len(source.names)))


@pytest.mark.parametrize(
    ("name", "changed"),
    [("lumbar_mri_landmarks_scn", False), ("lumbar_mri_landmarks_scn", True), ("mouse_ct_landmarks_scn", True)],
)
def test_a_coarse_network_with_files_of_its_own(name, changed, tmp_path):
    """It becomes the network of the new bundle, in training and inference, with the close look behind it."""
    source = read_source_bundle(bundle_path(name))
    assert source.method == "unet" and source.close_weights is not None
    names = (*source.names[:2], "new") if changed else source.names
    data = summary((96, 112, 112), (2.0,) * 3, names=names, counts=(12, 4, 0))
    plan = make_fine_tuning_plan(data, source, MACHINE)
    folder = write_bundle(tmp_path / "learned", plan, tmp_path / "datalist.json")
    spacing = json.loads((bundle_path(name) / "configs" / "unet.json").read_text())["voxel_spacing"]
    chained = name.startswith("lumbar") and not changed  # the steps of the chain are those of its landmarks
    for kind in ("train", "inference"):
        parsers = []
        for files in ([kind], [kind, "close_look"]):
            parsers.append(ConfigParser())
            parsers[-1].read_config([folder / "configs" / f"{file}.json" for file in files])
            parsers[-1].update({"bundle_root": str(folder), "device": torch.device("cpu")})
        coarse, both = parsers
        assert coarse["voxel_spacing"] == spacing and coarse["softmax"] is not chained
        assert isinstance(coarse.get_parsed_content("inferer"), ChainLandmarkInferer) == chained
        network = both.get_parsed_content("network_def").eval()
        state = torch.load(folder / "models" / "initial.pt")
        network.coarse.load_state_dict({key: value.float() for key, value in state.items()})
        affine = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0]).double()) * spacing
        affine[3, 3] = 1
        with torch.no_grad():
            found = both.get_parsed_content("inferer")(MetaTensor(torch.rand(1, 1, 48, 64, 64), affine=affine), network)
        assert found["points"].shape == (1, len(names), 3)
        assert both["softmax"] is False  # the close look ends in points


@pytest.mark.parametrize("pairs", [(), (("new", "LM05"),)])
def test_the_mirror_image_of_a_fine_tuned_close_look_has_the_new_pairs(pairs):
    """Those of its source are landmarks that the data do not have."""
    data = summary((96, 144, 112), (0.2,) * 3, names=("LM05", "LM02", "new"), pairs=pairs, modality="CT")
    source = read_source_bundle(bundle_path("mouse_ct_landmarks_scn"))
    plan = make_fine_tuning_plan(data, source, MACHINE, given={"batch_size": 1})
    inferer = bundle_configs(plan, Path("datalist.json"))["close_look"]["inferer"]
    assert inferer["_target_"].endswith("FlipEnsembleInferer" if pairs else "CloseLookInferer")
    assert inferer.get("pairs") == ([[2, 0]] if pairs else None)


@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_no_mirror_image_without_mirroring(flip):
    """The chain of a spine takes the mean with the mirror image, which a training without mirroring does not know."""
    source = read_source_bundle(bundle_path("lumbar_mri_landmarks_scn"))
    data = summary((96, 112, 112), (2.0,) * 3, names=source.names)
    plan = make_fine_tuning_plan(data, source, MACHINE, given={"flip": flip})
    for name in ("train", "inference"):
        inferer = bundle_configs(plan, Path("datalist.json"))[name]["inferer"]
        assert inferer["mirror"] == ([0, 1, 2, 3, 4] if flip else None)


def lengths(configs):
    """Those of warp, targets and close look, in mm, or in pixels where their size is not known."""
    train, close = configs["train"], configs["close_look"]
    warp = next(t for t in train["augmentation"] if t.get("unit") == "mm")
    sigma = train["loss_def"]["sigma"] if "voxel_size" in train else []
    names = ("close_spacing", "displacement", "far_displacement")
    return np.array([warp["translate_range"], warp["elastic_range"], *(close[name] for name in names), *sigma])


@pytest.mark.parametrize("method", ["scn", "adaptive"])
def test_lengths_have_as_many_voxels_without_a_pixel_size(method, tmp_path):
    """A grid of a bundle in mm, then of pictures of unknown pixel size, and from their bundle again of images in mm."""
    source = read_source_bundle(bundle_path(f"ceph_xray_landmarks_{method}"))
    if method == "adaptive":
        sigma = [source.configs["train"]["voxel_size"] * value for value in source.sigma]
        source.configs["train"]["loss_def"]["sigma"] = sigma
    expected = lengths(source.configs) / 1.25
    pictures = summary((1935, 2400), names=source.names, in_pixels=True, modality="X-ray")
    plan = make_fine_tuning_plan(pictures, source, MACHINE)
    assert plan.choices["spacing_mm"].value == 12.5 and plan.choices["length_factor"].value == 10
    folder = write_bundle(tmp_path / "pixels", plan, tmp_path / "datalist.json")
    written = {name: config(folder, name) for name in ("train", "close_look")}
    np.testing.assert_allclose(lengths(written) / 12.5, expected, rtol=1e-3)
    assert written["close_look"]["close_size"] == source.configs["close_look"]["close_size"]

    shutil.move(folder / "models" / "initial.pt", folder / "models" / "model.pt")
    known = summary((1935, 2400), (0.05, 0.05), names=source.names)
    again = make_fine_tuning_plan(known, read_source_bundle(folder), MACHINE)
    assert again.choices["spacing_mm"].value == 0.625 and "not known" in again.choices["length_factor"].reason
    np.testing.assert_allclose(lengths(bundle_configs(again, Path("datalist.json"))) / 0.625, expected, rtol=1e-3)

    del (metadata := config(folder, "metadata"))["grid_spacing_px"]
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    unknown = make_fine_tuning_plan(known, read_source_bundle(folder), MACHINE).fine_tuning
    assert unknown.close_look == (method == "adaptive")  # whose loss states the voxel size


def test_lengths_in_mm_stay():
    """Also if the grid is another one."""
    source = read_source_bundle(bundle_path("ceph_xray_landmarks_scn"))
    expected = lengths(source.configs)
    known = summary((1935, 2400), (0.1, 0.1), names=source.names)
    plan = make_fine_tuning_plan(known, source, MACHINE, given={"spacing_mm": 2.5})
    np.testing.assert_array_equal(lengths(bundle_configs(plan, Path("datalist.json"))), expected)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("spacing", [2.0, 1.5])
def test_chains_follow_a_given_voxel_size(spacing, inline):
    """Their steps and the distance of their candidates are in voxels of the grid, and stay the same in mm."""
    source = read_source_bundle(bundle_path("lumbar_mri_landmarks_scn"))
    assert source.spacing == 3.5
    chain = source.configs["train"]["inferer"]["chain"]
    offsets, distance = source.configs["train"]["chain_offsets"], chain["min_distance"]
    if inline:  # as init writes them
        for name in ("train", "inference"):
            source.configs[name]["inferer"]["chain"]["offsets"] = [source.configs[name].pop("chain_offsets")]
    data = summary((96, 112, 112), (2.0,) * 3, names=source.names)
    plan = make_fine_tuning_plan(data, source, MACHINE, given={"spacing_mm": spacing})
    configs = bundle_configs(plan, Path("datalist.json"))
    for name in ("train", "inference"):
        new = configs[name]["inferer"]["chain"]
        steps = new["offsets"][0] if inline else configs[name]["chain_offsets"]
        np.testing.assert_allclose(np.array(steps) * spacing, np.array(offsets) * 3.5, atol=0.01)
        assert new["min_distance"] * spacing == pytest.approx(distance * 3.5, abs=0.05 * spacing)
    # the coarse network sees its images through those of the close look, which are not coarser
    assert configs["close_look"]["voxel_spacing"] == min(2.0, spacing)


@pytest.mark.parametrize("name", ["hand_37", "afids_32"])
def test_names_and_abbreviations_of_the_schema_are_the_same(name):
    """Whichever of both has the bundle, and whichever the data."""
    schema = load_landmark_schema(name)
    short = tuple(mark.abbreviation or mark.name for mark in schema.landmarks)
    train = {"network_def": {"spatial_dims": schema.spatial_dims}}
    for own in (schema.names, short):
        source = SourceBundle(Path("b"), "scn", own, {"train": train}, Path("w"), {}, None, None, schema)
        for given in (schema.names, short):
            data = summary((64,) * schema.spatial_dims, names=given[::-1])
            tuned, data = fine_tuning_from(source, data)
            assert tuned.kept == tuple(reversed(range(len(schema.names))))
            new = dict(zip(schema.names, given))
            assert data.pairs == tuple((new[left], new[right]) for left, right in schema.pairs)


def test_peaks_in_windows_follow_a_given_voxel_size():
    bundle = bundle_path("vertebrae_ct_landmarks_scn") / "configs"
    configs = {path.stem: json.loads(path.read_text()) for path in bundle.glob("*.json")}
    names = tuple(configs["metadata"]["network_data_format"]["outputs"]["pred"]["channel_def"].values())
    source = SourceBundle(bundle.parent, "scn", names, configs, bundle, {}, None, None, None)
    data = summary((200, 200, 300), (1.0,) * 3, names=names)
    given = {"spacing_mm": 4.0, "patch_size": [32, 32, 32], "patches_per_image": 1}
    plan = make_fine_tuning_plan(data, source, MACHINE, given=given)
    for name, written in bundle_configs(plan, Path("datalist.json")).items():
        if name in ("train", "inference"):
            assert written["windows"]["min_distance"] * 4.0 == configs[name]["windows"]["min_distance"] * 2.0


def test_a_close_look_at_whole_volumes_follows_a_given_voxel_size(tmp_path):
    """Both grids cover the same part of an image."""
    data = summary((96, 96, 112), (1.75,) * 3)
    plan = make_plan(data, "unet", MACHINE, given={"width": 4, "patch_size": None, "spacing_mm": 3.5})
    source = train_source(write_bundle(tmp_path / "source", plan, tmp_path / "datalist.json"))
    assert config(source, "close_look")["voxel_spacing"] == 1.75
    plan = make_fine_tuning_plan(data, read_source_bundle(source), MACHINE, given={"spacing_mm": 2.5})
    configs = bundle_configs(plan, Path("datalist.json"))
    coarse, fine = (
        np.array(configs[name]["spatial_size"]) * configs[name]["voxel_spacing"] for name in ("train", "close_look")
    )
    np.testing.assert_allclose(fine, coarse)
    assert configs["train"]["voxel_spacing"] == 2.5 and configs["close_look"]["voxel_spacing"] == 1.25


@pytest.mark.parametrize("method", ["scn", "adaptive"])
def test_a_close_look_without_weights_is_not_held(method):
    source = read_source_bundle(bundle_path(f"ceph_xray_landmarks_{method}"))
    source.configs["close_look"]["held_epochs"] = 7  # that of a bundle that was fine-tuned, too
    plan = make_fine_tuning_plan(summary((1935, 2400), (0.1, 0.1), names=source.names), source, MACHINE)
    configs = bundle_configs(plan, Path("datalist.json"))
    held = configs["train"]["held_epochs"]
    assert held > 0 and configs["close_look"]["held_epochs"] == (0 if source.close_weights is None else held)


def test_a_learned_bundle_is_a_source_again(learned, datalists, tmp_path):
    _, folder, plan = learned
    copy = shutil.copytree(folder, tmp_path / "again")
    shutil.move(copy / "models" / "initial.pt", copy / "models" / "model.pt")
    again = make_fine_tuning_plan(plan.summary, read_source_bundle(copy), MACHINE)
    written = write_bundle(tmp_path / "more", again, datalists[plan.summary.spatial_dims][1])
    train = config(written, "train")
    targets = [handler["_target_"] for handler in train["train"]["handlers"]]
    assert sum(target.endswith("HoldLayers") for target in targets) == 1
    assert train["initialize"].count("@load_initial") == 1
    assert again.fine_tuning.kept == tuple(range(len(plan.summary.names)))


def test_logits_of_a_source_stay_logits(datalists, tmp_path):
    """The SCN of the hand bundle is trained with cross-entropy, with one sigma for all landmarks."""
    source = read_source_bundle(bundle_path("hand_xray_landmarks_scn"))
    assert source.sigma is None
    plan = make_fine_tuning_plan(summarize_datalist(datalists[2][1]), source, MACHINE, given={"max_epochs": 2})
    folder = write_bundle(tmp_path / "learned", plan, datalists[2][1])
    for name in ("train", "inference"):
        found = config(folder, name)
        assert found["softmax"] is True and found["decoder"]["softmax"] == "@softmax"
    assert "logits" in config(folder, "metadata")["pred_classes"]
    assert config(folder, "train")["loss_def"]["_target_"].endswith("HeatmapCrossEntropyLoss")


@pytest.mark.parametrize("extent", [(193.5, 240.0), (200.0, 130.0), (90.0, 95.0), (500.0, 40.0)])
def test_the_voxel_size_stays_near(extent):
    for spacing in (0.5, 1.25):
        size = nearest_size(np.array(extent), spacing, 32)
        assert all(side % 32 == 0 for side in size)
        found = max(length / side for length, side in zip(extent, size))
        # within half a multiple of the longest side; the finest grid may have to be finer
        assert abs(math.log(found / spacing)) < math.log(1 + 20 / (max(extent) / spacing)) or max(size) == 64


def test_a_close_look_is_kept(datalists, tmp_path):
    before, after = datalists[2]
    plan = make_plan(summarize_datalist(before), "scn", MACHINE, given=SMALL)
    source = write_bundle(tmp_path / "source", plan, before)
    parser = ConfigParser()
    parser.read_config([source / "configs" / "train.json", source / "configs" / "close_look.json"])
    parser.update({"bundle_root": str(source)})
    network = parser.get_parsed_content("network_def")
    (source / "models").mkdir()
    torch.save(network.half().state_dict(), source / "models" / "pretrained_close_look.pt")
    torch.save(
        {"sigma": torch.full((network.fine.final_conv.out_channels, 1), 1.5)}, source / "models/pretrained_sigma.pt"
    )
    plan = make_fine_tuning_plan(summarize_datalist(after), read_source_bundle(source), MACHINE)
    assert set(plan.choices["sigma"].value) == {1.5}
    folder = write_bundle(tmp_path / "learned", plan, after)
    assert "kept" in dict(plan.fine_tuning.rows())["close look"]
    files = [str(folder / "configs" / f"{name}.json") for name in ("train", "close_look")]
    flow = ConfigWorkflow(files, logging_file=False, workflow_type="train", bundle_root=str(folder))
    flow.initialize()
    new = flow.parser.get_parsed_content("network").eval().fine
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        expected = network.float().eval().fine(image)
        found = new(image)
    rows = [row for row in range(expected.shape[1]) if row not in (NEW, GONE)]
    columns = [column for column in range(found.shape[1]) if column != NEW]
    torch.testing.assert_close(found[:, columns], expected[:, rows], rtol=1e-3, atol=1e-4)


def test_wrong_sources(datalists, tmp_path):
    before, after = datalists[2]
    plan = make_plan(summarize_datalist(before), "scn", MACHINE, given=SMALL)
    source = write_bundle(tmp_path / "source", plan, before)

    def init(*args):
        result = CliRunner().invoke(program, ["init", str(after), "--out", str(tmp_path / "b"), *map(str, args)])
        assert "Traceback" not in result.stderr and not (tmp_path / "b").exists()
        assert result.exit_code in (1, 2)
        return result.stderr

    assert "Train" in init("--from", source) and "model.pt" in init("--from", source)
    train_source(source)
    assert "no such folder and no bundle of this name" in init("--from", tmp_path / "nothing")
    assert "--method cannot be given with --from" in init("--from", source, "--method", "scn")
    assert (
        "the bundle is for 2-D images, but those of the datalist are 3-D"
        in CliRunner()
        .invoke(program, ["init", str(datalists[3][0]), "--out", str(tmp_path / "b"), "--from", str(source)])
        .stderr
    )
    for wrong, message in (
        ({"batch_size": 0}, "batch_size is 0; expected a positive integer"),
        ({"learning_rate": "abc"}, "expected a positive number"),
        ({"held_epochs": -2}, "held_epochs is -2; expected an integer, 0 or more"),
        ({"modality": "foo"}, "expected one of CT, MR, X-ray"),
    ):
        with pytest.raises(ValueError, match=message):
            make_fine_tuning_plan(summarize_datalist(datalists[2][1]), read_source_bundle(source), MACHINE, given=wrong)
    with pytest.raises(
        ValueError, match=r"no landmark of the datalist \(a, b, c\) is one of the bundle \(radius_styloid"
    ):
        make_fine_tuning_plan(summary(), read_source_bundle(source), MACHINE)
    train = source / "configs" / "train.json"
    content = json.loads(train.read_text())
    train.write_text(train.read_text()[:500])
    with pytest.raises(ValueError, match=r"train.json: the file is damaged .* Copy it again from the source"):
        read_source_bundle(source)
    for change, message in (
        ({"in_channels": 3}, "images of 3 channels, but images of a datalist have one"),
        (
            {"_target_": "monai.networks.nets.UNet"},
            "the network is monai.networks.nets.UNet; init --from knows those of",
        ),
        ({"features": 16}, "which does not fit this network"),
    ):
        train.write_text(json.dumps({**content, "network_def": {**content["network_def"], **change}}))
        assert message in init("--from", source)
