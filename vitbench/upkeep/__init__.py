"""What keeps a workplace in order: is the machine fit, are the files whole, what can go."""
