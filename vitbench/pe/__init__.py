"""Position encodings: how a transformer is told where its tokens are. One file each, behind four hooks (`base`)."""
