"""Carries out what jobs decide, and what a manager is made of.

Here: the executor of instructions, the life cycle of a manager and its applications, serializers of jobs, channels.
"""
