"""Several jobs from one command line, by Hydra's --multirun.

callback.py asks jobs.py for all jobs and checks them before the first starts. A job may run in a
process of its own, on another machine (elsewhere.py): it leaves a record on disk (job.py), and
ending.py reads the records of all. comparison.py is the table at the end of a sweep of tsv-bench.
"""
