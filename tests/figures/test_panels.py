"""The panels of a workspace in Weights & Biases, made and not sent."""

from __future__ import annotations

import pytest

from lra.errors import InputError
from lra.figures.panels import COSTS, CURVES, workspace
from lra.records.wandb_mirror import HISTORY


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_panel_is_of_a_name_that_runs_mirror():
    pytest.importorskip("wandb_workspaces")
    made = workspace("me/lra")
    assert (made.entity, made.project, made.settings.x_axis) == ("me", "lra", "step")
    lines = [panel for section in made.sections for panel in section.panels if type(panel).__name__ == "LinePlot"]
    assert [str(line.y[0]) for line in lines] == [HISTORY[name] for name in (*CURVES, *COSTS)]
    assert all(section.panels for section in made.sections)


@pytest.mark.parametrize("path", ["", "lra", "me/lra/more", "/lra"])
def test_a_path_that_names_no_project_is_refused(path):
    with pytest.raises(InputError, match="panels needs wandb=entity/project"):
        workspace(path)
