"""tapeline.bcsv."""
