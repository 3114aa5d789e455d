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

"""The doubts of the table of uncertainties, also as a spreadsheet program writes it."""

from __future__ import annotations

import pytest

from monai_landmarks.evaluation.doubt_table import read_doubts


@pytest.mark.parametrize("comma", [",", ";", "\t"])
def test_doubts_of_a_table_that_was_saved_again(tmp_path, comma):
    rows = ["image,landmark,std_x,doubt", "a.png,tip,1,", "a.png,root,2,", 'b.png,tip,1,"turned, or mirrored"', ",,,"]
    (tmp_path / "predictions_std.csv").write_text("\n".join(row.replace(",", comma) for row in rows))
    reason = f"turned{comma} or mirrored"
    assert read_doubts(tmp_path, ["a", "b"]) == {"b": reason}
    assert read_doubts(tmp_path / "predictions.csv", ["a", "b"]) == {"b": reason}


def test_a_table_without_doubts(tmp_path):
    assert read_doubts(tmp_path, ["a"]) is None
    (tmp_path / "predictions_std.csv").write_text("image,landmark,std_x\na.png,tip,1\n")
    assert read_doubts(tmp_path, ["a"]) is None


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "predictions_std.csv").write_text('image,landmark,doubt\na.png,tip,"bad' + 200000 * "x")
    with pytest.raises(ValueError, match="predictions_std.csv: line 2: not comma-separated text"):
        read_doubts(tmp_path, ["a"])
