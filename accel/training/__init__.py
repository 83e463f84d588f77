"""Training: a graph's weights are changed until its outputs fit.

What a caller may ask for: ``settings``, ``optimizers``, ``schedules``, ``losses``, ``augmentation``, ``distillation``, ``architectures``.
These load nothing heavy; everything else needs the extra ``training``. The way from a request to a model::

    train           one training job; in several processes, on one host or more, by processes (agent, worker, telling)
      assemble      what the request names, made to fit together
        parts       rows to train on, and rows to judge by
        start       the model, the binding, the graph; proved against ONNX Runtime
        validation  what models are judged by: labels, or a teacher
      batches       rows in an order drawn anew each epoch (chance), changed (augment), read ahead (prefetch)
      objective     the loss, read before the last Softmax or Sigmoid (heads); distilling pulls towards a teacher
      loop          epochs of steps on devices and processes (fabric), a judgement at the end of each (judging)
        step_state  what changes with each step: weights (learner), their mean (averaging), optimiser, schedule
        checkpoint  the whole state in one file
    compare_runs    several trainings beside each other
"""
