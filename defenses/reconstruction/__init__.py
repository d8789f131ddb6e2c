"""Autoencoders that clean images, the losses they learn by, and what they are in front of."""
