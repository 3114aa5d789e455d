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
"""Rules that choose the settings of a bundle for given data and a machine, each with its reason."""

from __future__ import annotations

from .bundle import apply_schema, estimated_seconds, measure_close_look, measure_plan, with_pairs, write_bundle
from .bundle_readme import choice_rows, summary_rows
from .choice import Choice, Choices
from .data_summary import DataSummary, summarize_datalist
from .fine_tuning import FineTuning
from .fine_tuning_plan import make_fine_tuning_plan
from .machine import Machine, TrainingMemory, measure_training
from .methods import METHODS, Method, default_method
from .plan import Plan, make_plan
from .source_bundle import SourceBundle, read_source_bundle
from .training_time import Budget, Pace, duration_text, parse_duration

__all__ = [
    "METHODS",
    "Budget",
    "Choice",
    "Choices",
    "DataSummary",
    "FineTuning",
    "Machine",
    "Method",
    "Pace",
    "Plan",
    "SourceBundle",
    "TrainingMemory",
    "apply_schema",
    "choice_rows",
    "default_method",
    "duration_text",
    "estimated_seconds",
    "make_fine_tuning_plan",
    "make_plan",
    "measure_close_look",
    "measure_plan",
    "measure_training",
    "parse_duration",
    "read_source_bundle",
    "summarize_datalist",
    "summary_rows",
    "with_pairs",
    "write_bundle",
]
