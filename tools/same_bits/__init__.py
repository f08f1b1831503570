"""Whether two commits of this repository give the same bits, and what of dvc.lock may then be said again.

    python -m tools.same_bits OLD NEW [NAME ...]             compare, and print a table
    python -m tools.same_bits OLD NEW [NAME ...] --record    and, where nothing differs, rewrite dvc.lock's rows of code

Both commits are cloned side by side and run the same things with the same Python environment (`cases`, `commits`); what
they wrote is compared (`compare`). What is recorded and why is in `lock`. Of the two commits' own packages nothing is
imported here: they may be laid out in any two ways.
"""
