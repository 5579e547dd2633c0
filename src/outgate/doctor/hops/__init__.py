"""The hops of the walk, each a function from what is known to findings, and how they look at the network.

Standards: none.
Promises: nothing is imported with the package.
Not here: their order (`doctor.walk`), what can be said without looking (`doctor.traps`).
"""
