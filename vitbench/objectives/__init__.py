"""The objectives of training. Each has its own file and implements the methods of `base`."""
