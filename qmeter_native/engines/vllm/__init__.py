"""vLLM, observed through its own extension points: a worker class, a scheduler class and a plugin.

vLLM is imported by the modules that subclass its classes, `worker` and `scheduler`, and by nothing else.
"""
