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

"""One small trained copy of each bundle for all tests that only read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock
from matplotlib.figure import Figure
from one_pixel import save_one_pixel
from small_bundles import BUNDLES, PAINTED, copy_bundle, run, trained_epochs, training_size


def do_not_draw(patch: pytest.MonkeyPatch) -> None:
    """Write one pixel in place of each picture. Overlays are not composed either: a volume has many views."""
    patch.setattr("matplotlib.figure.Figure.savefig", save_one_pixel)
    patch.setattr("monai_landmarks.handlers.overlay_saver.draw_views", lambda *_args, **_options: Figure())


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles do not draw; the trained copies of two of them did."""
    do_not_draw(monkeypatch)


@pytest.fixture(scope="session", params=BUNDLES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a bundle after a short training; tests that write go elsewhere."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a parallel process may have trained it, or may be about to
        base = base.parent
    root = base / "trained" / request.param
    with FileLock(base / f"{request.param}.lock"):
        if not (root / "models" / "model.pt").is_file():
            copy_bundle(request.param, root.parent)
            epochs = trained_epochs(request.param)
            with pytest.MonkeyPatch.context() as patch:
                if request.param not in PAINTED:
                    do_not_draw(patch)
                run(root, "train", **training_size(root, epochs=epochs, val_interval=epochs // 2))
    return root
