"""The controlled way out by environment: wanted (`plan`), put into force (`reconcile`), carried (`forwarder`)."""
