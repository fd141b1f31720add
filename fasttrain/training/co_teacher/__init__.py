"""Co-teaching for classifiers that are to know domains which they have not seen: a student and its moving average see
each image with its own and with another image's amplitudes, and agree on what it shows.

The stage of Xu et al., "A Fourier-based framework for domain generalization" (CVPR 2021, arXiv 2105.11120).
"""
