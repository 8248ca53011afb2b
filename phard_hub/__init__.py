"""phard_hub."""
