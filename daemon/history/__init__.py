"""The history of metric values: 14 days of every metric that a profile names, by thing and time (spec.md §1.6).

A file of its own, `history.sqlite`: newest rows as they were committed (`tail`), older ones packed into chunks, each a
column of 256 things over hours or a day (`chunks`). Times are kept to the millisecond, once per report.

Why not DuckDB (design.md §6 left it to a bench; `scripts/bench history`, 2 cores, SQLite 3.40, DuckDB 2.0): 1,024
things × 10 metrics every 300 s for 14 days, 41 million values, committed as reports come; realistic values. Ranges
are those of several runs: the same code on the same file differs so much from process to process.

                                              packed chunks      a row a report      DuckDB
    reports written per CPU second          328,000 - 359,000             64,000     ≈ 260,000
    14 days of one metric of one thing           104 - 169 ms               2 ms       11 ms
    … at 10,000 things × 10 metrics                      same               same   ≈ 110 ms
    40 million values of one metric (× 10)        3.1 - 3.9 s               35 s      0.9 s
    bytes per value, time included                       1.11               5.67        1.74
    peak memory of the process                   186 - 386 MB             921 MB      410 MB

DuckDB meets every demand too, and reads for training four times as fast. Chunks take two thirds of its bytes, write a
quarter more per CPU second and need no further dependency (66 MB); a training run of seconds is rare, and what one
thing's question costs does not grow with the fleet, where DuckDB looks through the rows of all things. So DuckDB stays
out; a fleet that trains all day would be a reason to ask again. A thing's 14 days are 17 pages, each of which unpacks
whole chunks: that is the place to look when 200 ms become tight.
The figures for 10,000 things and those for 40 million values are not measured at that size: for chunks the work of a
question is the same by construction, DuckDB's is multiplied by ten, and training is a tenth, multiplied.
"""
