"""Ways to run an image tower other than its own: a part of it, or with other linear layers."""
