"""What every room may need and none owns: settings with reasons, whole files, near names, JSON, where data lie. Imports nothing of flomi."""
