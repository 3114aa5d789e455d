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
"""Contents of the figures: positions of pixels and points, not their appearance."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from monai.data import MetaTensor

from monai_landmarks.visualize import (
    draw_calibration,
    draw_cobb_angles,
    draw_contact_sheet,
    draw_error_against_uncertainty,
    draw_error_boxplot,
    draw_heatmaps,
    draw_landmarks,
    draw_precision,
    draw_sdr_curve,
    draw_size_curve,
    draw_training_curve,
    draw_views,
    landmark_view,
)


def drawn(figure, tmp_path):
    """Return the pixels of a figure."""
    path = tmp_path / "figure.png"
    figure.savefig(path)
    assert path.stat().st_size > 1000
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    "pred,truth,expected",
    [
        ([[3.0, 4.0]], None, ["predicted"]),
        ([[3.0, 4.0]], [[5.0, 6.0]], ["ground truth", "predicted"]),
        ([[np.nan, np.nan]], [[5.0, 6.0]], ["ground truth"]),
        ([[3.0, 4.0]], [[np.nan, np.nan]], ["predicted"]),
        ([[np.nan, np.nan]], None, []),
    ],
)
def test_the_legend_names_what_is_drawn(pred, truth, expected):
    figure = draw_views([landmark_view(np.zeros((1, 20, 20)), pred, truth)])
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == expected


def test_x_runs_right_and_y_down():
    image = np.zeros((1, 60, 40))
    image[0, 33, 7] = 1.0
    view = landmark_view(image, [[33.0, 7.0]])
    plane = view.planes[0]
    row, column = np.unravel_index(plane.image.argmax(), plane.image.shape)
    assert (column, row) == (33, 7) and plane.image.shape == (40, 60)
    left, right, bottom, top = plane.extent
    assert (left, right) == (-0.5, 59.5) and bottom > top  # pixel centers at whole numbers, the first row at the top
    assert plane.pred.tolist() == [[33.0, 7.0]]


@pytest.mark.parametrize("center", [None, 0, (12.0, 9.0, 5.0)])
def test_planes_of_a_volume_go_through_the_center(center):
    volume = torch.zeros(1, 20, 16, 12)
    volume[0, 12, 9, 5] = 1.0
    points = torch.tensor([[12.0, 9.0, 5.0]])
    view = landmark_view(
        MetaTensor(volume, affine=torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0]))), points, center=center
    )
    assert len(view.planes) == 3
    for plane, (horizontal, vertical), aspect in zip(view.planes, ((12, 9), (12, 5), (9, 5)), (2.0, 3.0, 1.5)):
        row, column = np.unravel_index(plane.image.argmax(), plane.image.shape)
        assert (column, row) == (horizontal, vertical) and plane.pred.tolist() == [[horizontal, vertical]]
        assert plane.extent[2] < plane.extent[3]  # anterior and superior at the top
        assert plane.aspect == pytest.approx(aspect) and plane.opacity.tolist() == [1.0]


def test_points_fade_with_their_distance_from_a_plane():
    points = np.array([[5.0, 5.0, 2.0], [5.0, 5.0, 8.0]])
    view = landmark_view(np.random.rand(10, 10, 10), points, center=0)
    assert view.planes[0].opacity[0] == 1 and view.planes[0].opacity[1] < 0.5
    assert (view.planes[1].opacity == 1).all()


def test_points_fade_with_the_length_of_the_axis_through_the_plane():
    """A quarter of each axis off the center: half as strong in all planes."""
    size = np.array([64, 48, 20])
    view = landmark_view(np.zeros(size), [size / 2 + size / 4], center=size / 2)
    assert [plane.opacity.tolist() for plane in view.planes] == [[0.5]] * 3


def test_a_true_point_fades_with_its_own_distance():
    size = np.array([64, 48, 20])
    pred = [[np.nan] * 3, size / 2]
    figure = draw_landmarks(np.zeros(size), pred, [size * 3 / 4, size * 5 / 8], center=size / 2)
    for axes in figure.axes:
        circles = [line for line in axes.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
        dots = [line for line in axes.lines if line.get_zorder() == 4]
        assert [circle.get_alpha() for circle in circles] == [0.5, 0.75]
        assert dots[1].get_alpha() == 1


@pytest.mark.parametrize("center", [2, np.int64(2), np.array(2), torch.tensor(2)], ids=repr)
def test_the_center_is_a_landmark_for_every_kind_of_integer(center):
    points = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [12.0, 9.0, 5.0]])
    view = landmark_view(np.zeros((20, 16, 12)), points, center=center)
    assert [plane.title for plane in view.planes] == ["xy, z = 5", "xz, y = 9", "yz, x = 12"]


@pytest.mark.parametrize(
    ("center", "given"),
    [
        (2.0, "is 2.0"),
        (torch.tensor(2.0), r"is tensor\(2\.\)"),
        ([5.0], r"has shape \(1,\)"),
        ((5.0, 5.0), r"has shape \(2,\)"),
        (np.zeros((1, 3)), r"has shape \(1, 3\)"),
    ],
)
def test_a_center_that_is_no_point_is_refused(center, given):
    expected = f"center must be the index of a landmark or a point with 3 coordinates, but {given}"
    with pytest.raises(ValueError, match=expected):
        landmark_view(np.zeros((20, 16, 12)), np.ones((4, 3)), center=center)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_window_shows_a_part_and_leaves_everything_where_it_is(dims):
    size, low, high = (20, 16, 12)[:dims], [3, 8, 2][:dims], [15, 16, 7][:dims]
    image = np.random.RandomState(0).rand(1, *size)
    points = [[12.0, 9.0, 5.0][:dims]]
    whole, part = landmark_view(image, points), landmark_view(image, points, window=(low, high))
    for all_of_it, plane, axes in zip(whole.planes, part.planes, ((0, 1), (0, 2), (1, 2))):
        (a, b), (i, j) = ((low[axis], high[axis]) for axis in axes)
        rows = slice(i, j)
        np.testing.assert_array_equal(plane.image, all_of_it.image[rows, a:b])
        assert plane.extent[:2] == (a - 0.5, b - 0.5) and sorted(plane.extent[2:]) == [i - 0.5, j - 0.5]
        assert (plane.extent[2] < plane.extent[3]) == (all_of_it.extent[2] < all_of_it.extent[3])
        assert plane.pred.tolist() == all_of_it.pred.tolist() and plane.title == all_of_it.title
    for wrong in (([-1] * dims, high), (low, [99] * dims), (high, low)):
        with pytest.raises(ValueError, match="is not inside the image"):
            landmark_view(image, points, window=wrong)


def test_names_are_no_mathematics(tmp_path):
    """A dollar sign is drawn as it is, and an invalid formula does not raise an error."""
    names = ["$\\frac{1$", "$a$"]
    points = np.array([[4.0, 4.0], [9.0, 9.0]])
    drawn(draw_landmarks(np.zeros((1, 16, 16)), points, names=names, title=names[0]), tmp_path)
    figure = draw_error_boxplot(np.ones((3, 2)), names)
    drawn(figure, tmp_path)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names
    drawn(draw_heatmaps(np.zeros((8, 8)), np.ones((2, 8, 8)), names), tmp_path)
    view = landmark_view(np.zeros((16, 16)), points, title=names[0])
    drawn(draw_contact_sheet([view], names), tmp_path)
    drawn(draw_precision([0, 1], np.ones((2, 2)), np.ones((2, 2)), names=names), tmp_path)
    drawn(draw_sdr_curve(dict.fromkeys(names, np.ones(3))), tmp_path)
    drawn(draw_training_curve([1, 2], [1, 1], [1, 2], names[0]), tmp_path)


def test_errors_as_large_as_stated_lie_on_the_diagonal(tmp_path):
    random = np.random.RandomState(0)
    uncertainty = random.gamma(4, size=(40, 5))
    errors = uncertainty * np.linalg.norm(random.normal(size=(40, 5, 2)), axis=-1) / np.sqrt(2)
    uncertainty[0, 0], errors[1, 1] = np.nan, np.inf
    figure = draw_error_against_uncertainty(errors, uncertainty)
    drawn(figure, tmp_path)
    dots, diagonal, groups = figure.axes[0].lines
    assert len(dots.get_xdata()) == 198 and np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert len(groups.get_xdata()) == 8
    # in a group of 25, the root mean square error has an uncertainty of about 10 %
    assert np.abs(np.log(groups.get_ydata() / groups.get_xdata())).max() < 0.4
    drawn(draw_error_against_uncertainty([np.nan], [1.0]), tmp_path)


def test_calibration_is_the_distribution_of_the_levels(tmp_path):
    levels = np.array([[0.1, 0.2], [0.6, np.nan]])
    figure = draw_calibration(levels, [(0.9, 0.8, 0.7, 0.95), (0.5, 0.5, np.nan, np.nan)])
    drawn(figure, tmp_path)
    _, line = figure.axes[0].lines[:2]
    np.testing.assert_allclose(line.get_xdata(), [0, 10, 20, 60, 100])
    np.testing.assert_allclose(line.get_ydata(), [0, 100 / 3, 200 / 3, 100, 100])
    bars = figure.axes[0].containers
    assert [bar.lines[0].get_xydata().tolist() for bar in bars] == [[[90, 80]], [[50, 50]]]
    np.testing.assert_allclose(bars[0].lines[2][0].get_segments()[0], [[90, 70], [90, 95]])
    drawn(draw_calibration([]), tmp_path)


def test_a_shrunken_image_shows_the_mean_of_its_pixels():
    image = np.kron(np.eye(4), [[0.0, 255.0], [255.0, 255.0]])  # nothing but the corner is dark
    plane = landmark_view(image, [[1.0, 1.0]], max_size=4).planes[0]
    np.testing.assert_allclose(plane.image, np.floor(np.eye(4) * 0.75 * 255))


def test_a_large_image_is_averaged_down_and_points_keep_their_place():
    image = np.random.RandomState(0).rand(64, 48)
    view = landmark_view(image, [[60.0, 10.0]], max_size=20)
    assert view.planes[0].image.shape == (16, 16)  # blocks of 3 and 4 pixels
    assert view.planes[0].extent == (-0.5, 63.5, 47.5, -0.5)


@pytest.mark.parametrize("shape", [(73, 11), (110, 3), (3, 110), (71, 36), (37, 72)])
def test_every_line_of_a_shrunken_image_is_shown_at_its_place(shape):
    """Each row and column is made bright alone, and found in the picture, whose pixels divide its extent equally."""
    for axis, size in enumerate(shape):
        shown = set()
        for i in range(size):
            image = np.zeros(shape)
            image[(i, slice(None)) if axis == 0 else (slice(None), i)] = 1.0
            plane = landmark_view(image, [[0.0, 0.0]], max_size=36).planes[0]
            count = plane.image.shape[1 - axis]
            (bright,) = np.unique(np.argwhere(plane.image)[:, 1 - axis])
            shown.add(int(bright))
            start, end = sorted(plane.extent[2 * axis : 2 * axis + 2])
            assert (start, end) == (-0.5, size - 0.5)
            width = (end - start) / count
            assert abs(start + (bright + 0.5) * width - i) <= width / 2 + 1e-9  # its center is in the bright pixel
        assert count == size if size <= 36 else 18 <= count <= 36
        assert shown == set(range(count))


def test_a_thin_axis_of_a_volume_keeps_its_slices():
    view = landmark_view(np.random.RandomState(0).rand(110, 110, 3), [[5.0, 5.0, 1.0]], max_size=36)
    assert [plane.image.shape for plane in view.planes] == [(28, 28), (3, 28), (3, 28)]


@pytest.mark.parametrize("dims", [2, 3])
def test_colors_of_the_marks_are_in_the_picture(tmp_path, dims):
    rng = np.random.RandomState(1)
    points = rng.uniform(4, 20, (5, dims))
    truth = points + 2
    points[0], truth[1] = np.nan, np.nan
    covariance = np.stack([np.eye(dims)] * 5)
    figure = draw_landmarks(
        rng.rand(1, *(24,) * dims),
        points[None],
        truth[None],
        names=list("abcde"),
        covariances=covariance,
        title="a case",
    )
    assert isinstance(figure, Figure)
    pixels = drawn(figure, tmp_path)
    for color in ((255, 122, 26), (34, 199, 232), (255, 225, 77)):
        assert (np.abs(pixels - color).max(axis=-1) < 12).sum() > 5
    without = drawn(draw_landmarks(rng.rand(1, *(24,) * dims), np.full((2, dims), np.nan)), tmp_path)
    assert (np.abs(without[:-60] - (34, 199, 232)).max(axis=-1) < 12).sum() == 0


@pytest.mark.parametrize("dims", [2, 3])
def test_ellipses_hold_what_lies_within_two_standard_deviations(dims):
    """The surface of the region, mapped by hand: in the plane it lies on the drawn ellipse, a volume's within its shadow."""
    random = np.random.RandomState(2)
    root = np.tril(random.uniform(0.5, 2.0, (dims, dims)))  # a long, inclined region
    directions = random.normal(size=(4000, dims))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    surface = np.array([12.0, 15.0, 9.0][:dims]) + 2 * directions @ root.T
    volume = MetaTensor(torch.rand(1, *(24,) * dims), affine=torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])))
    figure = draw_landmarks(volume, [[12.0, 15.0, 9.0][:dims]], covariances=[root @ root.T])
    panels = figure.axes
    assert len(panels) == (1 if dims == 2 else 3)
    for panel, axes in zip(panels, ((0, 1), (0, 2), (1, 2))):
        (ellipse,) = (patch for patch in panel.patches if isinstance(patch, Ellipse))
        radius = np.linalg.norm(ellipse.get_patch_transform().inverted().transform(surface[:, list(axes)]), axis=1)
        assert radius.max() == pytest.approx(1, abs=0.01)
        assert dims == 3 or radius.min() == pytest.approx(1)


def test_an_ellipse_is_long_where_the_uncertainty_is_large(tmp_path):
    """On the painted pixels: large along x + y, which is down to the right, and small across."""
    along = np.array([1.0, 1.0]) / np.sqrt(2)
    covariance = 0.4 * np.eye(2) + 8.6 * np.outer(along, along)  # 3 pixels along, 0.63 across
    pixels = drawn(draw_landmarks(np.zeros((1, 40, 40)), [[20.0, 20.0]], covariances=[covariance]), tmp_path)
    rows, columns = np.nonzero(np.abs(pixels[:500] - (255, 122, 26)).max(axis=-1) < 60)  # above the legend
    scale = (pixels.shape[1] - 2 * 0.1 * 150) / 40  # pixels of the picture for a pixel of the image
    x, y = columns - columns.mean(), rows - rows.mean()
    assert np.ptp(x + y) / np.sqrt(2) / scale == pytest.approx(4 * 3, rel=0.05)
    assert np.ptp(x - y) / np.sqrt(2) / scale == pytest.approx(4 * np.sqrt(0.4), abs=0.3)


def test_views_side_by_side(tmp_path):
    views = [landmark_view(np.random.rand(30, 40), [[5.0, 5.0]], title=str(i)) for i in range(5)]
    assert len(draw_views(views, columns=3).axes) == 6
    volumes = [landmark_view(np.random.rand(8, 8, 8), [[5.0, 5.0, 5.0]]) for i in range(2)]
    figure = draw_views(volumes)
    assert len(figure.axes) == 6
    drawn(figure, tmp_path)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="cannot contain points with 2 coordinates"):
        landmark_view(np.zeros((1, 4, 4, 4)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="points must have shape"):
        landmark_view(np.zeros((4, 4)), np.zeros((2, 3, 2)))
    with pytest.raises(ValueError, match="same spatial size"):
        draw_heatmaps(np.zeros((4, 4)), np.zeros((2, 5, 4)))


@pytest.mark.parametrize("shape", [(24, 16), (24, 16, 8)])
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_heatmaps(tmp_path, shape, low):
    heatmaps = torch.rand(7, *shape) * (1 - low) + low
    heatmaps[3] = 0
    figure = draw_heatmaps(torch.rand(1, *shape), heatmaps, names=list("abcdefg"), columns=4, share_scale=low < 0)
    assert len(figure.axes) == 8 and figure.axes[2].get_title() == "c"
    drawn(figure, tmp_path)


def test_heatmaps_of_a_volume_are_cut_at_their_peaks():
    heatmaps = torch.zeros(2, 6, 5, 4)
    heatmaps[0, 1, 2, 3], heatmaps[1, 4, 3, 0] = 1.0, -2.0
    volume = torch.arange(4.0).expand(1, 6, 5, 4)  # each plane has the gray value of its number
    for share_scale, limits in ((False, (1.0, 2.0)), (True, (2.0, 2.0))):
        panels = draw_heatmaps(volume, heatmaps, share_scale=share_scale).axes
        for panel, (x, y, z), limit in zip(panels, ((1, 2, 3), (4, 3, 0)), limits):
            background, shown = panel.images
            assert (background.get_array() == z).all()
            assert np.argwhere(shown.get_array()).tolist() == [[y, x]] and shown.get_clim() == (-limit, limit)


def test_the_figure_shows_itself_in_a_notebook():
    picture = draw_training_curve([1, 2], [2.0, 1.0])._repr_png_()
    assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize("size", [(24, 16), (24, 16, 8)])
def test_heatmaps_lie_on_their_image(size):
    """The value with the largest magnitude, which selects the slice of a volume, is negative."""
    peak, dims = (17, 5, 6)[: len(size)], len(size)
    image, heatmap = np.zeros(size), np.full(size, 0.1)
    image[peak], heatmap[peak] = 1.0, -2.0
    heatmap[(3, 11, 1)[:dims]] = 1.5
    background, overlay = draw_heatmaps(image[None], heatmap[None]).axes[0].images
    for shown in (background.get_array(), -overlay.get_array()):
        assert shown.shape == (16, 24)  # rows run along the second axis
        assert np.unravel_index(shown.argmax(), shown.shape) == (5, 17)


def test_boxes_show_quartiles_and_whiskers_from_5_to_95_percent():
    axes = draw_error_boxplot(np.arange(101.0)[:, None]).axes[0]
    ends = {float(value) for line in axes.lines for value in line.get_xdata()}
    assert ends == {5.0, 25.0, 50.0, 75.0, 95.0}
    assert sorted(set(axes.patches[0].get_path().vertices[:, 0])) in ([25.0, 75.0], [0.0, 25.0, 75.0])


@pytest.mark.parametrize(("largest", "scale"), [(5.0, "linear"), (5.5, "log"), (0.0, "linear")])
def test_the_axis_of_boxes_is_logarithmic_for_very_different_medians(largest, scale, tmp_path):
    errors = np.array([[1.0, largest, np.nan]] * 4)
    figure = draw_error_boxplot(errors)
    assert figure.axes[0].get_xscale() == scale
    drawn(figure, tmp_path)


def test_groups_show_the_root_mean_square_error():
    errors = np.tile([0.0, 2.0], 40)
    groups = draw_error_against_uncertainty(errors, np.linspace(1, 1.001, 80)).axes[0].lines[2]
    np.testing.assert_allclose(groups.get_ydata(), np.sqrt(2))
    np.testing.assert_allclose(groups.get_xdata(), 1, rtol=1e-3)


def test_sdr_curve_goes_through_the_rates():
    errors = np.array([[0.5, 1.0, np.nan], [3.0, np.inf, 1.0]])
    figure = draw_sdr_curve(errors, thresholds=(1.0, 2.0), unit="px")
    steps, marks = figure.axes[0].get_lines()
    assert marks.get_ydata().tolist() == [60.0, 60.0]
    assert steps.get_ydata()[-1] == 80.0 and steps.get_xdata()[-1] == 4.0
    assert len(draw_sdr_curve({"a": errors, "b": np.full(3, np.nan)}).axes[0].get_lines()) == 2


@pytest.mark.parametrize("scale", [0.1, 1.0, 2.0, 30.0])
def test_rates_are_not_written_over_each_other(scale):
    figure = draw_sdr_curve(np.linspace(0, 3 * scale, 50), thresholds=(2.0, 2.5, 3.0, 4.0))
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    assert len(boxes) > 1 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_curves_and_boxes(tmp_path):
    nan = np.nan
    for loss, metric in (
        ([3.0, 2.0, nan], [nan, 9.0, 1.0]),
        ([1.0, -2.0, 0.0], [nan, 2.0, 1.5]),
        ([1.0, 2.0, 3.0], None),
    ):
        drawn(draw_training_curve([1, 2, 3], loss, metric), tmp_path)
    figure = draw_training_curve([1, 2, 3], [1, 1, 1], [2.0, 1.0, 1.5])
    assert figure.axes[1].get_title(loc="right") == "best 1 at epoch 2"
    figure = draw_training_curve([1, 2, 3], [1, 1, 1], [2.0, 1.0, 1.5], lower_is_better=False)
    assert figure.axes[1].get_title(loc="right") == "best 2 at epoch 1"
    errors = np.random.rand(6, 3)
    errors[0, 1], errors[1, 1], errors[:, 2] = nan, np.inf, nan
    drawn(draw_error_boxplot(errors, ["a", "b", "c"]), tmp_path)
    drawn(draw_error_boxplot(errors), tmp_path)
    size_curve = draw_size_curve({"$a": [(50, [1.0, 1.4]), (10, [2.0, nan])], "b": [(10, [3.0])]})
    drawn(size_curve, tmp_path)
    assert [text.get_text() for text in size_curve.axes[0].get_xticklabels()] == ["10", "50"]


def test_cobb_angles_over_the_true_ones(tmp_path):
    nan = np.nan
    pred = np.array([[42.0, 10.0, 0.0], [30.0, nan, 20.0], [61.0, 5.0, 8.0]])
    target = np.array([[40.0, 10.0, nan], [33.0, 20.0, 20.0], [60.0, 7.0, 9.0]])
    figure = draw_cobb_angles(torch.as_tensor(pred), target)
    drawn(figure, tmp_path)
    for panel, count, error in zip(figure.axes, (3, 2, 2), ("2.0", "1.0", "0.5")):
        assert panel.get_title(loc="left").endswith(f"n = {count}, mean absolute error {error}°")
        assert len(panel.get_lines()[-1].get_xdata()) == count
        assert panel.get_xlim() == panel.get_ylim() == (0, 70)
    first = figure.axes[0].get_lines()[-1]
    assert first.get_xdata().tolist() == target[:, 0].tolist() and first.get_ydata().tolist() == pred[:, 0].tolist()
    assert "unknown" in draw_cobb_angles(np.full((2, 3), nan), target[:2]).axes[0].get_title(loc="left")


def test_pyplot_is_not_touched():
    assert "monai_landmarks.visualize" in sys.modules
    import monai_landmarks.visualize as package

    for module in vars(package).values():
        assert getattr(module, "__name__", "") != "matplotlib.pyplot"


def test_precision_marks_where_a_search_stopped(tmp_path):
    sigma = np.array([[4.0, 4.0], [5.0, 3.2], [5.0, 2.6], [5.0, 2.6]])
    error = np.array([[np.nan, np.nan], [3.0, 2.0], [2.0, 1.0], [2.0, 1.0]])
    reward = np.full((4, 2), np.nan)
    stopped = [["", ""], ["settled", ""], ["settled", ""], ["settled", "no improvement"]]
    figure = draw_precision([0, 1, 2, 3], sigma, error, reward, stopped, ["b", "a"], "mm")
    drawn(figure, tmp_path)
    assert [axes.get_ylabel() for axes in figure.axes] == ["sigma [mm]", "validation error"]
    lines = figure.axes[0].get_lines()
    circles = [tuple(line.get_xydata()[0]) for line in lines if line.get_marker() == "o"]
    assert sorted(circles) == [(1.0, 5.0), (3.0, 2.6)]
    # in the order of the last sigma
    curves = [line for line in lines if line.get_marker() != "o"]
    assert [line.get_label() for line in curves] == ["a", "b"] and curves[0].get_ydata().tolist() == [
        4.0,
        3.2,
        2.6,
        2.6,
    ]
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log"]
    error[3] = 0.0
    reward[2:] = [[0.5, -0.5], [np.nan, 0.25]]
    figure = draw_precision([0, 1, 2, 3], sigma, error, reward, stopped, unit="voxel")
    drawn(figure, tmp_path)
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "linear"]
    mean = figure.axes[2].get_lines()[-1].get_ydata()
    np.testing.assert_allclose(mean, [np.nan, np.nan, 0.0, 0.25])
    drawn(draw_precision([0, 1], np.full((2, 40), 3.0), np.full((2, 40), np.nan)), tmp_path)


@pytest.mark.parametrize("flip", [False, True])
def test_superior_is_at_the_top_of_a_sagittal_volume(flip):
    """Its axes point to posterior, inferior and right, as those of most MR volumes of the spine."""
    affine = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, 1 if flip else -1, 0, 0], [0, 0, 0, 1.0]])
    axes = draw_views([landmark_view(np.zeros((20, 30, 10)), np.array([[10.0, 2.0, 5.0]]), affine=affine)]).axes[0]
    bottom, top = axes.get_ylim()
    assert (top > bottom) == flip
