"""The parts of a manager, and the execution of decisions that jobs make.

Here: the executor of instructions, the life cycle of a manager and its applications, serializers of jobs, channels.
"""
