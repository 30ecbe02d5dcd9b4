"""What runs a training, and what it costs there: devices, processes, time, memory. Knows no task and no model."""
