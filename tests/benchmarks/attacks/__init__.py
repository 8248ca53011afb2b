"""Backdoors planted at real size: what they do, how well they are seen, and what hardening leaves of them."""
