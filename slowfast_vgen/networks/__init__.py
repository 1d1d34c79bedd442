"""Denoisers of clips."""
