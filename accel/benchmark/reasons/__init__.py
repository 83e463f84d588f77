"""Why a model is no faster than its baseline: one file for each kind of reason."""
