"""From files to one tensor of levels: listing, reading, colour, size, faults, memory and the cache."""
