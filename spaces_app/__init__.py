"""The web page: see a backdoor, see what hardening does to it, and check a model; see `spaces_app.app`."""
