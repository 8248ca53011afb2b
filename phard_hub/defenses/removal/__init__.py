"""Defenses that make a model forget what was planted in it."""
