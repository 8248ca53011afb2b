"""A release as files: what lies in its folder, and the signature over it. Needs neither torch nor the Hub."""
