"""Published checkpoints, through `diffusers` (extra `pretrained`): located, checked, loaded and drawn from.

The core imports none of these libraries: they are loaded where a pipeline is.
"""
