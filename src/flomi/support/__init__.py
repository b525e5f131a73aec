"""What every room may need and none owns: settings with reasons, whole files, near names. Imports nothing of flomi."""
