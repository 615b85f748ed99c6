"""Autoencoders and variational autoencoders: a code, a reconstruction, and a density over codes to sample from."""
