"""The differentiable executor: an ONNX graph run in PyTorch, so that gradients reach its weights.

Read in this order: ``node`` (what an operator is given), ``registry`` (which operators there are), ``operators/`` (the
operators, a file for each family), ``plan`` (a graph's nodes in order, with what each reads), ``parameters`` (which values
can be trained), ``graph`` (the module that runs, trains and writes back), ``agreement`` (proof against ONNX Runtime).
"""
