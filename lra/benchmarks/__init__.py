"""Benchmarks: `targets.py` lists them, `core.py` measures, each other file is a target or a part of one."""
