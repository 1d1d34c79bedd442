"""Figures of the bench."""

FIGURES: dict = {}
