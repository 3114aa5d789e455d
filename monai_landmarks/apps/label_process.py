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

"""The process of the label server, which is MONAI Label's ``monailabel start_server``. Ctrl-C prints one line."""

from __future__ import annotations

import runpy

from monai_landmarks.__main__ import end_plainly

__all__ = ["run_monai_label"]


def run_monai_label() -> None:
    """Run MONAI Label's command line with the arguments of this process."""
    runpy.run_module("monailabel.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    end_plainly(run_monai_label)
