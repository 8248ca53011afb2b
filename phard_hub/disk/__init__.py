"""Writing so that nothing is half there, and reading so that nothing is taken for what it is not."""
