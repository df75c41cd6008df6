"""From Runs to tables, texts, figures and a page."""
