"""Pathfinder and Path-X: the task is in task.py, where its images come from in the rest."""

from lra.tasks.pathfinder.task import Pathfinder

__all__ = ["Pathfinder"]
