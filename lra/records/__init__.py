"""What runs leave on disk: what identifies a run, and how its keys are renewed."""
