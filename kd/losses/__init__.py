"""The terms of the objective: the label loss, and what is transferred from teacher to student.

Each term is a pure function, and a class that holds its options and says what they mean. The functions take any
floating type, compute in float32 at least, and raise a `KDError` for shapes that do not fit. They leave the teacher's
graph as it is; `Loss` detaches it. Functions on hidden states or attention compare one matched pair of layers, and
their classes take the mean over the pairs.
"""
