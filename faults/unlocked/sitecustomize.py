"""On PYTHONPATH of the processes of an unguarded try: every lock is free."""

import filelock

filelock.BaseFileLock._acquire = lambda self: None
filelock.BaseFileLock.is_locked = property(lambda self: True)
filelock.BaseFileLock._release = lambda self: None
