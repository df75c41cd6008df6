"""How texts are set and said: columns, escapes, nearest names, commands to paste."""
