"""What is behind the doors `mailer.osgi`, `mailer.folders`, `mailer.interpolate` and `mailer.config`.

Standards: those of the doors.
Promises: nothing is imported with the package.
Not here: the doors, which applications import.
"""
