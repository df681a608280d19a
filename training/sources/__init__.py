"""Readers of the data that trajectories are made from, a file each; plugins of the group ``prh.sources``."""
