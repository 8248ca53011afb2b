"""Defenses: ours and, later, the baselines it is compared with."""
