"""Using a model: bundle, vetting, predictor, abstention, occlusion. Loads no torch."""
