"""The verbs in a browser, on one's own machine: a server that loads no model, jobs that run the command line, pages."""

from trilemma.studio.serve import open_studio

__all__ = ["open_studio"]
