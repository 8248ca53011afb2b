"""Whole jobs that need nothing from elsewhere."""
