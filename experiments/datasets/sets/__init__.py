"""The named sets: which files they are made of, and how to get those."""
