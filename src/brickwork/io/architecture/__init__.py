"""How to build a network, in its file."""
