"""Faults on purpose: what is lost, and what is said, when something is killed, full, damaged, hostile or gone.

A suite of its own (`make faults`), too long for `make test`. A row of it is a module here with a `ROW`.
"""
