"""Training state: written in the background, restored bit for bit."""
