"""Genie (2402.15391): video tokenizer, latent action model and dynamics, learned from video alone."""
