"""LoRA adapters as PEFT writes them, read as fine-tuned checkpoints and written."""
