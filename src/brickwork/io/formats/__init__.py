"""Readers of other frameworks' files, one module each, and what they are made of."""
