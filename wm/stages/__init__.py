"""The six stages, each a function of its configuration, its inputs and a workspace: collect to evaluate."""
