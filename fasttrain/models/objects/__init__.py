"""Models that tell objects from background, without knowing of classes."""
