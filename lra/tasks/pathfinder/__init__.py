"""Pathfinder and Path-X: the task (task.py), the generator of its images and the reader of the released ones."""

from lra.tasks.pathfinder.task import Pathfinder

__all__ = ["Pathfinder"]
