"""Many small runs on the embedded digits."""
