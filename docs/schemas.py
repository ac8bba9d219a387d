"""What each command prints with `--json`: JSON Schemas, and the page made of them.

`SCHEMAS` is the registry. `docs/generate.py` writes one file per entry and `docs/reference/json.md`;
`tests/system/test_json.py` runs every command and holds what it prints against them.
"""

from __future__ import annotations

from json_schema import (
    Output,
    Schema,
    a_bool,
    a_list,
    a_map,
    a_number,
    a_pair,
    a_text,
    an_int,
    an_object,
    anything,
    members,
    one_of,
)
from schema_parts import (
    CELLS,
    COMPARISON,
    DESTINATION,
    FRAME_LEDGER,
    IMAGE,
    INFO_BCSV,
    INFO_RECORDING,
    LEDGER,
    LEDGERS,
    LINE,
    ONE,
    PACKET,
    PROFILE,
    RECOVERED,
    REPAIRED,
    REPORT,
    ROWS,
    SENT,
    SINK,
    UNFINISHED,
)

SCHEMAS: dict[str, Output] = {
    "record": Output(
        "one object, the last line",
        an_object(
            "",
            {
                "streams": a_map(
                    "Streams by name.",
                    an_object(
                        "",
                        {"ledger": LEDGER, "files": a_list("Files written, absolute.", {"type": "string"})},
                        {"sinks": a_list("Sinks and what they wrote.", SINK)},
                    ),
                )
            },
        ),
    ),
    "simulate radar": Output(
        ONE,
        an_object(
            "",
            {
                "seed": an_int("As given."),
                "elapsed_s": a_number("Seconds."),
                "streams": a_list(
                    "Streams.",
                    an_object(
                        "",
                        {
                            "name": a_text("ch0, ch1, ..."),
                            "stream_id": an_int("In the frames."),
                            "url": a_text(""),
                            **SENT,
                        },
                    ),
                ),
                "destinations": a_list("Streams that went to one URL, together.", an_object("", DESTINATION)),
                "total": an_object("All together.", SENT),
            },
        ),
    ),
    "simulate battery": Output(
        ONE,
        an_object(
            "",
            {
                "seed": an_int("As given."),
                "wire": a_text("packet or simple."),
                "elapsed_s": a_number("Seconds."),
                "clients": a_list(
                    "Clients.",
                    an_object(
                        "",
                        {
                            "url": a_text("Where to."),
                            "type": an_int("Source type."),
                            "src_id": an_int("Source number."),
                            "packets_sent": an_int("Packets."),
                            "full_packets": an_int("Of them with all registers."),
                            "registers_sent": an_int("Registers."),
                            "bytes_sent": an_int("Bytes."),
                            "datagrams_sent": an_int("UDP datagrams."),
                            "first_timestamp_us": an_int("Of the first packet.", null=True),
                            "last_timestamp_us": an_int("Of the last packet.", null=True),
                            "error": a_text("Why it stopped early.", null=True),
                        },
                    ),
                ),
                "total": a_map("Sums over the clients.", an_int("A count.")),
                "image_digest": a_text("XXH3-128 of the registers at the end, as `Image.digest`.", null=True),
            },
        ),
    ),
    "demo": Output(
        ONE,
        an_object(
            "",
            {
                "closes": a_bool("Every number of every stream closes."),
                "seconds": a_number("Time taken."),
                "problems": a_list("What `verify` found.", {"type": "string"}),
                "streams": a_map(
                    "Streams by name.",
                    an_object(
                        "",
                        {
                            "transport": a_text("tcp or udp."),
                            "sent": an_object("What was sent.", DESTINATION),
                            "ledger": FRAME_LEDGER,
                            "checks": a_map("Each equation and whether it holds.", a_bool("It holds.")),
                        },
                    ),
                ),
            },
        ),
    ),
    "head": Output("one object per row", CELLS),
    "tail": Output("one object per row", CELLS),
    "validate": Output(
        ONE,
        an_object(
            "",
            {**REPORT, "depth": {"enum": ["headers", "checksums", "rows"], "description": "How deep it looked."}},
            {"profile": an_object("With --profile: the comparison.", {"name": a_text("The profile."), **COMPARISON})},
        ),
    ),
    "compare": Output(ONE, an_object("", COMPARISON)),
    "cast": Output(
        ONE,
        an_object(
            "",
            {
                "source": a_text("The file read."),
                "columns": a_list(
                    "Columns.",
                    an_object(
                        "", {"name": a_text("Name."), "type": a_text("Type it has."), "cast": a_text("Type it gets.")}
                    ),
                ),
                "unfinished": UNFINISHED,
            },
            {
                "path": a_text("The file written, if one was."),
                "clamped": a_map("Values beyond the range of their new type, by column.", an_int("Values.")),
                "rounded": a_map("Values that were rounded, by column.", an_int("Values.")),
            },
        ),
    ),
    "sample": Output(
        "one object; with DST `-` one object per row",
        one_of(
            "",
            an_object(
                "With a file.",
                {
                    "path": a_text("The file written."),
                    "rows_read": an_int("Rows of the source."),
                    "rows_kept": an_int("Rows written."),
                    "unfinished": UNFINISHED,
                },
            ),
            CELLS,
        ),
    ),
    "generate": Output(
        ONE,
        one_of(
            "",
            an_object(
                "",
                {
                    "path": a_text("The file written."),
                    "profile": a_text("The profile."),
                    "rows": an_int("Rows."),
                    "seed": an_int("Seed."),
                    "bytes": an_int("Size of the file."),
                },
            ),
            an_object(
                "With --list.",
                {"profiles": a_list("Profiles.", PROFILE)},
            ),
        ),
    ),
    "sql": Output(
        "one object per row; one object with --output",
        one_of("", an_object("With --output.", {"path": a_text("The file written."), "unfinished": UNFINISHED}), CELLS),
    ),
    "info": Output(ONE, one_of("", INFO_BCSV, INFO_RECORDING)),
    "cat": Output(
        "one object per row, frame, packet or register",
        one_of(
            "",
            an_object(
                "A frame.",
                {
                    "stream": a_text("Its stream."),
                    "sequence": an_int("Sequence."),
                    "timestamp_ns": an_int("Producer time, ns since 1970."),
                    "stream_id": an_int("In the frame."),
                    "flags": an_int("In the frame."),
                    "late": a_bool("It came after its periodic was closed."),
                    "payload": a_text("Hexadecimal."),
                },
            ),
            an_object(
                "A register packet.",
                {"byte_offset": an_int("In its file."), **PACKET, "count": an_int("Registers in it.")},
            ),
            an_object("A register (--rows).", {**PACKET, "offset": an_int("Offset."), "value": an_int("Value.")}),
            CELLS,
        ),
    ),
    "convert": Output(
        ONE,
        an_object(
            "",
            {
                "source": a_text("As given."),
                "destination": a_text("As given."),
                "source_format": a_text("csv, bcsv, parquet, arrow, jsonl, dat or pkt."),
                "destination_format": a_text("csv, bcsv, parquet, arrow or jsonl."),
                "rows": an_int("Rows written."),
                "rows_skipped": an_int("Records left out for their number of fields."),
                "rows_padded": an_int("Short records filled with empty cells."),
                "blank_lines": an_int("Empty lines of CSV."),
                "columns": a_list(
                    "Columns written.",
                    an_object(
                        "",
                        {
                            "name": a_text("Name."),
                            "type": a_text("Type."),
                            "widened_from": a_text("Type that was too small.", null=True),
                            "empty_cells": an_int("Empty cells among numbers."),
                            "rounded_cells": an_int("Cells rounded to a given type."),
                        },
                    ),
                ),
                "renamed": a_list("Names that had to change.", a_pair("As found, as made.", "string", "string")),
                "delimiter": a_text("Of the CSV file read.", null=True),
                "decimal": a_text("Decimal separator of the CSV file read.", null=True),
                "gaps": a_list("Damaged rows that were left out.", ROWS),
                "bytes_skipped": an_int("Damaged bytes of logs of register packets left out."),
                "unfinished": UNFINISHED,
                "passes": an_int("Times that the source was read."),
                "bytes_read": an_int("Size of the source."),
                "bytes_written": an_int("Size of the output."),
                "seconds": a_number("Time taken."),
                "complete": a_bool("Every row asked for is in the output."),
            },
        ),
    ),
    "verify": Output(
        ONE,
        an_object(
            "",
            {
                "ok": a_bool("There is no problem."),
                "frames": an_int("Frames, or packets, read."),
                "bytes": an_int("Bytes read."),
                "segments": an_int("Files read."),
                "problems": a_list(
                    "Differences.",
                    an_object(
                        "",
                        {
                            "file": a_text("Path below the recording."),
                            "offset": an_int("Byte in it.", null=True),
                            "what": a_text("What was compared."),
                            "expected": anything("What one side says."),
                            "found": anything("What is there."),
                        },
                    ),
                ),
            },
        ),
    ),
    "repair": Output(ONE, one_of("", REPAIRED, RECOVERED)),
    "replay": Output(
        ONE,
        an_object(
            "",
            {
                "elapsed_s": a_number("Seconds."),
                "streams": a_list(
                    "Streams.",
                    a_map("name, url, and counts: frames or packets sent, bytes.", anything("A value.")),
                ),
                "destinations": a_list("URLs.", an_object("", LINE)),
            },
        ),
    ),
    "registers image": Output(ONE, IMAGE),
    "registers history": Output(
        ONE,
        an_object(
            "",
            {
                "type": an_int("Source type."),
                "src_id": an_int("Source number."),
                "offset": an_int("Offset."),
                "changes": a_list(
                    "Changes.", a_pair("Producer time in us, and the value or null.", "integer", ["integer", "null"])
                ),
            },
        ),
    ),
    "registers query": Output(ONE, IMAGE),
    "registers watch": Output(
        "one object per change",
        an_object(
            "", {"timestamp_us": an_int("Producer time."), "offset": an_int("Offset."), "value": an_int("Value.")}
        ),
    ),
    "plot": Output(
        ONE,
        an_object(
            "",
            {
                "file": a_text("The picture."),
                "streams": a_map(
                    "Streams drawn.",
                    an_object(
                        "",
                        {
                            "seconds": a_number("Producer time shown."),
                            "frames_missing": an_int("Frames missing."),
                            "frames_late": an_int("Frames late."),
                            "periodics_complete": an_int("Periodics with all their frames."),
                            "periodics_incomplete": an_int("Periodics that miss some."),
                        },
                    ),
                ),
            },
        ),
    ),
    "ring stat": Output(
        ONE,
        an_object(
            "",
            {
                "name": a_text("As given."),
                "capacity": an_int("Bytes of the ring."),
                "producer_pid": an_int("Process that wrote last."),
                "has_producer": a_bool("A producer has the ring now."),
                "closed": a_bool("The last producer said that it was done."),
                "write_position": an_int("End of the newest record."),
                "reserve_position": an_int("End of what the producer may be writing."),
                "oldest_position": an_int("Start of the oldest whole record."),
                "readable_bytes": an_int("Bytes between oldest and newest."),
                "records": an_int("Records there."),
                "payload_bytes": an_int("Bytes of their payloads."),
                "corrupt_records": an_int("Damaged ones."),
                "first_timestamp_us": an_int("Of the oldest record.", null=True),
                "last_timestamp_us": an_int("Of the newest record.", null=True),
            },
        ),
    ),
    "ring cat": Output(
        "one object per record",
        an_object(
            "",
            {
                "position": an_int("In the ring."),
                "timestamp_us": an_int("Of the record."),
                "payload": a_text("Hexadecimal."),
                "packet": one_of(
                    "The register packet in it, if it is one.",
                    an_object("", {**PACKET, "count": an_int("Registers in it.")}),
                    {"type": "null"},
                ),
            },
        ),
    ),
    "doctor": Output(
        ONE,
        an_object(
            "",
            {
                "system": a_map("Kernel, machine, cores and limits.", anything("A value; null where not known.")),
                "sockets": a_map("Buffers granted; offloads.", anything("A value.")),
                "speeds": a_map("Bytes per second of checksums and compression.", a_number("A speed or ratio.")),
                "disk": a_map("Space and speed of --out.", anything("A value.")),
                "advice": a_list("What limits recording here, and what to do.", {"type": "string"}),
            },
        ),
    ),
}


def file_name(command: str) -> str:
    """Where the schema of a command is, below docs/reference."""
    return f"schemas/{command.replace(' ', '-')}.json"


def document(command: str) -> Schema:
    """The whole JSON Schema of one object that a command prints."""
    output = SCHEMAS[command]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"tapeline {command} --json",
        "$comment": f"{output.form}; written by docs/generate.py",
        **output.schema,
    }


def page() -> str:
    """The page of all commands."""
    lines = [
        "# JSON output\n",
        "With `--json` a command prints its result to stdout as JSON, each object in one line; messages and progress",
        "stay on stderr, and exit codes are the same. Members are only added, never renamed, within a major version. A",
        "test runs every command and holds what it prints against the JSON Schema (draft 2020-12) given with each.\n",
    ]
    for command, output in SCHEMAS.items():
        lines += [f"## {command}\n", f"Prints {output.form}; [schema]({file_name(command)}).\n"]
        variants = output.schema.get("anyOf", [output.schema])
        for variant in variants:
            if variant.get("description"):
                lines.append(f"{variant['description']}\n")
            if "properties" not in variant:
                continue
            lines += ["| member | type | meaning |", "|---|---|---|"]
            lines += [f"| `{name}` | {kind} | {text} |" for name, kind, text in members(variant, "", LEDGERS)]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"
