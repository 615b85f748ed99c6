"""Pictures: levels and floats, grids, tables, and PNG files that say how they were made."""
