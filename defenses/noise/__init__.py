"""Noise on the maps inside a network: where it goes, how it is drawn, how its size is trained."""
