"""What each job does: reads the run's resolved recipe, calls one capability, records what it made. One module a
stage.
"""
