"""What runs leave on disk, and what identifies a run."""
