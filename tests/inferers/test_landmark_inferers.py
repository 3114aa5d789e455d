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


"""Inference that ends in points, against MONAI's stitched volumes and their decoding."""

from __future__ import annotations

import csv
import sys
from functools import partial
from inspect import signature

import pytest
import torch
from measure import peak_memory
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SlidingWindowInferer

from monai_landmarks.handlers import PredictionSaver
from monai_landmarks.heatmaps import decode_heatmaps, find_peaks, gaussian_heatmaps
from monai_landmarks.inferers import AutocastInferer, LandmarkInferer, SlidingWindowLandmarkInferer, sliding_window
from monai_landmarks.transforms import HeatmapToLandmarksd

SIZE = {2: (90, 61), 3: (34, 29, 26)}


class Blobs(torch.nn.Module):
    """
    Turns an image whose voxels tell where they are into Gaussians at some points, distorted by where the window lies.

    The distortion is what borders of windows do to a real network: windows do not agree where they overlap.

    Args:
        points: index points (N, D).
        disagreement: of the windows, as a share of the peak.
        noise: share of the peak, the same in every run of the same window.
    """

    def __init__(self, points: torch.Tensor, disagreement: float = 0.0, noise: float = 0.0) -> None:
        super().__init__()
        self.points, self.disagreement, self.noise = points, disagreement, noise
        self.num_windows = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.num_windows += len(image)
        offsets = image[:, None] - self.points.view(1, *self.points.shape, *[1] * self.points.shape[1]).to(image)
        maps = torch.exp(-0.5 * (offsets**2).sum(2) / 1.7**2)
        corner = image.flatten(2)[:, :, 0].sum(1)
        factor = 1 + self.disagreement * torch.sin(corner * 12.3)
        maps = maps * factor.view(-1, *[1] * (maps.ndim - 1))
        noise = torch.stack(
            [torch.randn(maps.shape[1:], generator=torch.Generator().manual_seed(int(7 * c) % 1000)) for c in corner]
        )
        return maps + self.noise * noise.to(maps)


def where(size, device="cpu", cases=1):
    """Image (B, D, *size) whose channels are the coordinates of each voxel."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None].expand(cases, -1, *size)


def random_points(dims, num=12):
    torch.manual_seed(0)
    return torch.rand(num, dims) * (torch.tensor(SIZE[dims]) - 1)


def stitched(inferer_options, image, network, **decoding):
    maps = SlidingWindowInferer(**inferer_options)(image, network)
    return decode_heatmaps(maps, image.ndim - 2, threshold=None, **decoding)


def assert_same_landmarks(found, expected, tolerance=1e-3):
    for name, values in expected._asdict().items():
        torch.testing.assert_close(found[name], values, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize(
    "mode,overlap,method",
    [("constant", 0.0, "gaussian"), ("constant", 0.25, "argmax"), ("gaussian", 0.25, "gaussian")]
    + [("gaussian", 0.6, "centroid")],
)
@pytest.mark.parametrize("dims", [2, 3])
def test_is_the_decoded_stitched_volume(dims, overlap, mode, method, device):
    options = {"roi_size": [20, 16, 14][:dims], "overlap": overlap, "mode": mode, "sw_batch_size": 3}
    network = Blobs(random_points(dims), disagreement=0.3, noise=0.02)
    image = where(SIZE[dims], device)
    expected = stitched(options, image, network, method=method)
    assert_same_landmarks(SlidingWindowLandmarkInferer(**options, method=method)(image, network), expected)


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("dims", [2, 3])
def test_peaks_on_seams_and_borders(dims, mode, device):
    """Where windows end, in the middle of what they have in common, at the border of the image and outside it."""
    options = {"roi_size": (16,) * dims, "overlap": 0.25, "mode": mode}
    seams = torch.tensor([11.5, 12.0, 13.7, 15.5, 0.0, 36.0, -1.0, 25.5])
    network = Blobs(seams[:, None].expand(-1, dims), disagreement=0.4)
    image = where((37,) * dims, device)
    expected = stitched(options, image, network)
    assert_same_landmarks(SlidingWindowLandmarkInferer(**options)(image, network), expected)


def test_takes_the_devices_of_monai(device):
    """The arguments of MONAI's inferer are in its order, and both devices count."""
    own, theirs = (
        list(signature(kind.__init__).parameters) for kind in (SlidingWindowLandmarkInferer, SlidingWindowInferer)
    )
    assert own[: theirs.index("progress") + 1] == theirs[: theirs.index("progress") + 1]
    points, image = random_points(2), where(SIZE[2])
    seen = []

    def network(windows):
        seen.append(windows.device.type)
        return Blobs(points)(windows)

    found = SlidingWindowLandmarkInferer((24, 24), 2, 0.5, sw_device=device, device="cpu")(image, network)
    assert set(seen) == {device.type} and {values.device.type for values in found.values()} == {"cpu"}
    torch.testing.assert_close(found["points"][0], points, atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [(20, 60, 30), (9, 9, 9), (48, 24, 24)])
def test_images_smaller_than_the_window(size, device):
    """A peak in the padding is no peak in the image."""
    options = {"roi_size": (24, 24, 24), "overlap": 0.5, "mode": "gaussian", "padding_mode": "replicate"}
    torch.manual_seed(1)
    network = Blobs(torch.rand(6, 3) * torch.tensor(size), disagreement=0.3)
    image = where(size, device)
    expected = stitched(options, image, network)
    assert_same_landmarks(SlidingWindowLandmarkInferer(**options)(image, network), expected)

    def below_zero(windows):
        return network(windows) - 2

    expected = stitched(options, image, below_zero)
    assert_same_landmarks(SlidingWindowLandmarkInferer(**options)(image, below_zero), expected)


def test_several_cases_and_channels_last(device):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 4, 7, padding=3).to(device)
    image = torch.randn(3, 1, 50, 40, device=device).to(memory_format=torch.channels_last)
    options = {"roi_size": (16, 24), "overlap": 0.5, "mode": "gaussian", "sw_batch_size": 4}
    with torch.no_grad():
        expected = stitched(options, image, network)
    # flat noise is the worst case: the bounds say little
    assert_same_landmarks(SlidingWindowLandmarkInferer(**options, candidates=100)(image, network), expected)


class Chain(Blobs):
    """Each map shows its own landmark, and lower those next to it."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = super().forward(image)
        return maps + 0.5 * maps.roll(1, dims=1) + 0.25 * maps.roll(-1, dims=1)


@pytest.mark.parametrize("mode, overlap", [("constant", 0.0), ("gaussian", 0.4)])
@pytest.mark.parametrize("dims", [2, 3])
def test_several_candidates_are_those_of_the_stitched_volume(dims, mode, overlap, device):
    """Peaks of one landmark in one cell, in neighboring cells, at borders and seams, and fewer than are asked for."""
    size = (60, 47, 20)[:dims]
    corners = torch.tensor(
        [[5.3, 7.0, 4.0], [15.6, 16.2, 12.0], [24.1, 15.7, 11.9], [0.0, 30.0, 19.0], [58.6, 46.0, 9.0]]
    )
    network = Chain(corners[:, :dims], disagreement=0.2)
    image = where(size, device)
    options = {"roi_size": (24, 20, 16)[:dims], "overlap": overlap, "mode": mode}
    maps = SlidingWindowInferer(**options)(image, network)
    how = {"num_peaks": 4, "min_distance": 7.0, "threshold": 0.1}
    expected = find_peaks(maps, dims, **how)
    assert expected.scores.isnan().any() and (expected.scores[..., 2] > 0).all()
    found = SlidingWindowLandmarkInferer(**options, **how)(image, network)
    assert_same_landmarks(found, expected)
    assert_same_landmarks(LandmarkInferer(SlidingWindowInferer(**options), **how)(image, network), expected)
    highest = SlidingWindowLandmarkInferer(**options)(image, network)
    torch.testing.assert_close(found["points"][:, :, 0], highest["points"], atol=1e-3, rtol=0)


def test_no_candidates_at_all():
    for network in (lambda x: x[:, :1] * 0 - 1, lambda x: x[:, :1] * float("nan")):
        found = SlidingWindowLandmarkInferer(roi_size=16, num_peaks=2)(where((20, 20)), network)
        assert found["points"].shape == (1, 1, 2, 2) and all(values.isnan().all() for values in found.values())


def test_what_looks_best_in_one_window_may_not_be_best():
    """Two windows have false peaks in the same cell, each of which the other blends away below the true one."""

    def network(windows):
        start = float(windows[0, 0, 0, 0])
        false_peak, height = {0: (21.0, 1.6), 12: (13.0, 1.2)}.get(start, (0.0, 0.0))
        points = torch.tensor([[30.0, 12.0], [false_peak, 12.0]]) - torch.tensor([start, 0.0])
        return (gaussian_heatmaps(points, (24, 24), 1.5) * torch.tensor([1.0, height]).view(2, 1, 1)).sum(0)[None, None]

    options = {"roi_size": (24, 24), "overlap": 0.5}
    image = where((60, 24))
    expected = stitched(options, image, network)
    assert abs(float(expected.points[0, 0, 0]) - 30) < 0.5
    assert_same_landmarks(SlidingWindowLandmarkInferer(**options)(image, network), expected)
    only_one = SlidingWindowLandmarkInferer(**options, candidates=1)(image, network)
    assert abs(float(only_one["points"][0, 0, 0]) - 21) < 2


@pytest.mark.parametrize("dims", [2, 3])
def test_maximum_in_a_cell_whose_bound_is_low(dims):
    """
    Two windows overlap in columns 16 to 31. In the upper cell each has a peak of 1 where the other has none: the bound
    is 1 and the highest mean 0.5. In the lower cell both agree on a peak of 0.52: bound and mean are 0.52, which is not
    near 1.
    """
    size = (32, 48) if dims == 2 else (32, 48, 16)
    rest = () if dims == 2 else (8.0,)
    peaks = {0: [((5.0, 20.0), 1.0), ((26.0, 24.0), 0.52)], 16: [((10.0, 28.0), 1.0), ((26.0, 24.0), 0.52)]}

    def network(windows):
        maps = []
        for window in windows:
            found = peaks[int(window[1].min())]
            points = torch.tensor([[(*place, *rest)] for place, _ in found])
            blobs = torch.exp(-0.5 * ((window[None] - points.view(2, -1, *[1] * dims)) ** 2).sum(1) / 1.5**2)
            maps.append(sum(height * blob for blob, (_, height) in zip(blobs, found)))
        return torch.stack(maps)[:, None]

    options = {"roi_size": (32, 32, 16)[:dims], "overlap": (0.0, 0.5, 0.0)[:dims]}
    found = SlidingWindowLandmarkInferer(**options)(where(size), network)
    assert found["points"][0, 0].tolist() == pytest.approx([26.0, 24.0, *rest], abs=0.01)
    assert found["scores"].item() == pytest.approx(0.52, abs=1e-4)


@pytest.mark.parametrize("num_peaks", [None, 2])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_network_runs_once_on_each_window(dims, num_peaks):
    network = Blobs(random_points(dims), disagreement=0.3, noise=0.02)
    image = where(SIZE[dims])
    options = {"roi_size": (24,) * dims, "overlap": 0.5, "mode": "gaussian"}
    SlidingWindowInferer(**options)(image, network)
    once, network.num_windows = network.num_windows, 0
    SlidingWindowLandmarkInferer(**options, num_peaks=num_peaks, threshold=0.5)(image, network)
    assert network.num_windows == once


@pytest.mark.parametrize("num_peaks", [None, 2])
@pytest.mark.parametrize("overlap, mode", [(0.25, "constant"), (0.5, "gaussian")])
def test_the_network_runs_once_with_little_memory(num_peaks, overlap, mode, monkeypatch):
    """The memory is half of the stitched heatmaps and a sixth of those of all windows, or less."""
    torch.manual_seed(0)
    size = (150, 26, 22)
    network = Blobs(torch.rand(8, 3) * (torch.tensor(size) - 1), disagreement=0.3, noise=0.02)
    options = {"roi_size": (24, 24, 16), "overlap": overlap, "mode": mode}
    image, radius = where(size), 3
    maps = SlidingWindowInferer(**options)(image, network)
    memory, once = maps.nbytes // 2, network.num_windows
    assert once * 8 * 24 * 24 * 16 * 4 > 6 * memory
    monkeypatch.setattr(sliding_window, "_KEPT_BYTES", memory)
    network.num_windows = 0
    how = {} if num_peaks is None else {"num_peaks": num_peaks, "threshold": 0.3}
    found = SlidingWindowLandmarkInferer(**options, radius=radius, **how)(image, network)
    assert network.num_windows == once
    decode = partial(decode_heatmaps, threshold=None) if num_peaks is None else partial(find_peaks, **how)
    expected = decode(maps, 3, radius=radius)
    assert_same_landmarks(found, expected)


@pytest.mark.parametrize("num_peaks", [None, 2])
@pytest.mark.parametrize("memory", [0, 2**18])
def test_what_is_not_kept_is_computed_again(memory, num_peaks, monkeypatch):
    """With too little memory the network runs again on some windows, and the result is the same."""
    network = Blobs(random_points(3), disagreement=0.3, noise=0.02)
    options = {"roi_size": (24, 24, 24), "overlap": 0.5, "num_peaks": num_peaks, "threshold": 0.3}
    image = where(SIZE[3])
    expected, once = SlidingWindowLandmarkInferer(**options)(image, network), network.num_windows
    monkeypatch.setattr(sliding_window, "_KEPT_BYTES", memory)
    sizes = []
    add = sliding_window._Kept.add

    def spy(kept, *arguments):
        add(kept, *arguments)
        sizes.append((kept.size, sum(part.sums.nbytes for part in kept.parts.values())))

    monkeypatch.setattr(sliding_window._Kept, "add", spy)
    network.num_windows = 0
    found = SlidingWindowLandmarkInferer(**options)(image, network)
    assert once < network.num_windows <= 2 * once
    assert all(counted == true <= memory for counted, true in sizes)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_a_dropped_cell_is_not_blended_in_part(monkeypatch):
    """
    There is memory for 16 of the first window's 24 cells, and the 9 around its lowest peak are dropped. The second window
    shows that this peak is the highest after all: the mean of 0.5 and 3 is 1.75, and without the first window 1.5.
    """
    peaks = {0: {(8, 8): 1.0, (24, 24): 1.0, (24, 40): 1.0, (72, 40): 0.5}, 16: {(72, 40): 3.0}}
    seen = []

    def network(windows):
        seen.append(int(windows[0, 1].min()))
        places, heights = (torch.tensor(list(part), dtype=torch.float32) for part in zip(*peaks[seen[-1]].items()))
        blobs = gaussian_heatmaps(places - torch.tensor([0.0, seen[-1]]), (96, 64), 1.5)
        return (blobs * heights.view(-1, 1, 1)).sum(0)[None, None]

    monkeypatch.setattr(sliding_window, "_KEPT_BYTES", 16 * 16 * 16 * 4)
    inferer = SlidingWindowLandmarkInferer(roi_size=(96, 64), overlap=(0.0, 0.75), radius=2)
    found = inferer(where((96, 80)), network)
    assert seen == [0, 16, 0, 16]
    assert found["points"][0, 0].tolist() == pytest.approx([72.0, 40.0], abs=0.01)
    assert found["scores"].item() == pytest.approx(1.75, abs=1e-4)


def test_meta_tensors_half_precision_and_nan(device):
    network = Blobs(random_points(2, 3))
    options = {"roi_size": (24, 24), "overlap": 0.25}
    image = where(SIZE[2], device)
    expected = stitched(options, image, network)
    found = SlidingWindowLandmarkInferer(**options)(MetaTensor(image), lambda x: network(x).bfloat16())
    assert all(type(value) is torch.Tensor for value in found.values())
    assert float((found["points"] - expected.points).abs().max()) < 0.05
    lost = SlidingWindowLandmarkInferer(**options)(image, lambda x: network(x) * float("nan"))
    assert lost["points"].isnan().all() and lost["scores"].isnan().all()


@pytest.mark.parametrize("dims", [2, 3])
def test_whole_image(dims, device):
    network = Blobs(random_points(dims))
    image = where(SIZE[dims], device, cases=2)
    assert_same_landmarks(LandmarkInferer()(image, network), decode_heatmaps(network(image), dims, threshold=None), 0)


def test_goes_into_autocast():
    for inner in (LandmarkInferer(), SlidingWindowLandmarkInferer(roi_size=(24, 24))):
        found = AutocastInferer(inner)(torch.randn(1, 1, 40, 30), torch.nn.Conv2d(1, 2, 3, padding=1))
        assert found["points"].shape == (1, 2, 2) and found["points"].dtype == torch.float32


@pytest.mark.parametrize(
    "inferer", [LandmarkInferer(), SlidingWindowLandmarkInferer(roi_size=(24, 24, 16), overlap=0.25, mode="gaussian")]
)
def test_an_evaluator_writes_what_heatmaps_would_give(inferer, tmp_path):
    affine = torch.diag(torch.tensor([2.0, -1.0, 1.5, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([5.0, 7.0, -3.0])
    images = [
        {"image": MetaTensor(where(SIZE[3])[0], affine=affine, meta={"filename_or_obj": f"{n}.nii"})} for n in "ab"
    ]
    points = random_points(3, 3)
    points[2] = 1000.0  # nowhere: its map is zero
    written = {}
    for name, how in (("heatmaps", None), ("points", inferer)):
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(Dataset(images), batch_size=2),
            network=Blobs(points),
            inferer=how,
            prepare_batch=lambda batch, *_, **__: (batch["image"], None),
            postprocessing=HeatmapToLandmarksd("pred", threshold=0.1),
            val_handlers=[PredictionSaver(tmp_path / name, ["A", "B", "C"])],
        )
        evaluator.run()
        written[name] = {path.name: path for path in (tmp_path / name).iterdir()}
    assert written["points"].keys() == written["heatmaps"].keys()
    found, expected = (_cells(written[name]["predictions.csv"]) for name in ("points", "heatmaps"))
    assert found == pytest.approx(expected, abs=0.01, nan_ok=True)
    # two cases, two landmarks that are there: points, scores and covariances
    assert sum(value == value for value in found) >= 2 * 2 * (3 + 1 + 6)


def _cells(path):
    """Numbers of a table, NaN for empty cells, without the words."""
    with open(path, newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    return [float(cell or "nan") for cell in cells if not cell or cell.lstrip("-")[0].isdigit()]


def test_other_sizes_and_arguments_are_refused():
    halved = r"heatmaps of size \({0}, {0}\) for an input of size \({1}, {1}\).*wrong places"
    for inferer, size in ((SlidingWindowLandmarkInferer(roi_size=(16, 16)), 16), (LandmarkInferer(), 40)):
        with pytest.raises(ValueError, match=halved.format(size // 2, size)):
            inferer(torch.zeros(1, 1, 40, 40), torch.nn.AvgPool2d(2))
    for arguments in ({"method": "mean"}, {"candidates": 0}, {"num_peaks": 0}):
        with pytest.raises(ValueError, match="method|candidates"):
            SlidingWindowLandmarkInferer(roi_size=16, **arguments)
    with pytest.raises(ValueError, match="method"):
        LandmarkInferer(method="mean")


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of the CPU is asked from Linux")
def test_memory_does_not_grow_with_landmarks(monkeypatch):
    """A network of almost no memory of its own: the stitched volumes of 40 landmarks would be 120 MiB."""
    monkeypatch.setattr(sliding_window, "_KEPT_BYTES", 2**23)
    image = torch.zeros(1, 1, 64, 64, 192)
    for num_landmarks in (1, 40):
        flat = torch.rand(1, num_landmarks, 1, 1, 1)

        def network(windows, flat=flat):
            return flat.expand(-1, -1, *windows.shape[2:])

        inferer = SlidingWindowLandmarkInferer(roi_size=(32, 32, 32), overlap=0.25, candidates=1)
        memory = peak_memory(lambda: inferer(image, network))
    assert memory < 60 * 2**20  # what is kept and 17 MiB by itself; the rest of the process adds some
