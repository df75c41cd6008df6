"""Corruptions of images, by the definitions of Hendrycks and Dietterich, arXiv:1903.12261."""
