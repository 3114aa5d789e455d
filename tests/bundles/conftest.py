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
from small_bundles import BUNDLES, copy_bundle, run, trained_epochs, training_size


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
            run(root, "train", **training_size(root, epochs=epochs, val_interval=epochs // 2))
    return root
