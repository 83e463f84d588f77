"""Training: a graph's weights are changed until its outputs fit.

What a caller may ask for: ``settings``, ``optimizers``, ``schedules``, ``losses``, ``augmentation``, ``distillation``, ``request``.
These load nothing heavy; everything else needs the extra ``training``. The way from a request to a model::

    train           one training job
      parts         rows to train on, and rows to judge by
      start         the graph made ready: what is trained, what the loss reads
      batches       rows in an order drawn anew each epoch (chance), changed (augment), read ahead (prefetch)
      objective     the loss, read before the last Softmax or Sigmoid (heads); distilling pulls towards a teacher
      loop          epochs of steps on devices and processes (fabric); what is trained (learner), its mean (averaging)
        judging     loss and metric on rows that are not trained on
        checkpoint  the whole state in one file
      processes     the same in several processes, on one host or more
"""
