"""Genie: video tokenizer, latent action model and dynamics, learned from video alone."""
