"""The pure core: messages in, effects out, time passed in. No I/O, no clock, no asyncio, no logging (design.md §1)."""
