"""Diffusion: x_t = alpha_t x0 + sigma_t eps, and a network that undoes it step by step."""
