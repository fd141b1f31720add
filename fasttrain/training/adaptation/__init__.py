"""Unsupervised domain adaptation of segmentation models: a teacher that follows the student labels the target's pixels.

The parts of DACS (Tranheden et al., WACV 2021) and DAFormer (Hoyer et al., CVPR 2022).
"""
