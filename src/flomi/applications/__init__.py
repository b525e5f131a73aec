"""Mutual information at work: one module for each application of the paper, made of public parts of flomi only.

Nothing is imported here; `flomi.applications.data` has the loaders of real data.
"""
