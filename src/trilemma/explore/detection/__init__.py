"""The parts of `detect`: whose images, their scores, which score flags, the threshold, and the report."""
