"""Scripts that run the methods on data."""
