"""The command line: one file for each group of verbs, the options that they share, and what is shown."""
