"""How good models are, and whether what one lost against another is real.

The way from a request to a number::

    evaluate        one evaluation: the baseline first, then each model, each with its entry in the report
      runs          predictions of a model: of an earlier evaluation where they stand for a run, else
        predict     of a run over the split, batch by batch;
        collecting  outputs become predictions as they come, by arithmetic of the decoders (decoding)
        kept        and the file that keeps them
      truth         what they are held against: labels, or the baseline's own predictions
      metrics       a metric with its interval, and a drop with its own: by counts (statistics) where samples are right or wrong, else by
        resampling  the bootstrap of a Statistic, of which there is one for each metric:
                    classification, multilabel, regression, with ranking and scores below them
      comparison    a model beside the baseline: drops, McNemar's test, classes (changes), divergence without labels,
        verdict     and whether the contract holds
      robustness    the same on corrupted samples

``contract`` names the metrics, ``predictions`` has the types that all of these share, ``undefined`` says when a metric is no number.
``trial`` and ``emulation`` compare models in the middle of a recipe, by the same metrics.
"""
