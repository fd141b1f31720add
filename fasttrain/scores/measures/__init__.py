"""What score tables are worth: accuracy, calibration, agreement."""
