"""The laptop mode: everything the outside world does for a mail, on loopback, with real packets.

`zone` and `nameserver` are the DNS, `ca` certifies, `inbox` receives and `judges` verify what it received,
`api` lets scripts move all of it.
"""
