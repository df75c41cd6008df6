"""What a method is given beside task vectors, where its yaml says that it needs it."""
