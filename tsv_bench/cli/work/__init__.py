"""What the commands do once their settings are checked: imported then, since this takes torch."""
