"""Architectures: plans checked through the logits they compute."""
