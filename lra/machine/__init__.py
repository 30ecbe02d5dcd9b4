"""The machine: devices, processes, signals, and measuring time, memory and operations. Knows no task and no model."""
