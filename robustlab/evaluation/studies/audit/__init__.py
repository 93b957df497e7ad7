"""The audit: is the attack itself to be believed? Checks on a random subset, outside the cascade."""
