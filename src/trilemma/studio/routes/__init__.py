"""The routes of the studio, one file for each part of its pages; each adds its own to an app."""
