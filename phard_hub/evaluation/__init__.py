"""How well a classifier works, and how well attacks work on it."""
