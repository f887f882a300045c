"""Mapping the names and layouts of other frameworks onto a network."""
