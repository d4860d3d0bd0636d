"""Faults of the environment: disks, limits, clocks, mounts, file systems. Each ends in an exact count."""
