"""Trials: plant a backdoor, defend, see what is left; and many of them at once, as one comparison."""
