"""What a run leaves on disk, and which runs a study asks for. Nothing here trains, and nothing imports torch."""
