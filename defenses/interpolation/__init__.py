"""Scores by interpolation of template labels over a graph of nearest neighbours (WNLL)."""
