"""The kernel's floor: the requests that cnm makes, packed beforehand, with no library.

What is between two clock readings is nothing but system calls. There are two floors:
one that only makes the network's part, and one that also makes a sandbox's files, and
the sockets of its resolver.
"""
