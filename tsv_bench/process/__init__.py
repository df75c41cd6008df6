"""What a process has and is asked: cores, installed extras, signals that end it."""
