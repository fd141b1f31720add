"""Learning without labels: MoCo v2 and masked autoencoders, on the loop of supervised training."""
