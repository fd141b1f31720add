"""Dataset conversion: sources to images to `.beton`; the format's reader, writer and verifier. NumPy, no torch."""
