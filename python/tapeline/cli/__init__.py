"""tapeline.cli."""
