"""The differentiable executor: an ONNX graph run in PyTorch, so that gradients reach its weights.

Read in this order: ``executable`` (the form that is run), ``node`` (what an operator is given), ``registry`` (which operators
there are), ``operators/`` (the operators, a file for each family; arithmetic that families share lies beside this file), ``plan``
(a graph's nodes in order, with what each reads) and ``pairs`` (two nodes that run as one), ``parameters`` (which values can be
trained), ``latent`` and ``fake_quantization`` (integers that are trained as floats), ``graph`` (the module that runs, trains and
writes back), ``agreement`` (proof against ONNX Runtime).
"""
