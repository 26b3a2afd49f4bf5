"""The ways from a client to a model, one file per kind of target; `base.py` says what each has to offer."""
