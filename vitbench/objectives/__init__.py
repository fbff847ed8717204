"""What a network is trained for: one file each, behind two methods (`base`)."""
