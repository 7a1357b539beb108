"""Classifier heads and post-hoc adjustment of their outputs."""
