"""python -m wm."""

from wm.core import portable, watchdog

portable.start_again()  # before anything computes

from wm.cli import main  # noqa: E402

watchdog.leave(main())
