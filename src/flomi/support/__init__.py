"""What every room may need and none owns: settings with reasons, whole files, near names, JSON, places of data.

Imports nothing of flomi.
"""
