"""INT8 calibration: what a model is calibrated on, and when a former calibration may be used again."""
