"""Networks as programs in files."""
