"""What a user types: values that need quotes, and recipes in place of a long line."""
