"""ListOps: the task is in task.py, its language in grammar.py, where its examples come from in the rest."""

from lra.tasks.listops.task import ListOps

__all__ = ["ListOps"]
