"""Defenses that move the classes apart: adversarial training of several kinds."""
