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
"""Studies: methods and settings compared on folds or numbers of training images, with seeds, budget and statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_landmarks.lazy import lazy_names

if TYPE_CHECKING:
    from .definition import Budget, Configuration, Study, load_study
    from .execution import Outcome, execute_runs
    from .figures import StudyFigure, study_figures, write_figures
    from .plan import StudyPlan, plan_study
    from .report import write_study_report
    from .results import Group, StudyResults, collect_results
    from .runs import Run, select_part, study_runs

__all__ = [
    "Budget",
    "Configuration",
    "Group",
    "Outcome",
    "Run",
    "Study",
    "StudyFigure",
    "StudyPlan",
    "StudyResults",
    "collect_results",
    "execute_runs",
    "load_study",
    "plan_study",
    "select_part",
    "study_figures",
    "study_runs",
    "write_figures",
    "write_study_report",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Budget": "definition",
        "Configuration": "definition",
        "Group": "results",
        "Outcome": "execution",
        "Run": "runs",
        "Study": "definition",
        "StudyFigure": "figures",
        "StudyPlan": "plan",
        "StudyResults": "results",
        "collect_results": "results",
        "execute_runs": "execution",
        "load_study": "definition",
        "plan_study": "plan",
        "select_part": "runs",
        "study_figures": "figures",
        "study_runs": "runs",
        "write_figures": "figures",
        "write_study_report": "report",
    },
)
