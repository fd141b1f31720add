"""`fasttrain doctor`: what is installed here, and what a training waits for."""
