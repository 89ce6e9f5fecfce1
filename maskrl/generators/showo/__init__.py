"""Show-o: network, prompting, image tokenizer, checkpoints, generator."""
