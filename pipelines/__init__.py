"""Retraining with TFX: data, training, evaluation, blessing, push."""
