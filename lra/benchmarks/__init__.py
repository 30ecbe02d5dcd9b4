"""Benchmarks: `targets.py` lists them, `timing.py` takes the time, each other file is a target or a part of one."""
