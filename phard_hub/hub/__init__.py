"""The border to the Hub and to untrusted files: pull, audit, card, release."""
