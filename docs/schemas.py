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

from tapeline import ledger

# ------------------------------------------------------------------------------------------------ parts


def _ledger(text: str, fields: list[tuple[str, str]]) -> Schema:
    """A ledger; `a.b` in its description is a member of a member."""
    members: Schema = {}
    for name, what in fields:
        group, dot, member = name.partition(".")
        if dot:
            inner = members.get(group, {})
            if "properties" not in inner:
                inner = members[group] = an_object(inner.get("description", group), {})
            inner["properties"][member] = an_int(what)
            inner["required"].append(member)
        else:
            members[name] = an_int(what)
    return an_object(text, members)


_FRAME_LEDGER = _ledger("The ledger of a stream of frames.", ledger.describe())
_REGISTER_LEDGER = _ledger("The ledger of a stream of register packets.", ledger.describe_registers())
_LEDGER = one_of("The ledger (see ledger.md), by what the stream carries.", _FRAME_LEDGER, _REGISTER_LEDGER)
_LEDGER_OR_NOT = one_of("The ledger; null when the recorder has not written one.", *_LEDGER["anyOf"], {"type": "null"})
# One row each in the table; their members are in ledger.md
_LEDGERS = (_LEDGER, _LEDGER_OR_NOT, _FRAME_LEDGER, _REGISTER_LEDGER)
_ROWS = a_pair("First row, and the row after the last.")
_COLUMNS = a_list("Columns.", an_object("", {"name": a_text("Its name."), "type": a_text("Its type.")}))

_REPORT = {
    "path": a_text("The file."),
    "ok": a_bool("Nothing is wrong."),
    "complete": a_bool("Closed and whole; false: cut or unclosed; null: the format cannot tell.", null=True),
    "rows_readable": an_int("Rows whose checksums hold."),
    "rows_expected": an_int("Rows that the file should have, as far as it says."),
    "rows_unverified": an_int("Whole rows at a cut end that no checksum covers."),
    "problems": a_list(
        "Every fault, in file order.",
        an_object(
            "",
            {
                "text": a_text("What is wrong."),
                "offset": an_int("Byte in the file.", null=True),
                "rows": one_of("Rows that it costs: first, and the one after the last.", _ROWS, {"type": "null"}),
            },
        ),
    ),
}

_COMPARISON = {
    "equal": a_bool("Nothing of what was checked differs."),
    "rows": a_pair("Rows of the first and of the second table."),
    "rows_compared": an_int("Rows compared."),
    "schema": a_list("Differences of names and types, as text.", {"type": "string"}),
    "differences": an_int("Cells that differ."),
    "columns": a_map("Cells that differ, by column.", an_int("Cells.")),
    "first": a_list(
        "The first differences.",
        an_object(
            "",
            {
                "row": an_int("Row, from 0."),
                "column": a_text("Column."),
                "a": anything("Value of the first table; NaN and infinities as text."),
                "b": anything("Value of the second table."),
            },
        ),
    ),
}

_EXPECTED = an_object(
    "What a receiver that got every byte has in its ledger.",
    {
        "bytes_received": an_int("Bytes sent."),
        "frames_received": an_int("Valid frames."),
        "frames_stored": an_int("Valid frames that are no duplicates."),
        "bytes_stored": an_int("Bytes of these."),
        "frames_corrupt": a_map("Frames by what is wrong with them.", an_int("Frames.")),
        "bytes_discarded": an_int("Bytes in no valid frame."),
        "gaps": an_int("Runs of missing sequences."),
        "frames_lost": an_int("Sequences missing between the first and the last."),
        "frames_duplicate": an_int("Frames that were there before."),
        "frames_reordered": an_int("Frames behind a later one."),
        "restarts": an_int("Times the sequence began again."),
    },
)
_SENT = {
    "frames_generated": an_int("Frames made."),
    "frames_sent": an_int("Frames sent, duplicates included."),
    "frames_unique": an_int("Different frames sent whole."),
    "frames_dropped": an_int("Frames left out on purpose."),
    "frames_duplicated": an_int("Frames sent twice."),
    "frames_reordered": an_int("Frames sent late."),
    "frames_corrupted": an_int("Frames with a flipped bit."),
    "garbage_bytes": an_int("Bytes between frames that are no frame."),
    "bytes_sent": an_int("Bytes sent."),
    "first_sequence": an_int("First sequence; null for several streams.", null=True),
    "last_sequence": an_int("Last sequence; null for several streams.", null=True),
    "expected": _EXPECTED,
}
_LINE = {
    "url": a_text("Where to."),
    "datagrams_sent": an_int("UDP datagrams sent."),
    "datagrams_refused": an_int("UDP datagrams that the system refused."),
    "error": a_text("Why sending stopped early.", null=True),
}
_DESTINATION = {**_LINE, "elapsed_s": a_number("Seconds from the first to the last send."), **_SENT}

_IMAGE = an_object(
    "",
    {
        "sources": a_list(
            "Sources with known registers, by type and number.",
            an_object(
                "",
                {
                    "type": an_int("Type: 0 unknown, 1 sbmu, 2 rack, 3 rtos."),
                    "src_id": an_int("Number."),
                    "registers": a_list("Known registers.", a_pair("Offset and value.")),
                },
                {"unknown_since": a_list("Registers that a lost packet may have changed.", a_pair("Offset and us."))},
            ),
        )
    },
)
_PACKET = {
    "timestamp_us": an_int("Producer time, us since 1970."),
    "type": an_int("Source type."),
    "src_id": an_int("Source number."),
    "cmd": an_int("Command: 0 diff, 1 full, 2 query, 3 reply."),
    "seq": an_int("Sequence of the packet, 0 to 255."),
}
_CELLS = a_map("One row: column name to value; NaN is null, infinities are ±1e999.", anything("A value."))
_SINK = a_map("Counts and state of a sink; see the guide to registers.", anything("A value."))

# ------------------------------------------------------------------------------------------------ commands

_ONE = "one line with one object"
_LINES = "one object per line"

_FRAME_STREAM = an_object(
    "A stream of frames.",
    {
        "segments": an_int("Files."),
        "open_segments": an_int("Files that are being written, or were when the recorder ended."),
        "bytes": an_int("Bytes of the files."),
        "frames": an_int("Frames in them."),
        "assembly": a_text("How frames are grouped into periodics; null without a manifest.", null=True),
        "first_sequence": an_int("Lowest sequence.", null=True),
        "last_sequence": an_int("Highest sequence.", null=True),
        "first_timestamp_ns": an_int("First producer time, ns since 1970.", null=True),
        "last_timestamp_ns": an_int("Last producer time.", null=True),
        "bytes_per_second": a_number("Bytes by the producer's time.", null=True),
        "periodics_complete": an_int("Periodics with all their frames."),
        "periodics_incomplete": an_int("Periodics that miss some."),
        "frames_late": an_int("Frames that came after their periodic was closed."),
        "ledger": _LEDGER_OR_NOT,
    },
)
_REGISTER_STREAM = an_object(
    "A stream of register packets.",
    {
        "wire": a_text("packet or simple."),
        "segments": an_int("Files."),
        "open_segments": an_int("Files not closed."),
        "bytes": an_int("Bytes of the files."),
        "packets": an_int("Packets in them."),
        "registers": an_int("Registers in them."),
        "sources": a_list("Sources.", an_object("", {"type": a_text("Type."), "src_id": an_int("Number.")})),
        "first_timestamp_us": an_int("First producer time, us since 1970.", null=True),
        "last_timestamp_us": an_int("Last producer time.", null=True),
        "first_time": a_text("The first as ISO 8601.", null=True),
        "last_time": a_text("The last as ISO 8601.", null=True),
        "damage": a_text("What is wrong with the files, if reading stopped at it.", null=True),
        "ledger": _LEDGER_OR_NOT,
        "sinks": a_list("Sinks, as the manifest has them.", _SINK),
    },
)
_INFO_RECORDING = an_object(
    "A recording, a .dat or a .pkt file.",
    {
        "path": a_text("As given."),
        "kind": {"enum": ["recording", "dat", "pkt", "spkt"], "description": "What it is."},
        "complete": a_bool("Stopped in order, and every file is closed.", null=True),
        "started": a_text("ISO 8601.", null=True),
        "stopped": a_text("ISO 8601.", null=True),
        "host": a_text("Machine that recorded.", null=True),
        "streams": a_map("Streams by name.", one_of("A stream.", _FRAME_STREAM, _REGISTER_STREAM)),
    },
)
_INFO_BCSV = an_object(
    "A BCSV file; the optional members and those of columns come with --deep.",
    {
        "path": a_text("As given."),
        "kind": {"enum": ["bcsv"], "description": "What it is."},
        "version": a_text("Format version."),
        "created": a_text("ISO 8601.", null=True),
        "row_codec": a_text("flat, zoh or delta."),
        "file_codec": a_text("stream, stream-lz4, packet, packet-lz4 or packet-lz4-batch."),
        "compression_level": an_int("0: none."),
        "packet_bytes": an_int("Size that packets aim at."),
        "index": a_bool("The footer has an index."),
        "file_bytes": an_int("Size of the file."),
        "header_bytes": an_int("Size of the header."),
        "packets": an_int("Packets."),
        "rows": an_int("Rows."),
        "complete": a_bool("Closed and whole; null: the format cannot tell.", null=True),
        "columns": a_list(
            "Columns.",
            an_object(
                "",
                {"name": a_text("Its name."), "type": a_text("Its type.")},
                {
                    "min": anything("Smallest value; infinities as text."),
                    "max": anything("Largest value."),
                    "mean": anything("Mean of the finite values; null for text and bool."),
                    "changes": an_int("Rows whose value is another one than before."),
                    "nan": an_int("NaN."),
                    "zeros": an_int("Zeros, false or empty strings."),
                    "raw_bytes": an_int("Bytes in memory."),
                },
            ),
        ),
    },
    {
        "raw_bytes": an_int("Bytes of all columns in memory."),
        "ratio": a_number("File size by that.", null=True),
        "packets_detail": a_list(
            "Packets.",
            an_object(
                "",
                {
                    "offset": an_int("Byte in the file."),
                    "first_row": an_int("First row."),
                    "rows": an_int("Rows."),
                    "bytes": an_int("Bytes in the file."),
                    "raw_bytes": an_int("Bytes of its columns in memory."),
                    "ratio": a_number("One by the other.", null=True),
                },
            ),
        ),
        "gaps": a_list("Damaged rows.", _ROWS),
    },
)
_RECOVERED = an_object(
    "What `repair` did to a recording.",
    {
        "recovered": a_map(
            "Segments that were open, by stream.",
            a_list("", a_map("name, frames, bytes_kept, bytes_cut, tail.", anything("A value."))),
        ),
        "listed": a_list("Files that were not in the manifest.", {"type": "string"}),
        "missing": a_list("Files that are in the manifest only.", {"type": "string"}),
        "indexes": a_list("Indexes that were rebuilt.", {"type": "string"}),
        "ledgers": a_list("Streams whose ledger did not agree with their files, and now does.", {"type": "string"}),
        "problems": a_list("What could not be repaired.", {"type": "string"}),
    },
)
_REPAIRED = an_object(
    "What `repair` did to a BCSV file.",
    {
        **_REPORT,
        "written": a_text("The new file; null with --dry-run.", null=True),
        "backup": a_text("The old file with --backup.", null=True),
        "gaps": a_list("Rows that are lost.", _ROWS),
    },
)
_PROFILE = an_object("", {"name": a_text("Name."), "columns": an_int("Columns.")})

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
                        {"ledger": _LEDGER, "files": a_list("Files written, absolute.", {"type": "string"})},
                        {"sinks": a_list("Sinks and what they wrote.", _SINK)},
                    ),
                )
            },
        ),
    ),
    "simulate radar": Output(
        _ONE,
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
                            **_SENT,
                        },
                    ),
                ),
                "destinations": a_list("Streams that went to one URL, together.", an_object("", _DESTINATION)),
                "total": an_object("All together.", _SENT),
            },
        ),
    ),
    "simulate battery": Output(
        _ONE,
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
        _ONE,
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
                            "sent": an_object("What was sent.", _DESTINATION),
                            "ledger": _FRAME_LEDGER,
                            "checks": a_map("Each equation and whether it holds.", a_bool("It holds.")),
                        },
                    ),
                ),
            },
        ),
    ),
    "head": Output("one object per row", _CELLS),
    "tail": Output("one object per row", _CELLS),
    "validate": Output(
        _ONE,
        an_object(
            "",
            {**_REPORT, "depth": {"enum": ["headers", "checksums", "rows"], "description": "How deep it looked."}},
            {"profile": an_object("With --profile: the comparison.", {"name": a_text("The profile."), **_COMPARISON})},
        ),
    ),
    "compare": Output(_ONE, an_object("", _COMPARISON)),
    "cast": Output(
        _ONE,
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
                },
            ),
            _CELLS,
        ),
    ),
    "generate": Output(
        _ONE,
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
                {"profiles": a_list("Profiles.", _PROFILE)},
            ),
        ),
    ),
    "sql": Output(
        "one object per row; one object with --output",
        one_of("", an_object("With --output.", {"path": a_text("The file written.")}), _CELLS),
    ),
    "info": Output(_ONE, one_of("", _INFO_BCSV, _INFO_RECORDING)),
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
                {"byte_offset": an_int("In its file."), **_PACKET, "count": an_int("Registers in it.")},
            ),
            an_object("A register (--rows).", {**_PACKET, "offset": an_int("Offset."), "value": an_int("Value.")}),
            _CELLS,
        ),
    ),
    "convert": Output(
        _ONE,
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
                "gaps": a_list("Damaged rows that were left out.", _ROWS),
                "bytes_skipped": an_int("Damaged bytes of logs of register packets left out."),
                "passes": an_int("Times that the source was read."),
                "bytes_read": an_int("Size of the source."),
                "bytes_written": an_int("Size of the output."),
                "seconds": a_number("Time taken."),
                "complete": a_bool("Every row asked for is in the output."),
            },
        ),
    ),
    "verify": Output(
        _ONE,
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
    "repair": Output(_ONE, one_of("", _REPAIRED, _RECOVERED)),
    "replay": Output(
        _ONE,
        an_object(
            "",
            {
                "elapsed_s": a_number("Seconds."),
                "streams": a_list(
                    "Streams.",
                    a_map("name, url, and counts: frames or packets sent, bytes.", anything("A value.")),
                ),
                "destinations": a_list("URLs.", an_object("", _LINE)),
            },
        ),
    ),
    "registers image": Output(_ONE, _IMAGE),
    "registers history": Output(
        _ONE,
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
    "registers query": Output(_ONE, _IMAGE),
    "registers watch": Output(
        "one object per change",
        an_object(
            "", {"timestamp_us": an_int("Producer time."), "offset": an_int("Offset."), "value": an_int("Value.")}
        ),
    ),
    "plot": Output(
        _ONE,
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
        _ONE,
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
                    an_object("", {**_PACKET, "count": an_int("Registers in it.")}),
                    {"type": "null"},
                ),
            },
        ),
    ),
    "doctor": Output(
        _ONE,
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

# ------------------------------------------------------------------------------------------------ files and page


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
            lines += [f"| `{name}` | {kind} | {text} |" for name, kind, text in members(variant, "", _LEDGERS)]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"
