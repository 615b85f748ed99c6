"""One's own models out: as graphs, as folders of diffusers, and as repositories of the hub."""

from trilemma.sharing.export import export
from trilemma.sharing.push import push

__all__ = ["export", "push"]
