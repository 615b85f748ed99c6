"""Names and formats of the files that a map and a comparison leave for the studio, whose server has no torch."""

MAP_POINTS, MAP_THUMBNAILS = "points.json", "thumbnails.png"
MAP_FORMAT = 1
PARTIAL_REPORT = "partial.json"  # of a comparison that runs
PARTIAL_FORMAT = 1
