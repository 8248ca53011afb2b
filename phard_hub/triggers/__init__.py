"""Pervasive triggers: what they are, many at once, and the search for the smallest."""
