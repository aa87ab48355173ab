"""What MLflow is told; it is a witness and decides nothing (ADR 0006)."""
