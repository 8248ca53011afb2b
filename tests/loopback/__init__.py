"""The parts of the loopback Hub; `tests.hub_server` is what tests use."""
