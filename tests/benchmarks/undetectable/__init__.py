"""Which defence stops which undetectable backdoor, what it costs, and how fast votes are."""
