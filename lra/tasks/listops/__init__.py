"""ListOps: the task (task.py), its language (grammar.py, evaluator.py), its examples (generator.py, released.py)."""

from lra.tasks.listops.task import ListOps

__all__ = ["ListOps"]
