"""Garments that the project draws itself: labelled, located, deterministic by seed."""
