"""What a network is trained for. Each objective has a file, and two methods that `base` describes."""
