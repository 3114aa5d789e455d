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

"""Draw the pictures of ``docs/images/``: the gallery, and the picture of the README.

``python tools/draw_gallery.py`` draws phantoms, predicts them with the shipped weights of ``hand_xray_landmarks_scn``
and takes two pictures from the executed lessons. All images are drawings; none shows a patient. The picture of the
report needs Chromium or Chrome, and is left as it is without.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from monai.data import MetaTensor
from PIL import Image

from monai_landmarks.data import hand_phantom, load_landmark_datalist, read_landmarks, spine_phantom, write_hand_phantom
from monai_landmarks.evaluation import predict_landmarks
from monai_landmarks.transforms import LandmarksToHeatmap, LandmarksToIndex, RandLandmarkWarp
from monai_landmarks.visualize import draw_heatmaps, draw_landmarks, draw_views, landmark_view

__all__ = ["draw_gallery"]

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SPACING = 0.92  # mm per pixel of the phantoms that the weights were trained on
BLUE, ORANGE = "#1f77b4", "#ff7f0e"


def draw_gallery(folder: Path) -> None:
    """Draw all pictures.

    Args:
        folder: folder to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image, landmarks = hand_phantom(7, size=(256, 256))
    points = landmarks.points
    _targets(image, points, landmarks.names, folder)
    _warps(image, points, folder)
    _planes(folder)
    with tempfile.TemporaryDirectory() as work:
        _predictions(Path(work), folder)
    _lesson_picture("04_target_precision", 1, folder / "precision.jpg")


def _targets(image: np.ndarray, points: np.ndarray, names: list[str], folder: Path) -> None:
    chosen = [0, 8, 16, 24, 36]
    heatmaps = LandmarksToHeatmap(sigma=6.0)(points[chosen], spatial_shape=image.shape)
    figure = draw_heatmaps(image, heatmaps, [names[i].replace("_", " ") for i in chosen], columns=5)
    _save(figure, folder / "targets.jpg")


def _warps(image: np.ndarray, points: np.ndarray, folder: Path) -> None:
    warp = RandLandmarkWarp(translate_range=10, rotate_range=0.3, scale_range=0.1, elastic_range=20, elastic_grid=5)
    warp.prob = 1.0
    warp.set_random_state(3)
    unknown = np.full_like(points, np.nan)  # there is no prediction
    views = [landmark_view(image, unknown, points, title="drawn")]
    for number in range(1, 4):
        moved, moved_points = warp(torch.from_numpy(image.copy())[None], torch.from_numpy(points.copy()))
        views.append(landmark_view(moved, unknown, moved_points, title=f"warp {number}"))
    _save(draw_views(views), folder / "warps.jpg")


def _planes(folder: Path) -> None:
    volume, affine, landmarks = spine_phantom(3, size=(96, 96, 128), spacing=(1.5, 1.5, 1.5))
    image = MetaTensor(torch.from_numpy(volume)[None].float().clip(-200, 900), affine=torch.from_numpy(affine))
    names = [name for name in landmarks.names if name.endswith("body_center")]
    world = torch.from_numpy(landmarks.points[[landmarks.names.index(name) for name in names]])
    index = LandmarksToIndex()(MetaTensor(world[None], affine=torch.eye(4)), image)[0]
    short = [name[:2] for name in names]
    _save(draw_landmarks(image, index, names=short, center=2), folder / "planes.jpg")
    _slicer(image, index.numpy(), world.numpy(), short, folder / "slicer.jpg")


def _slicer(image: MetaTensor, index: np.ndarray, world: np.ndarray, names: list[str], path: Path) -> None:
    """Draw the four views in which 3D Slicer shows a volume with a point list."""
    figure = Figure(figsize=(9, 6.4), facecolor="black")
    center, pixels = index[2].round().astype(int), np.asarray(image)[0]
    for place, axis, title, color in ((1, 2, "R", "#f34a33"), (3, 1, "G", "#6eb04b"), (4, 0, "Y", "#edd54c")):
        axes = figure.add_subplot(2, 2, place)
        rest = [d for d in range(3) if d != axis]
        axes.imshow(np.take(pixels, center[axis], axis).T, cmap="gray", origin="lower")
        near = np.abs(index[:, axis] - center[axis]) < 12
        axes.plot(index[near, rest[0]], index[near, rest[1]], "o", color="#ff8080", markersize=5)
        for name, point in zip(np.array(names)[near], index[near]):
            axes.annotate(
                name,
                (point[rest[0]], point[rest[1]]),
                xytext=(5, 4),
                textcoords="offset points",
                color="#ff8080",
                fontsize=8,
            )
        axes.set_title(title, color="black", backgroundcolor=color, fontsize=8, loc="left")
        axes.set_axis_off()
    axes = figure.add_subplot(2, 2, 2, projection="3d", facecolor="#9a9ac8")
    axes.plot(*world.T, "o-", color="#ff8080")
    for name, point in zip(names, world):
        axes.text(*point, f"  {name}", fontsize=8)
    axes.set_box_aspect(np.maximum(np.ptp(world, axis=0), 30))
    axes.set_axis_off()
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.95, 0.02, 0.1)
    _save(figure, path)


def _predictions(work: Path, folder: Path) -> None:
    """Predict phantoms that the shipped weights have not seen."""
    datalist = write_hand_phantom(work / "hands", num_images=8, size=(256, 256), seed=77, val_frac=0.5, test_frac=0.25)
    items = load_landmark_datalist(datalist, ("training", "validation", "testing"), base_dir=work / "hands")
    predict_landmarks("hand_xray_landmarks_scn", work / "hands" / "images", work / "out", spacing=SPACING)
    views, first = [], None
    for item in items[:4]:
        stem = Path(item["image"]).stem
        pred = read_landmarks(work / "out" / f"{stem}.mrk.json")
        pixels = np.asarray(Image.open(item["image"])).T
        points = np.abs(pred.to("RAS").points[:, :2]) / SPACING
        spread = pred.covariances[:, :2, :2] / SPACING**2
        truth = np.array(item["label"])[:, :2]
        error = np.linalg.norm(points - truth, axis=1).mean() * SPACING
        views.append(landmark_view(pixels, points, truth, covariances=spread, title=f"mean error {error:.2f} mm"))
        first = first or (pixels, points, truth, spread)
    _save(draw_views(views), folder / "overlays.jpg")
    assert first is not None
    _uncertainty(*first, folder / "uncertainty.jpg")
    _overview(*first, folder / "overview.jpg")
    _screenshot(work / "out" / "report.html", folder / "report.jpg")


def _uncertainty(pixels: np.ndarray, points: np.ndarray, truth: np.ndarray, spread: np.ndarray, path: Path) -> None:
    # the end of the ulna alone, because the ellipses are small
    low = np.floor(truth[3:6].min(axis=0) - 8).astype(int).clip(0)
    high = np.ceil(truth[3:6].max(axis=0) + 8).astype(int).clip(max=256)
    figure = draw_landmarks(pixels, points, truth, covariances=spread, window=(low, high), width=5)
    _save(figure, path)


def _overview(pixels: np.ndarray, points: np.ndarray, truth: np.ndarray, spread: np.ndarray, path: Path) -> None:
    """Draw what the package does, from left to right."""
    figure = Figure(figsize=(10.5, 4.1))
    axes = figure.subplots(1, 3)
    heatmaps = LandmarksToHeatmap(sigma=4.0)(points, spatial_shape=pixels.shape)
    titles = (
        "your images and points",
        "a network learns\na heatmap per landmark",
        "points with their\nuncertainty in mm",
    )
    for place, title in zip(axes, titles):
        place.imshow(pixels.T, cmap="gray")
        place.set_title(title, fontsize=12)
        place.set_axis_off()
    axes[0].plot(*truth.T, "o", color=ORANGE, markersize=3.5)
    shown = np.ma.masked_less(heatmaps.max(axis=0).T, 0.05)
    axes[1].imshow(shown, cmap="inferno", alpha=0.85)
    axes[2].plot(*points.T, ".", color=BLUE, markersize=3)
    for point, covariance in zip(points, spread):
        values, vectors = np.linalg.eigh(covariance)
        angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
        width, height = 4 * np.sqrt(values[::-1])  # two standard deviations to each side
        axes[2].add_patch(Ellipse(tuple(point), width, height, angle=angle, fill=False, color=BLUE, linewidth=1.2))
    # a part of the wrist, in which the ellipses can be seen
    middle = points[:6].mean(axis=0)
    axes[2].set_xlim(middle[0] - 28, middle[0] + 28)
    axes[2].set_ylim(middle[1] + 28, middle[1] - 28)
    for left in (0.336, 0.664):
        figure.text(left, 0.45, "➜", fontsize=20, ha="center")
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.88, 0.07)
    _save(figure, path)


def _screenshot(page: Path, path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"no browser; {path} stays as it is")
        return
    # paths of this machine do not belong into the picture
    page.write_text(page.read_text(encoding="utf-8").replace(str(page.parents[1].resolve()), "my"), encoding="utf-8")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command += ["--hide-scrollbars", "--window-size=1000,1250", f"--screenshot={profile}/page.png", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        picture = Image.open(f"{profile}/page.png").convert("RGB")
    picture.thumbnail((800, 1000), Image.Resampling.LANCZOS)
    picture.save(path, "JPEG", quality=80, optimize=True)


def _lesson_picture(lesson: str, number: int, path: Path) -> None:
    """Take a picture from an executed lesson, counted from 0."""
    notebook = json.loads((ROOT / "notebooks" / f"{lesson}.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    pictures = [output["data"]["image/jpeg"] for output in outputs if "image/jpeg" in output.get("data", {})]
    path.write_bytes(base64.b64decode(pictures[number]))


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, facecolor=figure.get_facecolor())
    picture = Image.open(buffer).convert("RGB")
    picture.thumbnail((1100, 2000), Image.Resampling.LANCZOS)
    picture.save(path, "JPEG", quality=80, optimize=True)


def main() -> None:
    """Draw the pictures into ``docs/images/``."""
    draw_gallery(ROOT / "docs" / "images")


if __name__ == "__main__":
    main()
