"""`podslots doctor`: whether an installation is as it should be, and what to do where it is not.

`facts` reads, `trials` asks the API server what it would do, `checks` judges: each check is a small pure function.
"""
