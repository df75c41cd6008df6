"""One fine-tuned model a task: where it comes from, and what is known of it."""
