"""Ways of sampling rollouts: one file each, every one returning the same Rollouts."""
