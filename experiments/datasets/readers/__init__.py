"""File formats: a function each, paths in and arrays out; no splits, no seeds."""
