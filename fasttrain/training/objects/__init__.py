"""Learning which part of an image is the object, without labels: class-agnostic activation maps."""
