"""One file per custom TFX component."""
