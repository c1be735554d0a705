"""The Python runtime of Vilya: runs one function inside one sandbox.

`channel` speaks the shared-memory ABI, `windows` lends its bytes to handlers,
`metadata` reads and writes the small typed records beside a payload, `handlers`
finds and calls the function, `failures` turns exceptions into the error record,
`output` brings out what was printed, `server` ties them together. `vilya` is what functions may import.

Standard library only; Python 3.9 and later.
"""
