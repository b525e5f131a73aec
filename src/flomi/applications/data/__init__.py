"""Real data from files that are on the machine already; nothing here downloads."""
