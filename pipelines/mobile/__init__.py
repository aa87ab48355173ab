"""The phone-sized model: export, quantisation, bundle, predictor."""
