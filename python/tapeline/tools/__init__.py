"""What the file tools of the command line do, as functions: no printing, no exit codes.

One module per tool; each works batch by batch, so that memory does not grow with the file.
"""
