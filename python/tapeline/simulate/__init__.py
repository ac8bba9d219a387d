"""tapeline.simulate."""
