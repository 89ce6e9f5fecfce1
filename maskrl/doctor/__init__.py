"""What is here, and what would be missing for a recipe: looked at without a network, and without building anything."""
