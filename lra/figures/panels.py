"""A workspace in Weights & Biases: panels of what runs mirror there, by the names of history and summary."""

from __future__ import annotations

from typing import Any

from lra.errors import InputError
from lra.records.wandb_mirror import HISTORY, STEP

NAME = "Accuracy and cost"
CURVES = ("val_accuracy", "val_loss", "train_accuracy", "train_loss")
COSTS = ("ms_per_step", "tokens_per_second", "peak_memory_bytes", "train_seconds")


def workspace(path: str) -> Any:
    """Make the workspace of a project, which `save()` sends to wandb.

    Args:
        path: `entity/project`.

    Raises:
        InputError: the path is another, or the library is not installed.
    """
    entity, _, project = path.partition("/")
    if not entity or not project or "/" in project:
        raise InputError(f"panels needs wandb=entity/project. Got wandb={path}.")
    try:
        from wandb_workspaces import workspaces
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is needed for panels. Install it: pip install -e '.[wandb]'.") from error
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[workspaces.Section(name=name, panels=panels, is_open=True) for name, panels in _sections().items()],
        settings=workspaces.WorkspaceSettings(x_axis=STEP),
    )


def _sections() -> dict[str, list[Any]]:
    """Make the panels: curves over the step, what a run reached at its end, cost over the step, accuracy against it."""
    from wandb_workspaces.reports import v2 as parts

    def lines(names: tuple[str, ...]) -> list[Any]:
        return [parts.LinePlot(title=HISTORY[name], x=STEP, y=[HISTORY[name]], max_runs_to_show=100) for name in names]

    def reached(name: str) -> Any:
        return parts.SummaryMetric(name)

    tests = [
        parts.BarPlot(title=name, metrics=[reached(name)], max_bars_to_show=100)
        for name in ("test_accuracy", "last_test_accuracy")
    ]
    against = [
        parts.ScatterPlot(
            title=f"test_accuracy against {name}", x=reached(name), y=reached("test_accuracy"), log_x=True
        )
        for name in ("training_flops", "peak_memory_bytes", "num_params")
    ]
    return {"Curves": lines(CURVES), "Test": tests, "Cost while training": lines(COSTS), "Accuracy and cost": against}
