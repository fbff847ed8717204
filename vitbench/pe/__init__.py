"""Position encodings, which tell a transformer where its tokens are. Each is a file that implements hooks of `base`."""
