"""Where jobs run: submitit's executors, and the entry that runs inside a job on the host. Light; knows no stage's
insides.
"""
