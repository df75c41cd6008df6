"""Tables as text: terminal, markdown, LaTeX, csv."""
