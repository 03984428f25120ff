"""The history of metric values: 14 days of every metric that a profile names, by thing and time (spec.md §1.6).

A file of its own, `history.sqlite`: newest rows as they were committed (`tail`), older ones packed into chunks, each a
column of 256 things over hours or a day (`chunks`). Times are kept to the millisecond, once per report.

Why not DuckDB (design.md §6 left it to a bench; `scripts/bench history`, 2 cores, SQLite 3.40, DuckDB 2.0): 1,024
things × 10 metrics every 300 s for 14 days, 41 million values, committed as reports come; realistic values.

                                              packed chunks      a row a report      DuckDB
    reports written per CPU second                  307,000              53,000     272,000
    14 days of one metric of one thing               105 ms                2 ms       33 ms
    … at 10,000 things × 10 metrics                    same                same   ≈ 330 ms
    40 million values of one metric (× 10)            3.4 s                35 s       3.0 s
    bytes per value, time included                     1.08                5.67        1.74
    peak memory of the process                       250 MB              921 MB      408 MB

The thing's 14 days are 17 pages, each of which unpacks whole chunks; those are as large in any fleet. DuckDB looks
through the rows of all things, or would have to be sorted again and again. Chunks hold their own against it in the
rest, need no further dependency (66 MB), and keep the position in the log in the same transaction as the rows.
The figure for 10,000 things and those for 40 million values are measured on a tenth, and multiplied.
"""
