"""Cost of the methods against plain SGD."""
