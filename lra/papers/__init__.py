"""What papers print, and ours beside it."""
