"""One loop: a model, a task, steps, evaluations."""
