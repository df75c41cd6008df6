"""What lies between a command line and a command: checks of it, and the objects it asks for."""
